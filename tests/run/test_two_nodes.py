"""Two Ray nodes on this machine, by Ray's own cluster utilities: they train as one node does, and one may be lost."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from test_end_to_end import ROOT, metrics, wait_for, without_times, worker_pids

from ragen.trainer.config import compose, validate_config

NOTICED_WITHIN_S = 10
STEPS = 4
SMALL = [
    "es_manager.train.env_groups=4", "es_manager.train.env_configs.n_groups=[4]", "es_manager.train.env_configs.tags=[TicTacToe]",
    "es_manager.train.group_size=4", "es_manager.val.env_groups=8", "es_manager.val.env_configs.n_groups=[4,4]",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.rollout.name=hf",
    "trainer.device=cpu", "trainer.logger=[console,file]", f"trainer.total_training_steps={STEPS}", "trainer.save_freq=2",
    "trainer.test_freq=-1", "trainer.val_before_train=false",
]  # fmt: skip
CORES = max(1, (os.cpu_count() or 1) // 2)  # of a simulated node: a rank then has as many threads as one of two has here


def start(folder: Path, *extra: str) -> tuple[subprocess.Popen, Path]:
    """A run, and the file that it writes to."""
    said = folder.parent / f"{folder.name}.log"
    command = [sys.executable, "train.py", "--config-name", "_0_laptop", *SMALL, f"trainer.default_local_dir={folder}", *extra]
    with said.open("w") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True), said


def ends_with(process: subprocess.Popen, said: Path, code: int) -> str:
    try:
        assert process.wait(timeout=420) == code, said.read_text()[-4000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return said.read_text()


def rows_of(folder: Path) -> list[dict]:
    return [without_times(row) for row in metrics(folder)]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


class Nodes:
    """A cluster of two nodes; :meth:`options` are the overrides for a run on both."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES, "include_dashboard": False})
        self.second = self.join()
        self.stopped: list[int] = []

    def join(self):
        self.second = self.cluster.add_node(num_cpus=CORES)
        return self.second

    def options(self) -> list[str]:
        return [f"ray_kwargs.ray_init.address='{self.cluster.address}'", "trainer.nnodes=2", "trainer.n_gpus_per_node=1"]

    def raylets(self) -> set[int]:
        return {node.all_processes["raylet"][0].process.pid for node in (self.cluster.head_node, self.second)}

    def lose(self) -> None:
        """Every process of the second node is killed at once."""
        self.cluster.remove_node(self.second, allow_graceful=False)

    def freeze(self) -> None:
        """The second node stops answering and closes nothing, as a machine does that loses its power or its network."""
        raylet = self.second.all_processes["raylet"][0].process.pid
        every = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        for pid in (raylet, *(pid for pid in every if runs_below(pid, raylet))):
            os.kill(pid, signal.SIGSTOP)
            self.stopped.append(pid)

    def shutdown(self) -> None:
        for pid in self.stopped:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        self.cluster.shutdown()


def runs_below(pid: int, ancestor: int) -> bool:
    try:
        return parent(pid) == ancestor
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def nodes(ray_apart):
    nodes = Nodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture
def on_nodes(nodes, tmp_path):
    """Starts runs on the nodes, and ends what a failed test left."""
    started = []

    def begin(*extra: str) -> tuple[Path, subprocess.Popen, Path]:
        process, said = start(tmp_path / "run", *nodes.options(), *extra)
        started.append(process)
        return tmp_path / "run", process, said

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def one_node(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("one") / "run"
    process, said = start(folder, "trainer.n_gpus_per_node=2")
    ends_with(process, said, 0)
    return rows_of(folder)


def seconds_until(text: str, said: Path, process: subprocess.Popen) -> float:
    """Seconds from now until the run says ``text``."""
    began = time.monotonic()
    while text not in said.read_text():
        assert process.poll() is None or text in said.read_text(), said.read_text()[-4000:]
        assert time.monotonic() - began < 120, f"it never said {text!r}: {said.read_text()[-2000:]}"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.slow
def test_two_nodes_train_as_one_and_one_of_them_may_be_lost(nodes, on_nodes, one_node):
    folder, process, said = on_nodes("trainer.max_restarts=1")
    wait_for(lambda: len(metrics(folder)) >= 1, process)
    ranks = worker_pids(process.pid)
    wait_for((folder / "latest_checkpointed_iteration.txt").exists, process)  # of step 2
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)  # a fast machine would end the run before its node is gone
    assert len(ranks) == 2 and {parent(pid) for pid in ranks} == nodes.raylets()
    assert rows_of(folder) == one_node[:2]

    nodes.lose()  # in the middle of step 3
    noticed = seconds_until("died during", said, process)
    print(f"a killed node: noticed after {noticed:.1f} s")
    assert noticed < NOTICED_WITHIN_S
    seconds_until("waiting for 1 more node", said, process)
    nodes.join()
    output = ends_with(process, said, 0)
    assert "its node" in output and "starting new workers from the last checkpoint" in output
    assert "resuming from" in output and "global_step_2" in output
    assert rows_of(folder) == one_node


@pytest.mark.slow
def test_a_node_that_falls_silent_is_noticed_and_what_is_left_can_go_on(nodes, on_nodes):
    folder, process, said = on_nodes("trainer.max_restarts=1", "trainer.restart_wait_s=2")
    wait_for(lambda: len(metrics(folder)) == 1, process)
    nodes.freeze()
    noticed = seconds_until("died during", said, process)
    print(f"a silent node: noticed after {noticed:.1f} s")
    assert noticed < NOTICED_WITHIN_S
    output = ends_with(process, said, 1)
    assert "has not answered for" in output and "Traceback" not in output
    error = output.splitlines()[-1]
    assert error.startswith("error: Ray cannot reserve") and "restart_wait_s" in error
    command = shlex.split(error.partition("with what is left: ")[2])
    assert command[:3] == ["python", "train.py", "--config-name"]
    assert "trainer.nnodes=1" in command and "trainer.nnodes=2" not in command
    plan = validate_config(compose(command[3], command[4:]))  # that it would start (test_lost_node.py: and find room)
    assert plan.ranks == 1
