"""Which keys of a config a run reads: recorded where OmegaConf hands a value out, over whole runs inside one process.

A worker group is one worker that is called directly (from a thread of its own), so that what workers read is seen as well. The
trainer, the workers, their models, the engine and the games are the real ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from ragen.trainer import worker_setup
from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.config import compose, validate_config
from ragen.trainer.run import run
from verl.single_controller.base.decorator import MAGIC_ATTR, Dispatch
from verl.single_controller.base.errors import WorkerDied


@dataclass
class Reads:
    """``keys``: dotted paths that were read; ``defaults``: path -> defaults that readers brought along (as ``repr``)."""

    keys: set[str] = field(default_factory=set)
    defaults: dict[str, set[str]] = field(default_factory=dict)


class PlainSection(dict):
    """A section as a plain dict that still tells which of its keys are read."""

    def __init__(self, values: dict, path: str, keys: set[str]):
        made = {k: PlainSection(v, f"{path}{k}.", keys) if isinstance(v, dict) else v for k, v in values.items()}
        super().__init__(made)
        self._path, self._keys = path, keys

    def __getitem__(self, key):
        self._keys.add(f"{self._path}{key}")
        return super().__getitem__(key)

    def get(self, key, default=None):
        self._keys.add(f"{self._path}{key}")
        return super().get(key, default)


def _bare(values):
    return {key: _bare(value) for key, value in values.items()} if isinstance(values, dict) else values


@contextlib.contextmanager
def recorded():
    """Reads inside, and with a key those that its ``${...}`` points at or whose place it took in a merge. Copying, listing and
    writing a config read nothing."""
    reads, depth = Reads(), 0
    get, resolve = DictConfig._get_impl, BaseContainer._resolve_node_interpolation
    to_plain, merge, create = OmegaConf.to_container, OmegaConf.merge, OmegaConf.create

    def recording_get(self, key, default_value, validate_key=True):
        nonlocal depth
        path = self._get_full_key(key)
        reads.keys.add(path)
        if isinstance(default_value, (bool, int, float, str)):
            reads.defaults.setdefault(path, set()).add(repr(default_value))
        depth += 1
        try:
            return get(self, key, default_value, validate_key)
        finally:
            depth -= 1

    def recording_resolve(self, inter_key, memo):
        if depth:
            reads.keys.add(inter_key)
        return resolve(self, inter_key, memo)

    def recording_plain(section, **options):
        made, path = to_plain(section, **options), section._get_full_key(None)
        return PlainSection(made, f"{path}." if path else "", reads.keys) if isinstance(made, dict) else made

    def recording_merge(*sections):
        for section in sections[1:]:
            if isinstance(section, DictConfig):
                reads.keys.update(section._get_full_key(key) for key in section)
        return merge(*sections)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "create", staticmethod(lambda *values, **options: create(*map(_bare, values), **options)))
        patch.setattr(OmegaConf, "to_container", staticmethod(recording_plain))
        patch.setattr(OmegaConf, "merge", staticmethod(recording_merge))
        patch.setattr(DictConfig, "_get_impl", recording_get)
        patch.setattr(BaseContainer, "_resolve_node_interpolation", recording_resolve)
        patch.setattr(DictConfig, "items_ex", lambda self, resolve=True, keys=None: list(self._content.items()))
        yield reads


class OneWorker:
    """A worker group of one rank in this process, as the trainer sees a group."""

    world_size = 1

    def __init__(self, resource_pool, init, **options):
        self.resource_pool, self._worker, self._thread = resource_pool, init.raw_cls(*init.args, **init.kwargs), ThreadPoolExecutor(1)

    def watch(self, others):
        pass

    def kill(self):
        self._thread.shutdown()

    def execute_func_rank_zero(self, function):
        return function()

    def execute_rank_zero_sync(self, name):
        return getattr(self._worker, name)()

    def execute_all_async(self, name, orders=None):
        future = self._thread.submit(getattr(self._worker, name), *([] if orders is None else orders))
        wait([future])  # two workers of one process must not load models at the same time
        return future

    def gather(self, future: Future, name, beside=None):
        return [future.result()]

    def __getattr__(self, name):
        method = getattr(self._worker, name)
        how = getattr(method, MAGIC_ATTR)
        return partial(self._call, method, how["dispatch_mode"], how["blocking"])

    def _call(self, method, mode, blocking, *args, **kwargs):
        if mode == Dispatch.DP_COMPUTE:  # a share a rank
            args = [share for (share,) in args]
        future = self._thread.submit(method, *args, **kwargs)
        if not blocking:
            return future
        return future.result() if mode == Dispatch.DP_COMPUTE_PROTO else [future.result()]


def reads_of_run(name: str, overrides: list[str]) -> Reads:
    """What a run of the experiment ``name`` on one rank reads; with ``trainer.max_restarts`` its first worker dies at once."""
    config = compose(name, overrides)
    plan = validate_config(config, check_machine=False)
    fit, deaths = AgentTrainer.fit, [None] * config.trainer.max_restarts

    def fit_or_die(trainer, wait_s):
        if deaths:
            deaths.pop()
            raise WorkerDied(rank=0, node="here", pid=None, method="play", cause="a test")
        fit(trainer, wait_s)

    with pytest.MonkeyPatch.context() as patch, recorded() as reads:
        patch.setattr(AgentTrainer, "fit", fit_or_die)
        patch.setattr(worker_setup, "RayWorkerGroup", OneWorker)
        patch.setattr(worker_setup.RayResourcePool, "get_placement_groups", lambda self, timeout_s: [])
        for name in ("init", "shutdown"):
            patch.setattr(worker_setup.ray, name, lambda **options: None)
        assert run(config, plan) == 0
    return reads


def reads_of_runs(runs: list[tuple[str, list[str]]]) -> list[Reads]:
    """Of several runs, one after another in a process of their own (their process group would be this one's)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.starmap(reads_of_run, runs)
