"""Starts Ray and the workers of a run, and ends them."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass

import ray

from ragen.workers.agent_worker import AgentWorker
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.workers.fsdp_workers import CriticWorker

log = logging.getLogger(__name__)

#: glibc gives large blocks back to the system after every step and faults them in again at the next:
#: keep them, and ask for huge pages. (Seen while pretraining the starter: half of the CPU time was the kernel's.
#: What it saves an update was not measured by itself.)
_CPU_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
#: what libraries say of themselves on every start; errors still come through
_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass
class Workers:
    """The worker groups of a run. ``critic`` is ``None`` for estimators without one."""

    actor: RayWorkerGroup
    critic: RayWorkerGroup | None
    pool: RayResourcePool

    def kill(self) -> None:
        for group in (self.actor, self.critic):
            if group is not None:
                group.kill()
        self.pool.release()


@contextlib.contextmanager
def ray_session(config):
    """Ray for the length of a ``with``: started here, or joined where ``RAY_ADDRESS`` or an existing
    cluster says so; whatever happens within, nothing of it is left running."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would let anything else starve the ranks
    section = config.ray_kwargs.ray_init
    joined = bool(os.environ.get("RAY_ADDRESS")) or section.get("address")
    options = dict(log_to_driver=True, logging_level=logging.ERROR, namespace=f"gift-{os.getpid()}")
    if joined:
        options["address"] = section.get("address") or os.environ["RAY_ADDRESS"]
    else:
        # counted in ranks, not cores: a laptop with two cores runs two ranks and their helpers
        cpus = section.get("num_cpus") or max(os.cpu_count() or 1, config.trainer.n_gpus_per_node + 1)
        port = section.get("dashboard_port")
        # "local": a cluster of our own, even if some other run's is up on this machine
        options |= dict(address="local", num_cpus=cpus, include_dashboard=port is not None, dashboard_port=port)
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def start_workers(config, device: str, worker_class: type[AgentWorker] = AgentWorker) -> Workers:
    """One process a rank: policy, engine and episodes in it, and the critic beside it where the
    estimator needs one. Models and engines are built when this returns."""
    trainer = config.trainer
    on_gpu = device == "cuda"
    cores = os.cpu_count() or 1
    threads = max(1, cores // trainer.n_gpus_per_node)
    pool = RayResourcePool(
        [trainer.n_gpus_per_node] * trainer.nnodes, use_gpu=on_gpu, name_prefix="gift",
        max_colocate_count=2, cpus_per_process=1 if on_gpu else min(1.0, cores / trainer.n_gpus_per_node / 2),
    )  # fmt: skip
    # GIFT_DRIVER: by it a person (and a test) tells one run's workers from another's
    env = {**_QUIET, "GIFT_DRIVER": str(os.getpid()), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    if not on_gpu:
        env |= _CPU_ENV
        if not config.actor_rollout_ref.actor.use_torch_compile:
            env["TORCH_COMPILE_DISABLE"] = "1"  # before torch is imported: see VLLMEngine
    needs_ref = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    role = "actor_rollout_ref" if needs_ref else "actor_rollout"
    actor = RayWorkerGroup(
        pool, RayClassWithInitArgs(ray.remote(worker_class), config=config, role=role), name_prefix="actor",
        worker_env=env, device_name=device, master_port=trainer.master_port,
    )  # fmt: skip
    critic = None
    if config.algorithm.adv_estimator in ("gae", "bi_level_gae"):
        critic = RayWorkerGroup(
            pool, RayClassWithInitArgs(ray.remote(CriticWorker), config=config.critic, seed=int(config.seed.train)),
            name_prefix="critic", worker_env=env, device_name=device,
        )  # fmt: skip
    workers = Workers(actor, critic, pool)
    try:
        if critic is not None:
            critic.init_model()
        actor.init_model()
        actor.init_engine()
    except BaseException:
        workers.kill()
        raise
    return workers
