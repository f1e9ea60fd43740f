"""Plain transformers as a rollout engine: slow, simple, what tests compare vLLM against, and what
runs where vLLM has no wheel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import AutoModelForCausalLM

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams


class HFEngine(RolloutEngine):
    """Replies to all waiting requests in one :meth:`step`: left-padded batch, key/value cache, each
    request drawing from a generator of its own."""

    def __init__(
        self, model_path: str, *, max_model_len: int, dtype: str = "float32", trust_remote_code: bool = False,
        max_num_seqs: int = 256, device: str = "cpu", **_unused,
    ):  # fmt: skip
        self.max_model_len, self.max_num_seqs = max_model_len, max_num_seqs
        self.device = torch.device(device)
        self.model = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        ).to(self.device)
        self.model.eval()
        self._waiting: list[tuple[str, list[int], SamplingParams]] = []

    def add(self, request_id: str, prompt_ids: list[int], params: SamplingParams) -> None:
        self._check_room(prompt_ids)
        self._waiting.append((request_id, list(prompt_ids), params))

    @property
    def unfinished(self) -> int:
        return len(self._waiting)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        own = dict(self.model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)

    @torch.no_grad()
    def step(self) -> list[Reply]:
        batch, self._waiting = self._waiting[: self.max_num_seqs], self._waiting[self.max_num_seqs :]
        if not batch:
            return []
        width = max(len(ids) for _, ids, _ in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long, device=self.device)
        mask = torch.zeros_like(ids)
        for row, (_, prompt, _) in enumerate(batch):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        samplers = [_Sampler(params, self.max_model_len - len(prompt)) for _, prompt, params in batch]
        cache = None
        while True:
            out = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = out.past_key_values
            logits = out.logits[:, -1].float().cpu()
            tokens = [s.draw(row) if not s.done else 0 for s, row in zip(samplers, logits, strict=True)]
            if all(s.done for s in samplers):
                break
            ids = torch.tensor(tokens, device=self.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1
        return [
            Reply(request_id, s.ids, s.logprobs if s.params.logprobs else [], cut=s.cut) for (request_id, _, _), s in zip(batch, samplers, strict=True)
        ]


class _Sampler:
    """Draws one request's tokens."""

    def __init__(self, params: SamplingParams, room: int):
        self.params, self.limit = params, min(params.max_tokens, room)
        self.generator = torch.Generator()
        if params.seed is not None:
            self.generator.manual_seed(params.seed)
        else:
            self.generator.seed()
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.done = self.cut = False

    def draw(self, logits: torch.Tensor) -> int:
        """One token from ``logits`` (V,); log-probabilities before the top-k/top-p cut."""
        p = self.params
        if p.temperature <= 0:
            logprobs = logits.log_softmax(-1)
            token = int(logits.argmax())
        else:
            logprobs = (logits / p.temperature).log_softmax(-1)
            probs = _cut(logprobs.exp(), p.top_k, p.top_p)
            token = int(torch.multinomial(probs, 1, generator=self.generator))
        self.ids.append(token)
        self.logprobs.append(float(logprobs[token]))
        if token in p.stop_token_ids:
            self.done = True
        elif len(self.ids) >= self.limit:
            self.done = self.cut = True
        return token


def _cut(probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Zero what top-k and top-p (nucleus) leave out; not renormalised."""
    if 0 < top_k < probs.numel():
        probs = probs.where(probs >= probs.topk(top_k).values[-1], torch.zeros(()))
    if top_p < 1.0:
        ordered, index = probs.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered > top_p * ordered.sum()
        probs = probs.index_fill(0, index[outside], 0.0)
    return probs
