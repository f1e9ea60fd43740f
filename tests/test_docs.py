"""README and docs: links resolve, names exist, examples run, commands are understood.

Commands are not run to their end. ``train.py`` and the launchers plan (``trainer.plan_only``), other programs parse the
very arguments that the document gives, ``make`` says what it would do. A command of no known kind fails.
"""

import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "setup_gift.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "external/webshop_minimal/README.md",
]
MADE = ROOT / "docs" / "configuration.md"
SECTIONS = (
    "actor_rollout_ref", "critic", "algorithm", "trainer", "es_manager", "agent_proxy", "data", "schedule", "custom_envs", "ctx_manager",
    "collapse_detection",
    "seed", "ray_kwargs",
)  # fmt: skip


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def fences(path, language):
    """(line, text) of every fenced block of a language."""
    text = path.read_text(encoding="utf-8")
    blocks = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, m.start()) + 2, m[1]) for m in blocks]


def prose(path):
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# -- links and names --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists() and there.is_relative_to(ROOT), f"{name_of(path)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(there), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name_of(path)} links to {target}: there is no such heading"


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if d != MADE], ids=name_of)
def test_files_and_keys_that_are_named_exist(path):
    from ragen.trainer.config_keys import key_table
    from verl.utils.config_check import Field

    table = key_table()
    known = {**table.absent, **table.implemented}
    for span in re.findall(r"`([^`\n]+)`", prose(path)):
        for word in re.findall(r"^[\w./-]+/[\w.-]+\.(?:py|sh|yaml|md)$", span):
            if not word.startswith(("RUN/", "outputs/", "DIR/")):
                assert (ROOT / word).exists() or (path.parent / word).exists(), f"{name_of(path)} names {word}"
        key, _, value = span.partition("=")
        if not key.startswith(tuple(f"{section}." for section in SECTIONS)) or not re.fullmatch(r"[\w.]+", key):
            continue
        assert key in known or any(k.startswith(key + ".") for k in known), f"{name_of(path)} names the key {key}"
        if value and not value.startswith("...") and isinstance(known.get(key), Field):
            assert known[key].accepts(yaml.safe_load(value)), f"{name_of(path)}: {span}"


def test_every_document_is_linked():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f"docs/{path.name}" in readme


def test_the_configuration_reference_is_up_to_date():
    from scripts.make_config_reference import reference

    assert MADE.read_text(encoding="utf-8") == reference(), "run python scripts/make_config_reference.py"


# -- examples ---------------------------------------------------------------------------------------


def load(block, folder):
    """A block as the module that its first line names; the name of it."""
    name = re.match(r"# ([\w/]+?)(?:/__init__)?\.py\n", block)[1].replace("/", ".")
    file = folder / f"{name}.py"
    file.write_text(block, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return name


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    """The games of add_a_game.md, registered as it says; its report."""
    from ragen.env import REGISTERED_ENVS

    guess, sticks, check = (text for _, text in fences(ROOT / "docs" / "add_a_game.md", "python"))
    before, folder = dict(REGISTERED_ENVS), tmp_path_factory.mktemp("games")
    names = [load(block, folder) for block in (guess, sticks)]
    said = []
    exec(check, {"print": said.append})
    yield {"guess": guess, "sticks": sticks, "said": said}
    REGISTERED_ENVS.clear()
    REGISTERED_ENVS.update(before)
    for name in names:
        del sys.modules[name]


def test_the_new_games_are_as_short_as_they_say_and_keep_the_contract(games):
    code = {name: [line for line in games[name].splitlines()[1:] if line.strip()] for name in ("guess", "sticks")}
    assert len(code["guess"]) <= 30 and len(games["sticks"].splitlines()) < 60
    assert all(report.games == 10 and report.turns > 10 and report.refused > 10 for report in games["said"])


def test_the_new_task_passes_gymnasium_and_is_won_by_halving(games):
    from gymnasium.utils.env_checker import check_env

    from ragen.env import make_env

    check_env(make_env("guess"), skip_render_check=True)
    env = make_env("guess", {"span": 31})  # five tries of a binary search find one of 31
    for seed in range(20):
        text, _ = env.reset(seed=seed)
        low, high = map(int, re.findall(r"\d+", text))
        done, info = False, {}
        while not done:
            middle = (low + high) // 2
            text, reward, done, _, info = env.step(str(middle))
            low, high = (middle + 1, high) if "greater" in text else (low, middle - 1)
        assert info["success"] and reward == 1.0


def test_the_new_game_for_two_is_the_game_that_its_rules_describe(games):
    from ragen.env import make_env

    for seed in range(20):
        env = make_env("sticks")
        env.reset(seed=seed)
        start = env.sticks
        while env.acting():  # the one who leaves 1 modulo 4 wins: perfect play from both sides
            (seat,) = env.acting()
            take = (env.sticks - 1) % 4
            env.act(seat, str(take or 1))
        assert env.outcome()[0].success == (start % 4 != 1) and env.outcome()[1].success == (start % 4 == 1)


@pytest.fixture(scope="module")
def algorithms(tmp_path_factory):
    """The module of add_an_algorithm.md."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    ((_, block),) = fences(ROOT / "docs" / "add_an_algorithm.md", "python")
    name = load(block, tmp_path_factory.mktemp("algorithms"))
    yield sys.modules[name]
    del sys.modules[name]
    del ADV_ESTIMATOR_REGISTRY["rank"], POLICY_LOSS_REGISTRY["spo"]


def test_the_new_estimator_ranks_within_groups(algorithms):
    import torch

    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    mask = torch.tensor([[1.0, 0.0, 1.0]] * 7)
    rewards = torch.zeros(7, 3)
    rewards[:, 2] = torch.tensor([0.3, 0.1, 0.1, 0.9, 5.0, 5.0, -2.0])
    index = np.array(["a", "a", "a", "a", "b", "b", "c"], dtype=object)
    found, _ = get_adv_estimator_fn("rank")(token_level_rewards=rewards, response_mask=mask, index=index, gamma=1.0, config=None)
    expected = [1 / 3, -2 / 3, -2 / 3, 1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(found.numpy(), np.array(expected)[:, None] * mask.numpy(), atol=1e-6)


def test_the_new_loss_is_its_formula_and_does_not_depend_on_the_cut(algorithms):
    import torch

    from verl.trainer.ppo.core_algos import batch_counts, get_policy_loss_fn, with_batch_info

    rng = np.random.default_rng(0)
    old, new, advantages = (torch.tensor(rng.normal(scale=0.3, size=(5, 8)), dtype=torch.float64) for _ in range(3))
    mask = torch.tensor(rng.random((5, 8)) < 0.6)
    new[~mask] = float("nan")  # garbage outside the mask stays out
    loss_of = get_policy_loss_fn("spo")
    config = {"clip_ratio": 0.3}
    whole, _ = loss_of(old, new, advantages, mask, "token-mean", config)
    r, a, m = np.exp(np.where(mask, new - old, 0)), advantages.numpy(), mask.numpy()
    assert whole.item() == pytest.approx((np.abs(a) * (r - 1) ** 2 / 0.6 - a * r)[m].sum() / m.sum())
    told = with_batch_info(config, dp_size=1, **batch_counts(mask))
    parts = [loss_of(old[rows], new[rows], advantages[rows], mask[rows], "token-mean", told)[0] for rows in ([0, 3], [1, 2, 4])]
    assert sum(parts).item() == pytest.approx(whole.item())


def yaml_blocks():
    return [pytest.param(text, id=f"{name_of(path)}:{line}") for path in DOCUMENTS for line, text in fences(path, "yaml")]


@pytest.mark.parametrize("text", yaml_blocks())
def test_configuration_examples_are_valid(text, games, place):
    from omegaconf import OmegaConf

    from ragen.trainer.config import compose, validate_config

    block = yaml.safe_load(text)
    tags = list(block["custom_envs"])
    train = {"env_groups": 8 * len(tags), "env_configs": {"tags": tags, "n_groups": None}}
    config = compose("_0_laptop")
    OmegaConf.set_struct(config, False)
    config = OmegaConf.merge(
        config, block, {"es_manager": {"train": train}, "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 8}}}
    )
    assert {tag.tag for tag in validate_config(config, check_machine=False).steps[0].tags} == set(tags)


# -- commands ---------------------------------------------------------------------------------------


def commands():
    """(where, environment, words) of every command in a bash block."""
    for path in DOCUMENTS:
        for start, text in fences(path, "bash"):
            for number, line in enumerate(text.replace("\\\n", "  ").splitlines(), start):
                words = shlex.split(line, comments=True)
                while words:
                    end = words.index("&&") if "&&" in words else len(words)
                    command, words = words[:end], words[end + 1 :]
                    assigned = len(command) > 1 and next(i for i, w in enumerate(command) if not re.match(r"[A-Z_]+=", w))
                    yield f"{name_of(path)}:{number}", dict(w.split("=", 1) for w in command[:assigned]), command[assigned:]


class Understood(BaseException):
    """The arguments were parsed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder as the documents assume it: a finished run in it, and a stand-in for python."""
    folder = tmp_path_factory.mktemp("place")
    run = folder / "outputs" / "_0_laptop"
    (run / "global_step_40" / "actor").mkdir(parents=True)
    (run / "latest_checkpointed_iteration.txt").write_text("40")
    (run / "merged").symlink_to(ROOT / "assets" / "starter")
    (folder / "assets").symlink_to(ROOT / "assets")
    stand_in = folder / "python"
    stand_in.write_text('#!/usr/bin/env bash\nprintf "%q " "$@" >>"$CALLS"\necho >>"$CALLS"\n')
    stand_in.chmod(0o755)
    back = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(back)


def check_python(words, monkeypatch, capsys):
    """``train.py`` plans; any other program parses the arguments."""
    for name in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # programs set them; put back afterwards
    monkeypatch.setattr(sys, "path", list(sys.path))
    if words[0] == "train.py":
        monkeypatch.setattr(sys, "argv", [*words, "trainer.plan_only=true", "trainer.device_memory_gb=80"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        said = capsys.readouterr()
        assert ended.value.code == 0 and "GiB a rank" in said.out, said.err
        return
    real = ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise Understood

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except Understood:
        return
    except SystemExit as ended:
        pytest.fail(f"{words}: {capsys.readouterr().err} ({ended})")
    pytest.fail(f"{words}: it parsed nothing")


def check_script(words, environment, place, monkeypatch, capsys):
    """A script runs with a stand-in for python; what it would have called is checked in its turn."""
    name = words[0].removeprefix("scripts/")
    assert os.access(ROOT / words[0], os.X_OK)
    calls = place / "calls"
    calls.write_text("")
    clean = {k: v for k, v in os.environ.items() if k not in ("MODEL_PATH", "GPUS", "STEPS", "OUT", "PORT", "VLLM")}
    settings = {"PYTHON": str(place / "python"), "CALLS": str(calls), "VLLM": "false", **environment}
    if name == "serve_opponent.sh":  # the stand-in says that an opponent answers already
        settings["OUT"] = str(place / "opponent")
    done = subprocess.run(
        [ROOT / words[0], *words[1:]], cwd=place, env={**clean, **settings}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    called = [shlex.split(line) for line in calls.read_text().splitlines()]
    for call in called:
        if call[0] != "-":
            check_python(call, monkeypatch, capsys)
    assert called or "--stop" in words


def check_pip(words):
    pinned = (ROOT / "requirements-cpu.txt").read_text() + (ROOT / "requirements.txt").read_text()
    assert words[1] == "install"
    options = {"--no-deps", "--no-build-isolation"}
    rest = [w for w in words[2:] if w not in options]
    while rest:
        word = rest.pop(0)
        if word == "-r":
            assert (ROOT / rest.pop(0)).is_file()
        elif word == "--index-url":
            assert rest.pop(0).startswith("https://")
        elif "/" in word:
            assert (ROOT / word.removeprefix("-e ") / "pyproject.toml").is_file()
        else:
            assert word in pinned, f"{word} is not what the requirements say"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(("environment", "words"), [pytest.param(e, w, id=f"{where} {w[0]}") for where, e, w in commands()])
def test_commands_are_understood(environment, words, place, games, algorithms, monkeypatch, capsys):
    program = words[0]
    if program == "bash":
        words, program = words[1:], words[1]
    if program in ("python", "python3"):
        if words[1:3] != ["-m", "venv"]:
            check_python(words[1:], monkeypatch, capsys)
    elif program.startswith("scripts/"):
        check_script(words, environment, place, monkeypatch, capsys)
    elif program == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program == "pip":
        check_pip(words)
    elif program == "ray":
        scripts = pytest.importorskip("ray.scripts.scripts")
        scripts.cli.commands[words[1]].make_context(words[1], words[2:])
    elif program == "export":
        assert re.fullmatch(r"[A-Z_]+=\S+", words[1])
    elif program == ".":
        assert words[1:] == [".venv/bin/activate"]
    else:
        pytest.fail(f"{shlex.join(words)}: a command of no known kind; teach this test to check it")


def test_unknown_commands_and_wrong_arguments_would_be_noticed(place, games, algorithms, monkeypatch, capsys):
    for words in (
        ["-m", "ragen.play", "--model_path", "x", "--game", "tictactoe"],
        ["reason_test/tictactoe.py", "--output", "x"],
    ):
        with monkeypatch.context() as inner, pytest.raises(pytest.fail.Exception):
            check_python(words, inner, capsys)
    with monkeypatch.context() as inner, pytest.raises(AssertionError):
        check_python(["train.py", "trainer.save_frequency=3"], inner, capsys)


def test_no_command_holds_what_a_shell_would_expand():
    for where, _, words in commands():
        raw = [w for w in words if re.search(r"[*?]", w)]
        assert not raw, f"{where}: {json.dumps(raw)} would be expanded by a shell"
