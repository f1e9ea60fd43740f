"""A worker: one process of a group, with a rank."""

from __future__ import annotations

import os
import random
import socket
import warnings
from collections.abc import Callable
from typing import Any

from verl.single_controller.base.decorator import Dispatch, Execute, register
from verl.single_controller.base.errors import MeshRegisteredTwice

#: where rendezvous ports are looked for: below Linux's ephemeral range (32768 up), from which every
#: outgoing connection takes its port, and above the ports that Ray gives its workers (10002-19999)
_PORTS = (20000, 32000)


def get_free_port() -> int:
    """A TCP port of this node that nobody listens on now.

    The ports that the kernel itself hands out are avoided: between the choice and its use any new
    connection could take one of those.
    """
    rng = random.SystemRandom()  # not the global generator: its state belongs to the run
    for _ in range(200):
        port = rng.randrange(*_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("", port))
                return port
            except OSError:
                continue
    raise OSError(f"no free port found between {_PORTS[0]} and {_PORTS[1]}")


class Worker:
    """Base of all workers. A worker group sets the environment before the process starts: ``RANK``,
    ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``, so that
    ``torch.distributed.init_process_group()`` needs no arguments. Outside a group (a unit test) a
    worker is rank 0 of 1.

    With GPUs each process sees one device, so ``LOCAL_RANK`` (which libraries use as device index) is 0;
    the position on the node is then ``RAY_LOCAL_RANK``.

    Args:
        cuda_visible_devices: what ``CUDA_VISIBLE_DEVICES`` is set to, before anything of CUDA starts; by default it stays.
    """

    fused_worker_attr_name = "fused_worker_dict"

    def __init__(self, cuda_visible_devices: str | None = None) -> None:
        if cuda_visible_devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(cuda_visible_devices)
        self._rank = int(os.environ.get("RANK", 0))
        self._world_size = int(os.environ.get("WORLD_SIZE", 1))
        self._local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self._local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        if "MASTER_PORT" not in os.environ:
            os.environ["MASTER_PORT"] = str(get_free_port())
        #: workers that share this process, by role; filled in by create_colocated_worker_cls
        self.fused_worker_dict: dict[str, Worker] = {}
        self._meshes: dict[str, tuple[int, bool]] = {}

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def local_rank(self) -> int:
        return self._local_rank

    @property
    def local_world_size(self) -> int:
        return self._local_world_size

    def get_master_addr_port(self) -> tuple[str, str]:
        """Rendezvous of the group, as in the environment."""
        return os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]

    def get_available_master_addr_port(self) -> tuple[str, str]:
        """This node's IP and a free port on it."""
        return self._get_node_ip().strip("[]"), str(self._get_free_port())

    def get_availale_master_addr_port(self) -> tuple[str, str]:
        """:meth:`get_available_master_addr_port` as VeRL spelled it at first."""
        warnings.warn("get_availale_master_addr_port is deprecated: use get_available_master_addr_port", stacklevel=2)
        return self.get_available_master_addr_port()

    def get_cuda_visible_devices(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "not set")

    def get_fused_worker_by_name(self, worker_name: str) -> Worker | None:
        """The worker of that role in this process, if there is one."""
        return self.fused_worker_dict.get(worker_name)

    def _register_dispatch_collect_info(self, mesh_name: str, dp_rank: int, is_collect: bool) -> None:
        """Tell where this worker stands in a mesh: which share of the data it gets, and whether its result
        is the one to keep of its share. See ``make_nd_compute_dataproto_dispatch_fn``. Raises ``ValueError`` (an
        ``AssertionError`` too) for a mesh that is registered already."""
        if mesh_name in self._meshes:
            raise MeshRegisteredTwice(f"mesh {mesh_name!r} has been registered as {self._meshes[mesh_name]}: use another name")
        self._meshes[mesh_name] = (dp_rank, is_collect)

    def get_dispatch_collect(self) -> dict[str, dict[str, Any]]:
        """``{"dispatch_dp_rank": {mesh: dp_rank}, "collect_dp_rank": {mesh: is_collect}}`` of all registered meshes: the
        keyword arguments of :meth:`set_dispatch_collect`."""
        return {
            "dispatch_dp_rank": {mesh: dp_rank for mesh, (dp_rank, _) in self._meshes.items()},
            "collect_dp_rank": {mesh: is_collect for mesh, (_, is_collect) in self._meshes.items()},
        }

    def set_dispatch_collect(self, mesh_name: str, dispatch_dp_rank: dict[str, int], collect_dp_rank: dict[str, bool]) -> None:
        """Register under ``mesh_name`` the place that another worker (one that this one wraps) has: of a mesh with the same
        name, or of its only one. Raises ``ValueError`` where its meshes leave that open."""
        places = {mesh: (dp_rank, collect_dp_rank[mesh]) for mesh, dp_rank in dispatch_dp_rank.items()}
        wanted = {places[mesh_name]} if mesh_name in places else set(places.values())
        if len(wanted) != 1:
            raise ValueError(f"set_dispatch_collect({mesh_name!r}) cannot choose among the places {places}: pass those of one mesh")
        self._register_dispatch_collect_info(mesh_name, *wanted.pop())

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def _query_mesh(self, mesh_name: str) -> tuple[int, bool]:
        """``(dp_rank, is_collect)`` as registered."""
        if mesh_name not in self._meshes:
            raise KeyError(
                f"{type(self).__name__} has not registered mesh {mesh_name!r} (it has {sorted(self._meshes)}): call "
                "self._register_dispatch_collect_info(mesh_name, dp_rank, is_collect) first"
            )
        return self._meshes[mesh_name]

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def _query_dispatch_info(self, mesh_name: str) -> int:
        """The dp_rank as registered."""
        return self._query_mesh(mesh_name)[0]

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def _query_collect_info(self, mesh_name: str) -> bool:
        """Whether this worker's result is collected, as registered."""
        return self._query_mesh(mesh_name)[1]

    def query_collect_info(self, mesh_name: str) -> bool:
        """Whether this worker's result is collected, asked on the worker itself."""
        return self._query_mesh(mesh_name)[1]

    def _get_node_ip(self) -> str:
        """Other nodes reach this one by it; ``MY_HOST_IP`` overrides it where a node has several."""
        if "MY_HOST_IP" in os.environ:
            return os.environ["MY_HOST_IP"]
        from ray.util import get_node_ip_address

        return get_node_ip_address()

    def _get_free_port(self) -> int:
        return get_free_port()

    def _get_pid(self) -> int:
        return os.getpid()

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO_WITH_FUNC)
    def execute_with_func_generator(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """``func(worker, *chunks)`` on every rank, on its chunk of the DataProtos."""
        return func(self, *args, **kwargs)

    @register(dispatch_mode=Dispatch.ALL_TO_ALL, execute_mode=Execute.RANK_ZERO)
    def execute_func_rank_zero(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """``func(*args)`` on rank 0."""
        return func(*args, **kwargs)
