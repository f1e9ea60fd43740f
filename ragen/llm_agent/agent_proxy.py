"""Many episodes to one batch: the playing half of a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import Episode, EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.es_manager import Tag, build_env
from ragen.llm_agent.tasks import Runner
from ragen.llm_agent.trajectory import Trajectory
from ragen.players.factory import PlayerFactory
from verl.workers.rollout.base import RolloutEngine


@dataclass
class AgentProxy:
    """Plays the episodes it is dealt over this process's engine, with continuous batching and no
    barrier between turns. ``engines[0]`` is the policy's. ``make_episode`` builds one, with
    :class:`Episode`'s arguments."""

    engines: list[RolloutEngine]
    chat: ChatTokens
    players: PlayerFactory
    limits: EpisodeLimits
    make_episode: Callable[..., Episode] = Episode
    runner_class: type[Runner] = Runner

    def play(
        self, specs: Sequence[EpisodeSpec], tags: Mapping[str, Tag], sampling: Sampling,
        success_rates: Mapping[str, Mapping[str, float]] | None = None, on_done: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:  # fmt: skip
        """Play ``specs``, admitted in (group, member) order; return their trajectories in that order.
        ``success_rates``: by tag, for nests that weigh by difficulty. ``on_done(place)`` is called as each episode ends."""
        episodes = []
        for spec in sorted(specs, key=lambda s: (s.group, s.member)):
            tag = tags[spec.tag]
            own = replace(sampling, max_tokens=tag.max_tokens or sampling.max_tokens)
            episode = self.make_episode(spec, build_env(tag, (success_rates or {}).get(tag.name)), self.chat, self.limits, own, tag.player_info, self.players)
            episodes.append(episode.run())
        return [t for trajectories in self.runner_class(self.engines).run(episodes, on_done) for t in trajectories]
