"""A rollout engine that writes scripted replies, for tests of everything around the engine."""

from __future__ import annotations

from collections.abc import Callable

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams


class ScriptedEngine(RolloutEngine):
    """``write(prompt_ids, params) -> token ids`` is the whole model. A request takes as many steps as its
    reply has tokens, so requests of different length end at different times, as in a real engine."""

    def __init__(self, write: Callable[[list[int], SamplingParams], list[int]], max_model_len: int = 4096):
        self.write, self.max_model_len = write, max_model_len
        self._running: dict[str, tuple[list[int], SamplingParams, int]] = {}
        self.prompts: list[list[int]] = []
        self.seeds: list[int | None] = []
        self.steps = 0

    def add(self, request_id, prompt_ids, params):
        self._check_room(prompt_ids)
        ids = self.write(prompt_ids, params)[: params.max_tokens]
        self.prompts.append(list(prompt_ids))
        self.seeds.append(params.seed)
        self._running[request_id] = (ids, params, len(ids))

    def step(self):
        self.steps += 1
        done = []
        for request_id, (ids, params, left) in list(self._running.items()):
            if left > 1:
                self._running[request_id] = (ids, params, left - 1)
                continue
            del self._running[request_id]
            cut = not ids or ids[-1] not in params.stop_token_ids
            done.append(Reply(request_id, ids, [-0.5 - 0.001 * i for i in range(len(ids))], cut))
        return done

    @property
    def unfinished(self):
        return len(self._running)

    def load_weights(self, weights):
        pass
