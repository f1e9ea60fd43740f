"""The value model on one rank of a data-parallel group: values before sampled tokens, and the value update."""

import torch
from torch import nn

from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import agg_loss, compute_value_loss
from verl.utils.device import compute_device
from verl.utils.optim import clip_norm
from verl.workers.micro_batch import BatchLimits, MicroBatch, selected_positions
from verl.workers.mini_batches import MiniBatch, UpdateMetrics, loss_scale_factor, run_forward, run_update
from verl.workers.token_forward import bind_value_forward


class DataParallelPPOCritic:
    """VeRL's critic: `compute_values` and `update_critic`. Batches are laid out as the actor's.

    Args:
        config: the `critic` section (`ppo_epochs`, batch limits as the actor's and, for :meth:`compute_values`, those whose
            names start with `forward_`; `optim.clip_grad` or `grad_clip`, `cliprange_value`, `loss_agg_mode`).
        critic_module: a value model, sharded or plain; critic_optimizer: over its trainable parameters.
    """

    def __init__(self, config, critic_module: nn.Module, critic_optimizer=None, packed: bool = False):
        self.config = config
        self.critic_module = critic_module
        self.critic_optimizer = critic_optimizer
        self.packed = packed
        self.share_prompts = bool(config.get("use_prefix_grouper", False))
        self.device = compute_device()
        bind_value_forward(critic_module)

    def compute_values(self, data: DataProto) -> torch.Tensor:
        """Values (B, T-1), float32 on the CPU: at index i of what follows once `input_ids[:, :i+1]` is seen, that is
        before `responses[:, i]` is sampled. Computed where `response_mask` is true (every real token where absent)."""
        selected = selected_positions(data)

        def forward(micro: MicroBatch):
            return (self.critic_module.token_values(micro.model_inputs, micro.positions),)

        found = run_forward(self.critic_module, data.batch["input_ids"], selected, forward, self._forward_limits(), self.device)
        return found[0] if found else torch.zeros(selected.shape)

    def update_critic(self, data: DataProto) -> dict[str, float]:
        """One optimizer step for every mini-batch and epoch on the clipped value loss. All ranks call it together.

        Args:
            data: this rank's rows of every mini-batch: `input_ids`, `attention_mask`, `response_mask`, `values`, `returns`.

        Returns:
            global metrics: `critic/vf_loss`, `critic/vf_clipfrac`, `critic/vpred_mean`, `critic/grad_norm`.
        """
        config, batch = self.config, data.batch

        def loss_of(micro: MicroBatch, mini: MiniBatch, metrics: UpdateMetrics, is_first: bool) -> torch.Tensor:
            predicted = self.critic_module.token_values(micro.model_inputs, micro.positions)
            if len(micro.rows) == 0:
                return predicted.sum() * 0.0
            mask = micro.take(batch["response_mask"]).bool()
            values = micro.to_matrix(predicted)
            loss, clip_fraction = compute_value_loss(
                vpreds=values,
                returns=micro.take(batch["returns"]),
                values=micro.take(batch["values"]),
                response_mask=mask,
                cliprange_value=config.get("cliprange_value", 0.5),
                loss_agg_mode=config.get("loss_agg_mode", "token-mean"),
                global_batch_info=mini.counts(micro.rows, loss_scale_factor(config, data)),
            )
            metrics.share("critic/vf_loss", loss.detach())
            metrics.share("critic/vf_clipfrac", float(clip_fraction) * int(mask.sum()) / mini.tokens)
            metrics.share("critic/vpred_mean", agg_loss(values.detach(), mask, "token-mean", batch_num_tokens=mini.tokens))
            return loss

        return run_update(
            self.critic_module,
            self.critic_optimizer,
            data,
            loss_of,
            limits=self._limits(),
            epochs=int(config.get("ppo_epochs", 1)),
            grad_clip=clip_norm(config),
            keep_whole=not ((config.get("model") or {}).get("fsdp_config") or {}).get("reshard_after_forward", True),
            prefix="critic",
            device=self.device,
        )

    def _limits(self, tokens: str = "ppo_max_token_len_per_gpu", rows: str = "ppo_micro_batch_size_per_gpu") -> BatchLimits:
        config = self.config
        dynamic = config.get("use_dynamic_bsz", True)
        return BatchLimits(
            int(config.get(tokens, 16384)) if dynamic else None,
            None if dynamic else config.get(rows),
            packed=self.packed,
            share_prompts=self.share_prompts,
        )

    def _forward_limits(self) -> BatchLimits:
        """Of forward passes alone: the `forward_` keys, and where there are none those of the update."""
        tokens, rows = "forward_max_token_len_per_gpu", "forward_micro_batch_size_per_gpu"
        return self._limits(
            tokens if tokens in self.config else "ppo_max_token_len_per_gpu",
            rows if rows in self.config else "ppo_micro_batch_size_per_gpu",
        )
