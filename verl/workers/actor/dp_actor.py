"""The policy on one rank of a data-parallel group: log-probabilities of sampled tokens, and the policy update."""

import logging

import torch
from torch import nn

from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty, with_batch_info
from verl.utils.device import compute_device
from verl.utils.optim import clip_norm
from verl.workers.micro_batch import BatchLimits, MicroBatch, selected_positions
from verl.workers.mini_batches import MiniBatch, UpdateMetrics, loss_scale_factor, run_forward, run_update
from verl.workers.token_forward import bind_log_prob_forward

logger = logging.getLogger(__name__)


class DataParallelPPOActor:
    """VeRL's actor: `compute_log_prob` and `update_policy` over a (sharded) causal language model.

    Batches are right padded: `input_ids`, `attention_mask` (B, T); everything per token is (B, T-1), aligned with
    `responses = input_ids[:, 1:]`.

    Args:
        config: the `actor` section (`ppo_epochs`, `ppo_micro_batch_size_per_gpu`, `use_dynamic_bsz`,
            `ppo_max_token_len_per_gpu`, `optim.clip_grad` or `grad_clip`, `loss_agg_mode`, `entropy_coeff`, `use_kl_loss`, `kl_loss_coef`,
            `kl_loss_type`, `policy_loss`, clip ratios). For a reference policy only the forward is used.
        actor_module: a causal language model, sharded by `verl.utils.fsdp_utils.apply_fsdp2` or plain.
        actor_optimizer: over its trainable parameters; None for a policy that is not trained.
        packed: micro-batches are packed into one row (the model's attention must be one of `verl.utils.attention.PACKED`).
    """

    def __init__(self, config, actor_module: nn.Module, actor_optimizer=None, packed: bool = False):
        self.config = config
        self.actor_module = actor_module
        self.actor_optimizer = actor_optimizer
        self.packed = packed
        self.share_prompts = bool(config.get("use_prefix_grouper", False))
        self.device = compute_device()
        bind_log_prob_forward(actor_module)

    def compute_log_prob(
        self, data: DataProto, calculate_entropy: bool = False, calculate_sum_pi_squared: bool = False
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probabilities of the sampled tokens and, if asked, the entropy and the sum of the squared probabilities of the
        distributions they came from.

        Args:
            data: `input_ids`, `attention_mask`; `response_mask` says where to compute (every real token where absent).
                meta_info: `temperature` (1.0), and VeRL's `micro_batch_size` or `use_dynamic_bsz` with `max_token_len`.

        Returns:
            log_probs (B, T-1) and entropys (B, T-1) or None, with `calculate_sum_pi_squared` that too (B, T-1): float32 on the
            CPU, in nats, 0 where not computed.
        """
        input_ids, selected = data.batch["input_ids"], selected_positions(data)
        temperature = float(data.meta_info.get("temperature", 1.0))

        def forward(micro: MicroBatch):
            return self._token_log_probs(micro, temperature, calculate_entropy, calculate_sum_pi_squared)

        found = run_forward(self.actor_module, input_ids, selected, forward, self._log_prob_limits(data.meta_info), self.device)
        nothing = torch.zeros(selected.shape)
        empty = (nothing, nothing.clone() if calculate_entropy else None, nothing.clone())
        return found or empty[: 3 if calculate_sum_pi_squared else 2]

    def update_policy(self, data: DataProto) -> dict[str, float]:
        """One optimizer step for every mini-batch and epoch. All ranks call it together.

        Args:
            data: this rank's rows of every mini-batch (see `plan_mini_batches`): `input_ids`, `attention_mask`,
                `response_mask`, `advantages`; `old_log_probs`, which may be absent where the update is exactly on-policy
                (one mini-batch, one epoch); `ref_log_prob` with `use_kl_loss`; `rollout_log_probs` and
                `rollout_is_weights` where there are any. meta_info: `temperature`, `ppo_epochs` (default: the config's).

        Returns:
            global metrics, the same on every rank: `actor/pg_loss`, `actor/entropy` (nats, mean over trained tokens),
            `actor/grad_norm` and the policy loss's own, averaged over the steps; `rollout/logprob_diff_max` and `_mean`
            (engine against trainer, from the first mini-batch before any step) where `old_log_probs` is absent.

        Raises:
            ValueError: `old_log_probs` is absent and the update is not exactly on-policy, or the padding is not right.
        """
        config = self.config
        epochs = int(data.meta_info.get("ppo_epochs", config.get("ppo_epochs", 1)))
        minis = data.meta_info.get("num_mini_batches", 1)
        keys = data.batch.keys()
        if "old_log_probs" not in keys and epochs * minis > 1:
            raise ValueError(
                f"old_log_probs is absent, but {minis} mini-batches x {epochs} epochs are not exactly on-policy: "
                "compute them first (compute_log_prob), or use one mini-batch and actor.ppo_epochs=1"
            )
        policy_loss = get_policy_loss_fn((config.get("policy_loss") or {}).get("loss_mode", "vanilla"))
        temperature = float(data.meta_info.get("temperature", 1.0))

        def loss_of(micro: MicroBatch, mini: MiniBatch, metrics: UpdateMetrics, is_first: bool) -> torch.Tensor:
            log_probs, entropy = self._token_log_probs(micro, temperature, with_entropy=True)
            if len(micro.rows) == 0:
                return log_probs.sum() * 0.0
            matrices = micro.to_matrix(log_probs), micro.to_matrix(entropy)
            return self._loss(data, micro, mini, *matrices, policy_loss, metrics, is_first)

        return run_update(
            self.actor_module,
            self.actor_optimizer,
            data,
            loss_of,
            limits=self._update_limits(),
            epochs=epochs,
            grad_clip=clip_norm(config),
            keep_whole=not (config.get("fsdp_config") or {}).get("reshard_after_forward", True),
            prefix="actor",
            device=self.device,
        )

    def _token_log_probs(self, micro: MicroBatch, temperature: float, with_entropy: bool, with_sum_pi_squared: bool = False):
        return self.actor_module.token_log_probs(
            micro.model_inputs, micro.positions, micro.labels, temperature=temperature, with_entropy=with_entropy,
            with_sum_pi_squared=with_sum_pi_squared,
        )  # fmt: skip

    def _loss(self, data, micro, mini, log_prob, entropy, policy_loss, metrics, is_first) -> torch.Tensor:
        """This micro-batch's share of the mini-batch's loss; its shares of the metrics go to `metrics`."""
        config, batch, keys = self.config, data.batch, data.batch.keys()
        mode = config.get("loss_agg_mode", "token-mean")
        mask = micro.take(batch["response_mask"]).bool()
        counts = mini.counts(micro.rows, loss_scale_factor(config, data))
        # chosen in the whole batch of the step (add_cov_selected) for the losses that rank tokens
        chosen = {"cov_selected": micro.take(batch["cov_selected"])} if "cov_selected" in keys else {}
        token_share = int(mask.sum()) / mini.tokens
        has_old = "old_log_probs" in keys
        old_log_prob = micro.take(batch["old_log_probs"]) if has_old else log_prob.detach()
        loss, loss_metrics = policy_loss(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=micro.take(batch["advantages"]),
            response_mask=mask,
            loss_agg_mode=mode,
            config=with_batch_info(config, **counts),
            rollout_is_weights=micro.take(batch["rollout_is_weights"]) if "rollout_is_weights" in keys else None,
            **chosen,
        )
        metrics.share("actor/pg_loss", loss.detach())
        for name, value in loss_metrics.items():
            metrics.share(name, value * token_share)
        metrics.share("actor/entropy", agg_loss(entropy.detach(), mask, "token-mean", batch_num_tokens=mini.tokens))
        if entropy_coeff := config.get("entropy_coeff", 0.001):
            loss = loss - entropy_coeff * agg_loss(entropy, mask, mode, **counts)
        if config.get("use_kl_loss", False):
            kl = kl_penalty(log_prob, micro.take(batch["ref_log_prob"]), config.get("kl_loss_type", "low_var_kl"))
            kl_loss = agg_loss(kl, mask, mode, **counts)
            loss = loss + config.get("kl_loss_coef", 0.001) * kl_loss
            metrics.share("actor/kl_loss", kl_loss.detach())
        if is_first and not has_old and "rollout_log_probs" in keys:
            gap = (log_prob.detach() - micro.take(batch["rollout_log_probs"])).abs()[mask]
            metrics.maximum("rollout/logprob_diff_max", gap.max())
            metrics.total("rollout/logprob_diff_mean", gap.sum() / mini.tokens)
        return loss

    def _update_limits(self) -> BatchLimits:
        config = self.config
        if config.get("use_dynamic_bsz", True):
            return self._limits(int(config.get("ppo_max_token_len_per_gpu", 16384)), None)
        return self._limits(None, config.get("ppo_micro_batch_size_per_gpu"))

    def _log_prob_limits(self, meta_info: dict) -> BatchLimits:
        if meta_info.get("use_dynamic_bsz", False):
            return self._limits(int(meta_info["max_token_len"]), None)
        return self._limits(None, meta_info.get("micro_batch_size"))

    def _limits(self, max_tokens: int | None, max_rows: int | None) -> BatchLimits:
        return BatchLimits(max_tokens, max_rows, packed=self.packed, share_prompts=self.share_prompts)
