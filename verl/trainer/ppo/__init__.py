"""PPO and its relatives: advantages, policy losses, KL, aggregation, metrics (see ``core_algos``)."""
