"""A whole run's configuration: what is refused, and what the sentence says. No worker is started."""

import copy
import functools
import os
import shutil
import socket
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ragen.trainer import rollout_filter
from ragen.trainer.config import CONFIG_DIR, compose, open_overrides, plain, validate_config
from verl.utils import verl_keys
from verl.utils.config_check import ConfigError

ROOT = CONFIG_DIR.parent
PLAN = "trainer.plan_only=true"  # plans for another machine


@functools.cache
def composed(name):
    config = compose(name)
    OmegaConf.set_struct(config, False)
    return config


#: numbers of these tests' own, whatever the shipped files are tuned to
NUMBERS = [
    "+form=laptop",
    "es_manager.train.env_groups=16", "es_manager.train.group_size=16", "es_manager.train.env_configs.n_groups=[16]",
    "es_manager.val.env_groups=512", "es_manager.val.group_size=1", "es_manager.val.env_configs.n_groups=[256,256]",
    "es_manager.val.env_configs.tags=[TicTacToe,TicTacToePerfect]",
    "actor_rollout_ref.actor.ppo_mini_batch_size=64", "actor_rollout_ref.rollout.rollout_filter_ratio=0.25",
    "actor_rollout_ref.rollout.response_length=32", "actor_rollout_ref.rollout.max_model_len=512",
    "actor_rollout_ref.rollout.max_num_seqs=256", "actor_rollout_ref.rollout.max_num_batched_tokens=8192",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192", "trainer.n_gpus_per_node=2", "trainer.device=auto",
]  # fmt: skip


@functools.cache
def base():
    config = compose("_8_tictactoe", NUMBERS)
    OmegaConf.set_struct(config, False)
    return config


def laptop(*overrides):
    """A laptop run with overrides, applied as Hydra does (composing anew each time would take most of the tests' time)."""
    config = copy.deepcopy(base())
    for item in OverridesParser.create().parse_overrides(list(overrides)):
        if item.is_delete():
            section, _, leaf = item.key_or_group.rpartition(".")
            del OmegaConf.select(config, section)[leaf]
        else:
            OmegaConf.update(config, item.key_or_group, item.value(), force_add=True)
    return config


def refused(*overrides, machine=False):
    """The problems of a configuration that must not pass."""
    with pytest.raises(ConfigError) as caught:
        validate_config(laptop(*overrides), check_machine=machine)
    return caught.value.problems


def one(*overrides, **kwargs):
    problems = refused(*overrides, **kwargs)
    assert len(problems) == 1, problems
    return problems[0]


#: a nest among the tags of validation
NEST = ["es_manager.val.env_configs.tags=[ALL_MINT]", "es_manager.val.env_configs.n_groups=null", "custom_envs.MathTrain.env_config.source=embedded",
        "custom_envs.TicTacToe.env_config.player_info=[{type: policy}]"]

CASES = [
    # overrides, key, value, what the remedy must say
    (["actor_rollout_ref.actor.optim.lr=-0.1"], "actor_rollout_ref.actor.optim.lr", "-0.1", "> 0"),
    (["actor_rollout_ref.actor.optim.lr=fast"], "actor_rollout_ref.actor.optim.lr", "fast", "a number"),
    (["trainer.test_freq=0"], "trainer.test_freq", "0", ">= 1 or -1"),
    (["algorithm.adv_estimator=grop"], "algorithm.adv_estimator", "grop", "grpo"),
    (["actor_rollout_ref.actor.kl_loss_type=full"], "kl_loss_type", "full", "low_var_kl"),
    (["trainer.logger=consol"], "trainer.logger", "consol", "console"),
    (["actor_rollout_ref.rollout.load_format=gguf"], "load_format", "gguf", "safetensors"),
    (["actor_rollout_ref.actor.optim.clip_grad=0"], "actor_rollout_ref.actor.optim.clip_grad", "0", "> 0"),
    (["algorithm.adv_estimator=gae", "critic.ppo_mini_batch_size=65"], "critic.ppo_mini_batch_size", "65", "at most 64"),
    (["critic.forward_max_token_len_per_gpu=300"], "critic.forward_max_token_len_per_gpu", "300", "512"),
    (["actor_rollout_ref.actor.strategy=megatron"], "actor_rollout_ref.actor.strategy", "megatron", "FSDP2"),
    (["trainer.logger=[console,wandbb]"], "trainer.logger", "wandbb", "wandb"),
    (["seed.train=1.5"], "seed.train", "1.5", "whole number"),
    (["es_manager.format_penalty=0.1"], "es_manager.format_penalty", "0.1", "<= 0"),
    (["actor_rollout_ref.actor.ppo_mini_batch_size=65"], "ppo_mini_batch_size", "65", "at most 64"),
    (["es_manager.train.group_size=1", "actor_rollout_ref.actor.ppo_mini_batch_size=1"], "group_size", "1", "2 or more"),
    (["es_manager.train.env_configs.n_groups=[8]"], "es_manager.train.env_groups", "16", "adds up to 8"),
    (["es_manager.val.env_configs.n_groups=[512]"], "n_groups", "[512]", "one a tag"),
    (["es_manager.val.env_configs.tags=[TicTacToe,TicTacTo]"], "es_manager.val.env_configs.tags", "TicTacTo", "did you mean TicTacToe"),
    (["es_manager.val.env_groups=511", "es_manager.val.env_configs.n_groups=null"], "es_manager.val.env_groups", "511", "multiple of 2"),
    (["schedule.k_list=[2,2]"], "schedule.k_list", "[2, 2]", "null"),
    (["actor_rollout_ref.rollout.response_length=512"], "response_length", "512", "max_model_len = 512"),
    (["agent_proxy.max_think_tokens=32"], "agent_proxy.max_think_tokens", "32", "response_length = 32"),
    (["agent_proxy.max_think_tokens=20", "custom_envs.TicTacToe.max_tokens=16"], "agent_proxy.max_think_tokens", "20", "TicTacToe.max_tokens = 16"),
    (["agent_proxy.max_think_tokens=20", "agent_proxy.enable_think=false"], "agent_proxy.max_think_tokens", "20", "use null"),
    (["agent_proxy.overlong_buffer.len=40"], "agent_proxy.overlong_buffer.len", "40", "at most that"),
    (["agent_proxy.overlong_replies=drop"], "agent_proxy.overlong_replies", "drop", "penalise"),
    (["data.apply_chat_template_kwargs=5"], "data.apply_chat_template_kwargs", "5", "a section"),
    (["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=300", "critic.use_dynamic_bsz=false",
      "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=false"], "ppo_max_token_len_per_gpu", "300", "512"),
    (["actor_rollout_ref.rollout.max_num_batched_tokens=100"], "max_num_batched_tokens", "100", "max_num_seqs"),
    (["actor_rollout_ref.rollout.tensor_model_parallel_size=3"], "tensor_model_parallel_size", "3", "divisor"),
    (["trainer.n_gpus_per_node=17"], "es_manager.train.env_groups", "16", "fewer ranks"),
    (["actor_rollout_ref.rollout.rollout_filter_ratio=1.5"], "rollout_filter", "1.5", "(0, 1]"),
    (["actor_rollout_ref.rollout.temperature=0"], "actor_rollout_ref.rollout.temperature", "0", "1.0"),
    (["trainer.critic_warmup=5"], "trainer.critic_warmup", "5", "gae"),
    (["trainer.resume_mode=resume_path"], "trainer.resume_mode", "resume_path", "global_step_N"),
    (["trainer.resume_mode=resume_path", "trainer.resume_from_path=nowhere"], "trainer.resume_from_path", "nowhere", "no such folder"),
    (["trainer.resume_from_path=here"], "trainer.resume_from_path", "here", "resume_mode=resume_path"),
    (["actor_rollout_ref.actor.policy_loss.loss_mode=dro"], "dro_beta", "null", "above 0"),
    (["actor_rollout_ref.actor.use_kl_loss=true", "algorithm.use_kl_in_reward=true"], "use_kl_in_reward", "true", "one"),
    (["algorithm.rollout_correction.rollout_rs=token", "algorithm.rollout_correction.rollout_rs_threshold=null"],
     "algorithm.rollout_correction", "token", "rollout_rs_threshold"),
    (["custom_envs.TicTacToe.env_type=tictactoo"], "custom_envs.TicTacToe.env_type", "tictactoo", "did you mean tictactoe"),
    (["custom_envs.TicTacToe.env_config.opening_move=1"], "custom_envs.TicTacToe.env_config.opening_move", "", "did you mean opening_moves"),
    (["custom_envs.TicTacToe.val_env_config.trained_seat=third"], "custom_envs.TicTacToe.val_env_config", "third", "random"),
    (["custom_envs.TicTacToe.env_config.player_info=[{type: scripted}]"], "player_info[0]", "scripted", "name"),
    (["custom_envs.TicTacToe.env_config.player_info=[{type: scripted, name: perfekt}]"], "player_info[0]", "perfekt", "perfect"),
    (["custom_envs.TicTacToe.env_config.player_info=[{model_name: Q, prot: 1}]"], "player_info[0]", "prot", "port"),
    (["custom_envs.TicTacToe.env_config.player_info=[{type: policy, chekpoint: x}]"], "player_info[0]", "chekpoint", "checkpoint"),
    (["custom_envs.TicTacToe.env_config.player_info=random"], "player_info", "random", "a list of entries"),
    (["custom_envs.TicTacToe.env_config.player_info=[]"], "custom_envs.TicTacToe.env_config.player_info", "[]", "self-play"),
    (["custom_envs.TicTacToe.env_config.player_info=null"], "custom_envs.TicTacToe.env_config.player_info", "null", "list who plays"),
    (["custom_envs.TicTacToe.val_env_config.player_info=[]"], "custom_envs.TicTacToe.val_env_config.player_info", "[]", "list who plays"),
    ([*NEST, "custom_envs.Undercover.env_config.player_info=[]"], "custom_envs.Undercover.env_config.player_info", "[]", "3 seats"),
    ([*NEST, "custom_envs.ALL_MINT.env_config.player_info=[{type: policy}]"], "custom_envs.ALL_MINT.env_config.player_info", "not read", "sub-tasks"),
    ([*NEST, "custom_envs.ALL_MINT.env_config.base_env_list=[NashNew,{env_type: connect_four}]"], "base_env_list[1].player_info", "null", "list who plays"),
    ([*NEST, "custom_envs.ALL_MINT.env_config.base_env_list=[NashNew,NT_MINT]", "custom_envs.NT_MINT.env_config.base_env_list=[ALL_MINT]"],
     "custom_envs.ALL_MINT.env_config.base_env_list", "NT_MINT > ALL_MINT", "take ALL_MINT out"),
    ([*NEST, "custom_envs.ALL_MINT.env_config.base_env_list=[{env_type: nash_new, env_config: {sise: 3}}]"],
     "base_env_list[0].env_config.sise", "", "did you mean size"),
    ([*NEST, "custom_envs.ALL_MINT.val_env_config.base_env_list=[NashNow]"], "custom_envs.ALL_MINT.val_env_config.base_env_list", "NashNow", "NashNew"),
    (["trainer.n_gpu=2"], "trainer.n_gpu", "", "did you mean trainer.n"),
    (["+actor_rollout_ref.actor.optim.lrr=1"], "actor_rollout_ref.actor.optim.lrr", "", "did you mean actor_rollout_ref.actor.optim.lr"),
    (["actor_rollout_ref.rollout.n=8"], "actor_rollout_ref.rollout.n", "8", "es_manager.train.group_size"),
    (["data.train_files=x.parquet"], "data.train_files", "x.parquet", "games"),
    (["actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"], "ulysses_sequence_parallel_size", "2", "not implemented"),
    (["algorithm.bi_level_gae=true"], "algorithm.bi_level_gae", "true", "adv_estimator=bi_level_gae"),
    (["actor_rollout_ref.model.external_lib=no_such_module"], "actor_rollout_ref.model.external_lib", "no_such_module", "PYTHONPATH"),
    (["actor_rollout_ref.model.external_lib=5", "critic.model.external_lib=null"], "external_lib", "5", "a list"),
    (["algorithm.rae_decay=1"], "algorithm.rae_decay", "1", "< 1"),
    (["algorithm.gpg_f_norm=0"], "algorithm.gpg_f_norm", "0", "> 0"),
    (["trainer.max_critic_ckpt_to_keep=3"], "trainer.max_critic_ckpt_to_keep", "3", "at most 2"),
    (["trainer.log_val_generations=-1"], "trainer.log_val_generations", "-1", ">= 0"),
    (["trainer.device_tflops=0"], "trainer.device_tflops", "0", "> 0"),
    (["collapse_detection.compute_freq=0"], "collapse_detection.compute_freq", "0", ">= 1"),
    (["collapse_detection.multi_turn_enabled=true", "agent_proxy.enable_think=false"],
     "collapse_detection.multi_turn_enabled", "true", "enable_think"),
    (["trainer.generations_to_log_to_wandb.val=8"], "trainer.generations_to_log_to_wandb.val", "8", "set trainer.log_val_generations"),
    (["actor_rollout_ref.rollout.multi_stage_wake_up=true"], "multi_stage_wake_up", "true", "not implemented"),
    (["~trainer.save_freq"], "trainer.save_freq", "", "missing"),
    (["model_path=${nowhere}"], "nowhere", "", ""),
]


@pytest.mark.parametrize("overrides,key,value,remedy", CASES, ids=lambda v: v[0][:60] if isinstance(v, list) else "")
def test_a_wrong_configuration_is_refused_with_key_value_and_remedy(overrides, key, value, remedy):
    problem = one(*overrides)
    assert key in problem and value in problem and remedy in problem, problem


def test_what_verl_programs_write_is_understood():
    """VeRL's newest names and forms, as its example scripts hold them."""
    config = laptop(
        "trainer.logger=console", "actor_rollout_ref.rollout.load_format=safetensors", "actor_rollout_ref.actor.grad_clip=0.3",
        "critic.optim.clip_grad=0.2", "critic.ppo_max_token_len_per_gpu=4096", "critic.forward_max_token_len_per_gpu=2048",
    )
    validate_config(config, check_machine=False)
    assert config.actor_rollout_ref.actor.optim.clip_grad == 0.3  # the older name serves the newer
    assert config.critic.optim.clip_grad == 0.2 and config.critic.grad_clip == 1.0


def test_every_fault_is_named_at_once():
    problems = refused("trainer.n_gpus_per_node=0", "trainer.save_freq=maybe", "foo.bar=1")
    assert len(problems) == 3


def test_verl_defaults_that_do_nothing_here_are_accepted_with_a_warning():
    plan = validate_config(laptop("actor_rollout_ref.rollout.n=1", "trainer.total_epochs=30"), check_machine=False)
    assert any("actor_rollout_ref.rollout.n = 1" in w for w in plan.warnings)
    assert any("trainer.total_epochs = 30" in w for w in plan.warnings)


def test_schedule_checks():
    two = ["es_manager.train.env_groups=8", "es_manager.train.env_configs.n_groups=null",
            "es_manager.train.env_configs.tags=[TicTacToe,TicTacToePerfect]", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]
    assert "schedule.type = single" in one(*two)
    assert "schedule.k_list = [2]" in one(*two, "schedule.type=cst", "schedule.k_list=[2]")
    assert validate_config(laptop(*two, "schedule.type=mixed"), check_machine=False)
    assert validate_config(laptop(*two, "schedule.type=cst", "schedule.k_list=[1,2]"), check_machine=False)


# -- the machine ------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """A folder that passes for a model: the checks look at names alone."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    return f"model_path={tmp_path / 'm'}"


def test_a_missing_model_folder_is_named_with_the_remedy(tmp_path):
    problem = one(f"model_path={tmp_path}/gone", "trainer.device=cpu", machine=True)
    assert "model_path" in problem and "gone" in problem and "Hugging Face folder" in problem


def test_a_checkpoint_given_as_a_model_is_told_to_merge(tmp_path):
    (tmp_path / "actor").mkdir()
    assert "merge" in one(f"model_path={tmp_path}", "trainer.device=cpu", machine=True)


def test_a_hub_name_is_taken_offline_only_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    overrides = ["model_path=Qwen/Qwen2.5-1.5B-Instruct", "trainer.device=cpu"]
    assert "HF_HUB_OFFLINE" in one(*overrides, machine=True)
    snapshot = tmp_path / "models--Qwen--Qwen2.5-1.5B-Instruct" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert validate_config(laptop(*overrides), check_machine=True)


def test_a_port_in_use_is_named(model):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        problem = one(model, "trainer.device=cpu", f"trainer.master_port={port}", machine=True)
    assert f"trainer.master_port = {port}" in problem and "free port" in problem


def test_a_silent_opponent_is_named_and_a_listening_one_accepted(model):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        overrides = [model, "trainer.device=cpu", f"custom_envs.TicTacToe.env_config.player_info=[{{model_name: M, port: {port}}}]"]
        problem = one(*overrides, machine=True)
        assert str(port) in problem and "serve_opponent.sh" in problem
        server.listen()
        assert validate_config(laptop(*overrides), check_machine=True)


def test_a_provider_without_a_key_is_named_and_the_key_is_not_shown(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    overrides = [model, "trainer.device=cpu", "custom_envs.TicTacToe.env_config.player_info=[{model_name: M, provider: deepseek}]"]
    assert "DEEPSEEK_API_KEY" in one(*overrides, machine=True)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in str(validate_config(laptop(*overrides), check_machine=True))


def test_gpus_are_asked_for_only_where_there_are_enough(model, monkeypatch):
    from ragen.trainer import machine_checks

    monkeypatch.setattr(machine_checks, "visible_gpus", lambda: [])
    assert "+form=laptop" in one(model, "trainer.device=cuda", machine=True)
    assert validate_config(laptop(model, "trainer.device=auto"), check_machine=True).device == "cpu"
    monkeypatch.setattr(machine_checks, "visible_gpus", lambda: [80.0])
    assert "trainer.n_gpus_per_node=1" in one(model, "trainer.device=auto", machine=True)
    plan = validate_config(laptop(model, "trainer.device=auto", "trainer.n_gpus_per_node=1"), check_machine=True)
    assert plan.device == "cuda" and plan.ranks == 1


# -- Hydra ------------------------------------------------------------------------------------


def test_overrides_are_opened_for_the_checks_but_not_for_hydra():
    given = ["a.b=1", "+c=2", "++d=3", "~e", "+form=laptop", "hydra.run.dir=x", "x.y=[1, 2]"]
    assert open_overrides(given) == ["++a.b=1", "++c=2", "++d=3", "~e", "+form=laptop", "hydra.run.dir=x", "++x.y=[1, 2]"]


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConfigError, match="_0_laptop"):
        compose("_15_FI1_nest")


def test_hydra_itself_writes_nothing(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import hydra, logging\n"
        f"@hydra.main(config_path={str(CONFIG_DIR)!r}, config_name='_0_laptop', version_base='1.3')\n"
        "def main(cfg):\n    logging.getLogger(__name__).warning('told')\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "told" in run.stdout + run.stderr
    assert os.listdir(tmp_path) == ["main.py"]


def test_checking_a_configuration_imports_no_torch():
    code = (
        "import sys; from ragen.trainer.config import compose, validate_config\n"
        f"validate_config(compose('_0_laptop', [{PLAN!r}]))\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


# -- the shipped files ------------------------------------------------------------------------


def test_filter_names_are_the_filters_own():
    assert set(rollout_filter.STRATEGIES) == set(verl_keys.FILTER_STRATEGIES)
    assert set(rollout_filter.METRICS) == set(verl_keys.FILTER_METRICS)


#: reference-values: train tags, groups, mini-batch, max_turn, max_model_len, validation tags, groups, steps
REFERENCE = {
    "_8_tictactoe": ("TicTacToe", "8", 32, 5, 6000, "TicTacToe", "8", 100),
    "_10_math": ("MathTrain", "8", 16, 1, 6000, "MathTest", "16", 200),
    "_12_nash": ("NashNew", "8", 16, 1, 6000, "NashNew", "16", 300),
    "_16_nash_new": ("NashNew", "8", 16, 1, 6000, "NashNew", "16", 300),
    "_13_nash_tictactoe": ("TicTacToe NashNew", "8 8", 32, 5, 8000, "TicTacToe NashNew", "4 4", 200),
    "_14_FI1_mixed": ("NashNew MathTrain", "4 4", 16, 1, 8000, "NashNew MathTest", "8 8", 300),
    "_15_FI1_nested": ("MathNashTrain", "8", 16, 2, 8000, "MathTest NashNew", "8 8", 200),
    "_17_undercover": ("Undercover", "8", 32, 3, 8000, "Undercover", "8", 100),
    "_19_FI2_mix": ("MathTrain NashNew TicTacToe", "4 4 4", 32, 5, 12000, "MathTest NashNew TicTacToe", "4 4 4", 200),
    "_20_FI3_mix": ("MathTrain NashNew TicTacToe Undercover", "4 4 4 4", 32, 5, 15000, "MathTest NashNew TicTacToe Undercover", "4 4 4 4", 200),
    "_21_FI2_nested": ("MNT_MINT", "4", 16, 7, 10000, "MathTest NashNew TicTacToe", "4 4 4", 300),
    "_23_FI3_nested": ("ALL_MINT", "4", 16, 10, 15000, "MathTest NashNew TicTacToe Undercover", "2 2 2 2", 300),
    "_24_I2_nested": ("NT_MINT", "8", 32, 6, 10000, "TicTacToe NashNew", "4 4", 200),
}
CST = {
    "_25_FI1_cst": ("MathTrain NashNew", [2, 2]),
    "_26_FI2_cst": ("MathTrain NashNew TicTacToe", [4, 4, 4]),
    "_27_FI3_cst": ("MathTrain NashNew TicTacToe Undercover", [1, 1, 1, 1]),
    "_28_I2_cst": ("NashNew TicTacToe", [4, 4]),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_experiments_hold_the_reference_values(name):
    config = plain(composed(name))
    tags, groups, mini, turns, length, val_tags, val_groups, steps = REFERENCE[name]
    train, val = config["es_manager"]["train"], config["es_manager"]["val"]
    assert train["env_configs"] == {"tags": tags.split(), "n_groups": [int(n) for n in groups.split()]}
    assert val["env_configs"] == {"tags": val_tags.split(), "n_groups": [int(n) for n in val_groups.split()]}
    assert train["group_size"] == 16
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    assert (actor["ppo_mini_batch_size"], config["agent_proxy"]["max_turn"], rollout["max_model_len"]) == (mini, turns, length)
    assert config["trainer"]["total_training_steps"] == steps and config["trainer"]["experiment_name"] == name
    assert (actor["optim"]["lr"], actor["optim"]["betas"], actor["grad_clip"], actor["ppo_epochs"]) == (1e-6, [0.9, 0.999], 1.0, 1)
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["entropy_coeff"], actor["use_kl_loss"]) == (0.2, 0.28, 0.001, False)
    assert (rollout["rollout_filter_ratio"], rollout["response_length"], rollout["temperature"]) == (0.25, 600, 1.0)
    assert rollout["val_kwargs"]["temperature"] == 0.5 and config["seed"] == {"train": 10000, "val": 123}
    assert config["algorithm"]["adv_estimator"] == "grpo" and config["es_manager"]["format_penalty"] == -0.1


@pytest.mark.parametrize("name", CST)
def test_coordinated_subtask_configs(name):
    config, (tags, k_list) = plain(composed(name)), CST[name]
    assert config["schedule"] == {"type": "cst", "k_list": k_list, "tags": tags.split()}
    assert (config["es_manager"]["train"]["env_groups"], config["es_manager"]["train"]["group_size"]) == (8, 16)


def test_nests_play_their_tasks_in_the_papers_order():
    envs = plain(compose("base"))["custom_envs"]
    order = {tag: envs[tag]["env_config"]["base_env_list"] for tag in ("MathNashTrain", "NT_MINT", "MNT_MINT", "ALL_MINT")}
    assert order == {
        "MathNashTrain": ["MathTrain", "NashNew"],
        "NT_MINT": ["NashNew", "TicTacToe"],
        "MNT_MINT": ["MathTrain", "NashNew", "TicTacToe"],
        "ALL_MINT": ["MathTrain", "NashNew", "TicTacToe", "Undercover"],
    }


def test_the_folder_of_configs_can_be_moved_as_one(tmp_path):
    """Nothing in it names a place on a machine."""
    shutil.copytree(CONFIG_DIR, tmp_path / "config")
    files = list(tmp_path.rglob("*.yaml"))
    assert len(files) > 15
    for path in files:
        text = path.read_text()
        assert "/home/" not in text and "/work/" not in text and "/root/" not in text, path
