"""Forward passes that apply the head only at chosen positions, bound to the sharded root module.

FSDP gathers the head's weight (or the tied embedding's) in the root module's forward alone, so the head has to be
applied inside a method of the root that FSDP treats as a forward. The module and its parameter names stay Hugging Face's.
"""

import types

import torch
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method

from verl.utils.lora import huggingface_model
from verl.utils.model import backbone, value_head
from verl.utils.torch_functional import (
    calculate_sum_pi_squared_from_logits,
    chunked_logprobs_entropy,
    chunked_sum_pi_squared,
    logprobs_entropy_from_logits,
)


def bind_log_prob_forward(model: nn.Module) -> None:
    """Give a causal language model the method

    `token_log_probs(model_inputs, positions, labels, temperature, with_entropy, with_sum_pi_squared=False)
        -> (log_probs (n,), entropy (n,) or None[, sum_pi_squared (n,)])`

    in float32: log-probability of each label under the logits divided by `temperature`, their entropy in nats and, without
    gradient, the sum of the squared probabilities.
    """
    causal_lm = huggingface_model(model)

    def token_log_probs(self, model_inputs, positions, labels, temperature, with_entropy, with_sum_pi_squared=False):
        hidden = backbone(causal_lm)(**model_inputs, use_cache=False).last_hidden_state
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        return _head_log_probs(causal_lm, chosen, labels, temperature, with_entropy, with_sum_pi_squared)

    _bind(model, "token_log_probs", token_log_probs)


def bind_value_forward(model: nn.Module) -> None:
    """Give a value model the method `token_values(model_inputs, positions) -> values (n,)`, in float32."""
    value_model = huggingface_model(model)

    def token_values(self, model_inputs, positions):
        hidden = backbone(value_model)(**model_inputs, use_cache=False).last_hidden_state
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        return value_head(value_model)(chosen).squeeze(-1).float()

    _bind(model, "token_values", token_values)


def _bind(model: nn.Module, name: str, function) -> None:
    setattr(model, name, types.MethodType(function, model))
    register_fsdp_forward_method(model, name)


def _head_log_probs(causal_lm, hidden, labels, temperature, with_entropy, with_sum_pi_squared):
    head, config = causal_lm.get_output_embeddings(), causal_lm.config
    softcap = getattr(config, "final_logit_softcapping", None)
    # Granite divides its logits, Cohere multiplies them: both are a temperature.
    temperature = temperature * getattr(config, "logits_scaling", 1.0) / getattr(config, "logit_scale", 1.0)
    if softcap is None and getattr(head, "bias", None) is None:
        found = chunked_logprobs_entropy(hidden, head.weight, labels, temperature=temperature, with_entropy=with_entropy)
        return (*found, chunked_sum_pi_squared(hidden, head.weight, temperature)) if with_sum_pi_squared else found
    logits = head(hidden).float()
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    found = logprobs_entropy_from_logits(logits / temperature, labels, with_entropy=with_entropy)
    return (*found, calculate_sum_pi_squared_from_logits(logits / temperature)) if with_sum_pi_squared else found
