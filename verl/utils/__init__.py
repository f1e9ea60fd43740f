"""Helpers of the machine room: tensors, sequence lengths, checkpoints, FSDP."""


def __getattr__(name: str):
    # VeRL exports these two here; lazily, because they load torch
    if name in ("as_torch_index", "group_mean_std"):
        from verl.compat import groupwise

        return getattr(groupwise, name)
    raise AttributeError(f"module 'verl.utils' has no attribute {name!r}")
