"""Starts Ray and the workers of a run, and ends them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from pathlib import Path

import ray

from ragen.trainer.workers import START_WAIT_S, Workers
from ragen.workers.agent_worker import AgentWorker
from ragen.workers.rollout_worker import RolloutWorker
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.utils.verl_keys import CRITIC_ESTIMATORS
from verl.workers.fsdp_workers import ActorRolloutRefWorker, CriticWorker

__all__ = ["START_WAIT_S", "Workers", "ray_session", "start_workers"]

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
#: not for a larger model: what is kept lies in pieces that do not fit what is asked for next. (81M parameters on two
#: ranks: 720 MiB at the peak of an update with large blocks given back, 1,600 without, and no slower.)
_LARGE_WEIGHTS, _LARGE_BLOCK = 64 << 20, 128 << 10

#: what libraries say of themselves on every start; errors still come through
_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore",
}


@contextlib.contextmanager
def ray_session(config):
    """Ray for the length of a ``with``: started here, or joined where ``RAY_ADDRESS`` or an existing
    cluster says so; whatever happens within, nothing of it is left running."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would let anything else starve the ranks
    section = config.ray_kwargs.ray_init
    options = dict(log_to_driver=True, logging_level=logging.ERROR, namespace=f"gift-{os.getpid()}")
    if joined := _joined_cluster(config):
        options["address"] = joined
    else:
        # counted in ranks, not cores: a laptop with two cores runs two ranks and their helpers
        cpus = section.get("num_cpus") or max(os.cpu_count() or 1, _processes_per_node(config) + 1)
        port = section.get("dashboard_port")
        # "local": a cluster of our own, even if some other run's is up on this machine
        options |= dict(address="local", num_cpus=cpus, include_dashboard=port is not None, dashboard_port=port)
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def _joined_cluster(config) -> str | None:
    """Address of the cluster that the run joins; ``None``: it starts one of its own."""
    return config.ray_kwargs.ray_init.get("address") or os.environ.get("RAY_ADDRESS") or None


def start_workers(config, device: str, worker_class: type[AgentWorker] = AgentWorker, wait_s: float = START_WAIT_S) -> Workers:
    """One process a rank: policy, engine and episodes in it, and the critic beside it where the
    estimator needs one. With ``hybrid_engine: false`` engine and episodes are in processes of their own, on a
    pool of their own. Models and engines are built when this returns. ``wait_s``: how long to wait for nodes with room."""
    trainer = config.trainer
    split = not config.actor_rollout_ref.hybrid_engine
    env = _worker_env(config, device)
    pool = _pool(config, device, [trainer.n_gpus_per_node] * trainer.nnodes, "gift", colocated=2)
    needs_ref = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    role = "actor_rollout_ref" if needs_ref else "actor_rollout"
    if split:
        actor_class = RayClassWithInitArgs(
            ray.remote(ActorRolloutRefWorker), config=config.actor_rollout_ref, role=role, seed=int(config.seed.train)
        )
    else:
        actor_class = RayClassWithInitArgs(ray.remote(worker_class), config=config, role=role)
    shared = dict(worker_env=env, device_name=device)
    actor = _start_group(pool, actor_class, wait_s, name_prefix="actor", master_port=trainer.master_port, **shared)
    workers = Workers(actor)
    try:
        if config.algorithm.adv_estimator in CRITIC_ESTIMATORS:
            critic_class = RayClassWithInitArgs(ray.remote(CriticWorker), config=config.critic, seed=int(config.seed.train))
            workers.critic = _start_group(pool, critic_class, wait_s, name_prefix="critic", **shared)
        if split:
            own = _pool(config, device, [config.rollout.n_gpus_per_node] * config.rollout.nnodes, "gift_rollout", colocated=1)
            rollout_class = RayClassWithInitArgs(ray.remote(RolloutWorker), config=config)
            workers.rollout = _start_group(own, rollout_class, wait_s, name_prefix="rollout", **shared)
        for group in workers.groups:
            group.watch(other for other in workers.groups if other is not group)
        _build(workers)
    except BaseException:
        workers.kill()
        raise
    return workers


def _start_group(pool: RayResourcePool, worker_class: RayClassWithInitArgs, wait_s: float, **options) -> RayWorkerGroup:
    """A group on ``pool``, whose reservation is given back where the group cannot be started."""
    try:
        pool.get_placement_groups(timeout_s=wait_s)
        return RayWorkerGroup(pool, worker_class, **options)
    except BaseException:
        pool.release()
        raise


def _build(workers: Workers) -> None:
    """Models and engines; trainer and rollout workers at the same time."""
    engines = workers.rollout.execute_all_async("init_engine") if workers.rollout is not None else None
    if workers.critic is not None:
        workers.critic.init_model()
    workers.actor.init_model()
    if engines is None:
        workers.actor.init_engine()
        return
    workers.rollout.gather(engines, "init_engine")
    address, port = workers.actor.execute_rank_zero_sync("get_available_master_addr_port")
    everyone = 1 + workers.rollout.world_size
    met = workers.actor.create_weight_sync_group(address, int(port), 0, everyone)
    also_met = workers.rollout.create_weight_sync_group(address, int(port), 1, everyone)
    workers.actor.gather(met, "create_weight_sync_group", beside=also_met)
    workers.rollout.gather(also_met, "create_weight_sync_group")


def _processes_per_node(config, at_once: bool = False) -> int:
    """Processes of a node that reserve resources; ``at_once``: those that compute at the same time."""
    trainer, rollout = config.trainer.n_gpus_per_node, 0
    if not config.actor_rollout_ref.hybrid_engine:
        rollout = config.rollout.n_gpus_per_node
    return max(trainer, rollout) if at_once and not config.trainer.rollout_ahead else trainer + rollout


def _pool(config, device: str, processes: list[int], name: str, colocated: int) -> RayResourcePool:
    on_gpu = device == "cuda"
    share = _cores(config, device) / _processes_per_node(config) / 2
    return RayResourcePool(
        processes, use_gpu=on_gpu, name_prefix=name, max_colocate_count=colocated,
        cpus_per_process=1 if on_gpu else min(1.0, share), node_timeout_s=config.trainer.node_timeout_s,
    )  # fmt: skip


def _cores(config, device: str) -> int:
    """Cores of a node: of this machine, or what Ray counts on the smallest node of a cluster that was joined."""
    here = os.cpu_count() or 1
    if not _joined_cluster(config):
        return here
    kind = "GPU" if device == "cuda" else "CPU"
    found = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"] and node["Resources"].get(kind)]
    return max(1, min(found, default=here))


def _worker_env(config, device: str) -> dict[str, str]:
    # trainer and rollout workers that take turns may each have all cores, those that overlap share them
    threads = max(1, _cores(config, device) // _processes_per_node(config, at_once=True))
    # GIFT_DRIVER: by it a person (and a test) tells one run's workers from another's
    env = {**_QUIET, "GIFT_DRIVER": str(os.getpid()), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    if device == "cuda":
        del env["VLLM_LOGGING_LEVEL"]  # goes to RUN/logs instead (verl.workers.rollout.vllm_logging)
    else:
        env |= _CPU_ENV
        if _weight_bytes(config.actor_rollout_ref.model.path) > _LARGE_WEIGHTS:
            env["MALLOC_MMAP_THRESHOLD_"] = str(_LARGE_BLOCK)
        if not config.actor_rollout_ref.actor.use_torch_compile:
            env["TORCH_COMPILE_DISABLE"] = "1"  # before torch is imported: see VLLMEngine
    return env


def _weight_bytes(path: str) -> float:
    """Of the weights in a model's folder; of a hub model unknown, which is taken for large."""
    folder = Path(path).expanduser()
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else math.inf
