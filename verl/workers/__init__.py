"""Workers: actor, reference and critic over FSDP2 (`fsdp_workers`), and the rollout engines (`rollout`)."""
