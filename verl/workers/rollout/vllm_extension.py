"""Runs inside vLLM's worker (``worker_extension_cls``): takes over weights while the engine lives."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class WeightSyncExtension:
    """Mixed into vLLM's worker class, so ``self`` has ``model_runner`` and ``reload_weights``."""

    def take_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace all weights in place, from Hugging Face names.

        ``reload_weights`` undoes and redoes the packing that a backend applies to linear layers. With
        tied embeddings it leaves the packed copy of the output head as it was, so that copy is made anew.
        """
        self.reload_weights(weights_iterator=weights)
        model = self.model_runner.get_model()
        head = getattr(model, "lm_head", None)
        tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
        if tied and head is not None and hasattr(head, "quant_method"):
            head.quant_method.process_weights_after_loading(head)
