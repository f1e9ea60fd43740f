"""Does a checkpoint hold the weights of a Hugging Face folder?"""

from pathlib import Path

import torch

from verl.model_merger.merging import plain_source, verify_source
from verl.model_merger.sources import FolderSource, open_source
from verl.utils.checkpoint.errors import CheckpointError


def compare(local_dir: str, test_hf_dir: str) -> int:
    """Compare every tensor of `local_dir` (adapters merged) with the folder's, bit for bit in the folder's dtype.

    A tied output head may be left out on either side.

    Returns:
        the number of tensors compared.

    Raises:
        CheckpointError: names, shapes or values differ; the message names the tensor and the largest difference.
    """
    folder = Path(local_dir)
    verify_source(folder)
    ours, theirs = plain_source(folder, open_source(folder)), FolderSource(test_hf_dir)
    different = (set(ours.facts) ^ set(theirs.facts)) - {"lm_head.weight"}
    if different:
        raise CheckpointError(f"{local_dir} and {test_hf_dir} hold other tensors: {', '.join(sorted(different)[:3])}, ...")
    common = sorted(set(ours.facts) & set(theirs.facts))
    for name in common:
        if ours.facts[name].shape != theirs.facts[name].shape:
            raise CheckpointError(f"{name} is {ours.facts[name].shape} here and {theirs.facts[name].shape} in {test_hf_dir}")
        here, there = ours.read(name).to(theirs.facts[name].dtype), theirs.read(name)
        if not torch.equal(here, there):
            worst = (here.double() - there.double()).abs().max().item()
            raise CheckpointError(f"{name} differs from {test_hf_dir} by up to {worst:.3g}")
    return len(common)
