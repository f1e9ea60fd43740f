"""VeRL's public names for PPO-like algorithms, in one place; each idea has a file of its own.

``registry`` (names), ``advantages_*`` (estimators), ``policy_losses*``, ``value_loss``, ``kl``,
``aggregation``. Importing this module registers every estimator and loss.
"""

from verl.trainer.ppo.advantages_gae import compute_bi_level_gae_advantage_return, compute_gae_advantage_return
from verl.trainer.ppo.advantages_group import (
    compute_gdpo_outcome_advantage,
    compute_gpg_outcome_advantage,
    compute_grpo_outcome_advantage,
    compute_grpo_passk_outcome_advantage,
    compute_opo_outcome_advantage,
    compute_rloo_outcome_advantage,
)
from verl.trainer.ppo.advantages_rae import compute_rae_outcome_advantage
from verl.trainer.ppo.advantages_reinforce import (
    compute_reinforce_plus_plus_baseline_outcome_advantage,
    compute_reinforce_plus_plus_outcome_advantage,
    compute_remax_outcome_advantage,
)
from verl.trainer.ppo.advantages_token_baseline import (
    compute_multi_turn_optimal_token_baseline_advantage,
    compute_optimal_token_baseline_advantage,
)
from verl.trainer.ppo.advantages_vectorized import (
    compute_grpo_vectorized_outcome_advantage,
    compute_rloo_vectorized_outcome_advantage,
)
from verl.trainer.ppo.aggregation import LOSS_AGG_MODES, agg_loss, batch_counts
from verl.trainer.ppo.config_access import with_batch_info
from verl.trainer.ppo.kl import (
    AdaptiveKLController,
    FixedKLController,
    apply_kl_penalty,
    compute_rewards,
    get_kl_controller,
    kl_penalty,
    kl_penalty_forward,
)
from verl.trainer.ppo.policy_losses import (
    compute_policy_loss,
    compute_policy_loss_cispo,
    compute_policy_loss_dro,
    compute_policy_loss_gpg,
    compute_policy_loss_vanilla,
)
from verl.trainer.ppo.policy_losses_bypass import compute_policy_loss_bypass_mode, compute_policy_loss_reinforce
from verl.trainer.ppo.policy_losses_cov import (
    COV_SELECTORS,
    add_cov_selected,
    compute_policy_loss_clip_cov,
    compute_policy_loss_kl_cov,
)
from verl.trainer.ppo.policy_losses_dppo import compute_policy_loss_dppo_kl, compute_policy_loss_dppo_tv
from verl.trainer.ppo.policy_losses_sequence import (
    compute_policy_loss_geo_mean,
    compute_policy_loss_gspo,
    compute_policy_loss_sapo,
)
from verl.trainer.ppo.registry import (
    ADV_ESTIMATOR_REGISTRY,
    POLICY_LOSS_REGISTRY,
    AdvantageEstimator,
    get_adv_estimator_fn,
    get_policy_loss_fn,
    register_adv_est,
    register_policy_loss,
)
from verl.trainer.ppo.value_loss import compute_entropy_loss, compute_value_loss

__all__ = [
    "ADV_ESTIMATOR_REGISTRY",
    "AdaptiveKLController",
    "AdvantageEstimator",
    "COV_SELECTORS",
    "FixedKLController",
    "LOSS_AGG_MODES",
    "POLICY_LOSS_REGISTRY",
    "add_cov_selected",
    "agg_loss",
    "apply_kl_penalty",
    "batch_counts",
    "compute_bi_level_gae_advantage_return",
    "compute_entropy_loss",
    "compute_gae_advantage_return",
    "compute_gdpo_outcome_advantage",
    "compute_gpg_outcome_advantage",
    "compute_grpo_outcome_advantage",
    "compute_grpo_passk_outcome_advantage",
    "compute_grpo_vectorized_outcome_advantage",
    "compute_multi_turn_optimal_token_baseline_advantage",
    "compute_opo_outcome_advantage",
    "compute_optimal_token_baseline_advantage",
    "compute_policy_loss",
    "compute_policy_loss_bypass_mode",
    "compute_policy_loss_cispo",
    "compute_policy_loss_clip_cov",
    "compute_policy_loss_dppo_kl",
    "compute_policy_loss_dppo_tv",
    "compute_policy_loss_dro",
    "compute_policy_loss_geo_mean",
    "compute_policy_loss_gpg",
    "compute_policy_loss_gspo",
    "compute_policy_loss_kl_cov",
    "compute_policy_loss_reinforce",
    "compute_policy_loss_sapo",
    "compute_policy_loss_vanilla",
    "compute_rae_outcome_advantage",
    "compute_reinforce_plus_plus_baseline_outcome_advantage",
    "compute_reinforce_plus_plus_outcome_advantage",
    "compute_remax_outcome_advantage",
    "compute_rewards",
    "compute_rloo_outcome_advantage",
    "compute_rloo_vectorized_outcome_advantage",
    "compute_value_loss",
    "get_adv_estimator_fn",
    "get_kl_controller",
    "get_policy_loss_fn",
    "kl_penalty",
    "kl_penalty_forward",
    "register_adv_est",
    "register_policy_loss",
    "with_batch_info",
]
