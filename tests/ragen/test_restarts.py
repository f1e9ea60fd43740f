"""What a run does about dead workers and missing nodes; with real workers in tests/run/test_two_nodes.py."""

import contextlib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ragen.trainer import run as run_module
from ragen.trainer.run import run
from verl.single_controller.ray import ResourcesUnavailable, WorkerDied

DEATH = WorkerDied(rank=1, node="10.0.0.2", pid=77, method="play", cause="its node is lost")


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """Runs a trainer whose fits end as told: an exception, a step number to save, or ``None``. Returns the exit
    status, the arguments of each fit as ``(wait_s, resume_mode)``, and stderr."""

    def begin(*ends, **settings) -> tuple[int, list[tuple[float, str]], str]:
        fits, left = [], list(ends)

        class Trainer:
            workers = None

            def __init__(self, config, plan):
                self.config = config

            def fit(self, wait_s):
                fits.append((wait_s, self.config.trainer.resume_mode))
                end = left.pop(0)
                if isinstance(end, int):
                    Path(self.config.trainer.default_local_dir, "latest_checkpointed_iteration.txt").write_text(str(end))
                    end = DEATH
                if end is not None:
                    raise end

        monkeypatch.setattr(run_module, "AgentTrainer", Trainer)
        monkeypatch.setattr(run_module, "ray_session", lambda config: contextlib.nullcontext())
        monkeypatch.setattr(run_module, "check_chat", lambda config: None)  # these configurations name no model
        monkeypatch.setattr(run_module.signal, "signal", lambda *args: None)  # pytest keeps its own handlers
        monkeypatch.setattr("sys.argv", ["train.py", "--config-name", "_12_nash", "trainer.nnodes=3", "model_path=a b"])
        usual = {"max_restarts": 0, "restart_wait_s": 300, "resume_mode": "disable", "nnodes": 3}
        engine = {"hybrid_engine": settings.pop("hybrid_engine", True)}
        trainer = usual | settings | {"default_local_dir": str(tmp_path)}
        config = OmegaConf.create({"trainer": trainer, "actor_rollout_ref": engine})
        status = run(config, plan=None)
        return status, fits, capsys.readouterr().err

    return begin


def test_without_restarts_a_death_ends_the_run_in_one_sentence(play):
    status, fits, said = play(DEATH)
    assert status == 1 and fits == [(60, "disable")]
    assert said == "error: worker rank 1 (pid 77 on node 10.0.0.2) died during 'play': its node is lost\n"


def test_restarts_are_counted_and_wait_for_a_node(play):
    status, fits, said = play(DEATH, DEATH, None, max_restarts=2)
    assert status == 0 and not said
    assert fits == [(60, "disable"), (300, "disable"), (300, "disable")]  # nothing saved yet: each starts as the first did
    assert play(DEATH, DEATH, DEATH, max_restarts=2)[0] == 1


@pytest.mark.parametrize("stale", [False, True])
def test_only_a_checkpoint_of_the_run_itself_is_gone_on_from(play, tmp_path, stale):
    if stale:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    _, fits, _ = play(DEATH, 20, None, max_restarts=2)
    assert [mode for _, mode in fits] == ["disable", "disable", "auto"]


def test_missing_nodes_are_an_error_with_a_way_on(play):
    missing = ResourcesUnavailable("no room for 2 of 3.", found=2)
    at_the_start = play(missing, max_restarts=1)  # nothing was lost
    assert at_the_start == (1, [(60, "disable")], "error: no room for 2 of 3.\n")
    status, _, said = play(DEATH, missing, max_restarts=1)
    assert status == 1 and said.count("\n") == 1 and "restart_wait_s" in said
    assert said.endswith("with what is left: python train.py --config-name _12_nash 'model_path=a b' trainer.nnodes=2\n")
    assert "python" not in play(DEATH, ResourcesUnavailable("no room.", found=0), max_restarts=1)[2]
    assert "python" not in play(DEATH, missing, max_restarts=1, hybrid_engine=False)[2]  # whose nodes they are is not known
