"""Names of the ways to hand arguments to ranks (:class:`Dispatch`) and to choose ranks (:class:`Execute`)."""

from __future__ import annotations


class DynamicEnum:
    """An enumeration that users can extend: ``Dispatch.register("MY_MODE")`` makes ``Dispatch.MY_MODE``."""

    _registry: dict[str, DynamicEnum]

    def __init_subclass__(cls) -> None:
        cls._registry = {}

    def __init__(self, name: str):
        self.name = name

    @classmethod
    def register(cls, name: str) -> DynamicEnum:
        """Add a member. Raises ``ValueError`` if the name is taken or no identifier in capitals."""
        if not (name.isidentifier() and name.isupper()):
            raise ValueError(f"a {cls.__name__} mode is named in CAPITALS, got {name!r}")
        if name in cls._registry:
            raise ValueError(f"{cls.__name__}.{name} is already registered")
        cls._registry[name] = cls(name)
        setattr(cls, name, cls._registry[name])
        return cls._registry[name]

    @classmethod
    def names(cls) -> list[str]:
        return list(cls._registry)

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Dispatch(DynamicEnum):
    """How a call's arguments become one set of arguments a rank, and the results one result.

    ==============================  ==========================================  =======================
    mode                            arguments                                   result
    ==============================  ==========================================  =======================
    ``RANK_ZERO``                   to rank 0 alone                             rank 0's
    ``ONE_TO_ALL``                  the same to every rank                      list by rank
    ``ALL_TO_ALL``                  as given (lists of one entry a rank are     list by rank
                                    dealt out, anything else goes to every rank)
    ``DP_COMPUTE``                  lists of one entry a rank, dealt out        list by rank
    ``DP_COMPUTE_PROTO``            DataProtos, cut into equal chunks           one DataProto
    ``DP_COMPUTE_PROTO_WITH_FUNC``  a function for all, then DataProtos         one DataProto
    ``DP_COMPUTE_METRIC``           DataProtos, cut into equal chunks           list by rank
    ``DIRECT_ROLLOUT_METHOD``       not called on the group but on the handle of one worker
    ==============================  ==========================================  =======================
    """


class Execute(DynamicEnum):
    """Which ranks execute: ``ALL`` or ``RANK_ZERO``."""


for _name in (
    "RANK_ZERO",
    "ONE_TO_ALL",
    "ALL_TO_ALL",
    "DP_COMPUTE",
    "DP_COMPUTE_PROTO",
    "DP_COMPUTE_PROTO_WITH_FUNC",
    "DP_COMPUTE_METRIC",
    "DIRECT_ROLLOUT_METHOD",
):
    Dispatch.register(_name)
for _name in ("ALL", "RANK_ZERO"):
    Execute.register(_name)
