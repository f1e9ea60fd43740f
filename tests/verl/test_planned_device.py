"""The device that a rank was planned for is the one that it computes on, or it stops."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

ray = pytest.importorskip("ray")  # collected by `python -m benchmarks gpu` on machines without it

from verl.single_controller.base import Worker  # noqa: E402
from verl.single_controller.base.decorator import Dispatch, register  # noqa: E402
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup  # noqa: E402
from verl.utils.device import check_planned_device  # noqa: E402

ROOT = Path(__file__).parents[2]


class Rank(Worker):
    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def variables(self, *names):
        return tuple(os.environ.get(name) for name in names)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def join(self):
        from verl.utils.device import init_process_group

        try:
            init_process_group(self.rank, self.world_size)
        except RuntimeError as error:
            return str(error)
        return torch.distributed.get_backend()


@pytest.fixture(scope="module")
def cluster():
    """Two GPUs that only Ray believes in."""
    folder = tempfile.mkdtemp(prefix="ray_")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as ray_session has it
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # what a machine's own environment may say
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        yield
        ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    shutil.rmtree(folder, ignore_errors=True)


def group(use_gpu: bool, **options) -> RayWorkerGroup:
    pool = RayResourcePool([2], use_gpu=use_gpu, cpus_per_process=0.5, max_colocate_count=1)
    return RayWorkerGroup(pool, RayClassWithInitArgs(Rank), **options)


def test_a_rank_without_a_gpu_sees_none(cluster):
    for options in ({}, {"device_name": "cpu"}):
        ranks = group(False, **options)
        assert ranks.variables("CUDA_VISIBLE_DEVICES", "WG_DEVICE") == [("", "cpu")] * 2
        assert ranks.join() == ["gloo"] * 2
        ranks.shutdown()
    ranks = group(True, device_name="cpu")  # a pool with GPUs, of which these take none
    assert ranks.variables("CUDA_VISIBLE_DEVICES", "WG_DEVICE") == [("", "cpu")] * 2
    ranks.shutdown()


def test_what_the_caller_sets_stays(cluster):
    ranks = group(False, worker_env={"CUDA_VISIBLE_DEVICES": "1"})
    assert ranks.variables("CUDA_VISIBLE_DEVICES") == [("1",)] * 2
    ranks.shutdown()
    with pytest.raises(ValueError, match="WG_DEVICE"):
        group(False, worker_env={"WG_DEVICE": "cuda"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_ranks_planned_for_gpus_stop_where_torch_sees_none(cluster):
    ranks = group(True, device_name="cuda")
    assert sorted(ranks.variables("CUDA_VISIBLE_DEVICES")) == [("0",), ("1",)]  # one each, from Ray
    for error in ranks.join():
        assert "planned for a GPU" in error and torch.__version__ in error and "trainer.device=cpu" in error
    ranks.shutdown()


_ALONE = "from verl.utils.device import init_process_group; init_process_group(0, 1); import torch; print(torch.distributed.get_backend())"


@pytest.mark.parametrize("planned", [None, "cpu"])
def test_a_process_that_nobody_planned_takes_what_there_is(planned):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "CUDA_VISIBLE_DEVICES": ""}
    env |= {"WG_DEVICE": planned} if planned else {}
    done = subprocess.run([sys.executable, "-c", _ALONE], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "gloo"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_rank_planned_for_the_cpu_stops_where_it_sees_a_gpu(monkeypatch):
    monkeypatch.setenv("WG_DEVICE", "cpu")
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES must be empty"):
        check_planned_device()


# -- flash_attn ---------------------------------------------------------------------------------

_CHOOSE = """
import transformers.utils.import_utils as found
found.is_torch_cuda_available = lambda: True
from verl.utils.attention import resolve_attention
print(*resolve_attention(True, "cuda"))
"""


@pytest.mark.parametrize("package,version,chosen", [
    ("flash-attn", "2.8.3", "flash_attention_2"), ("flash-attn", "2.0.1", "torch_varlen"), ("flash-attn-4", "4.0.0", "torch_varlen"),
])  # fmt: skip
def test_flash_attention_is_known_by_its_package_not_by_its_module(tmp_path, package, version, chosen):
    """The second and the fourth version are both imported as `flash_attn`; transformers' `flash_attention_2` is the second."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    about = tmp_path / f"{package.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (about / "top_level.txt").write_text("flash_attn\n")
    (about / "RECORD").write_text("flash_attn/__init__.py,,\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", _CHOOSE], env=env, capture_output=True, text=True)
    assert done.stdout.split()[:1] == [chosen], done.stderr[-2000:]
