"""Helpers of the machine room: tensors, sequence lengths, checkpoints, FSDP."""
