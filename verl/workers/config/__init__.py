"""VeRL's dataclasses of the ``actor`` section."""

from verl.compat.actor_config import ActorConfig, FSDPActorConfig, PolicyLossConfig

__all__ = ["ActorConfig", "FSDPActorConfig", "PolicyLossConfig"]
