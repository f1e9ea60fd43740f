"""python -m verl.model_merger merge --backend fsdp --local_dir RUN/global_step_N/actor --target_dir DIR
python -m verl.model_merger test --backend fsdp --local_dir RUN/global_step_N/actor --test_hf_dir DIR
python -m verl.model_merger monitor --watch_dir RUN --target_root DIR"""

import argparse
import logging
import sys

from verl.model_merger.compare import compare
from verl.model_merger.merging import DTYPES, MergeConfig, merge
from verl.model_merger.monitor import monitor
from verl.utils.checkpoint.errors import CheckpointError


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help of each operation."""
    parser = argparse.ArgumentParser(
        prog="python -m verl.model_merger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    operations = parser.add_subparsers(dest="operation", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--backend", choices=["fsdp"], default="fsdp", help="what saved the checkpoint (fsdp: FSDP and FSDP2)")
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--hf_model_path", help="folder with config and tokenizer, where the checkpoint has no huggingface/")
    output.add_argument("--dtype", choices=["auto", *DTYPES], default="auto", help="of the merged weights; auto: as trained")
    output.add_argument("--max_shard_size", default="5GB", help="of one safetensors file, e.g. 5GB, 300MB")
    output.add_argument("--lora", choices=["merge", "adapter"], default="merge", help="adapters: into the weights, or a folder")

    one = operations.add_parser("merge", parents=[shared, output], help="write one checkpoint as a Hugging Face folder")
    one.add_argument("--local_dir", required=True, help="global_step_N/actor")
    one.add_argument("--target_dir", required=True, help="folder to make")
    one.add_argument("--overwrite", action="store_true", help="replace a target that is not empty")

    test = operations.add_parser("test", parents=[shared], help="compare a checkpoint with a Hugging Face folder")
    test.add_argument("--local_dir", required=True, help="global_step_N/actor")
    test.add_argument("--test_hf_dir", required=True, help="folder to compare with")

    watch = operations.add_parser("monitor", parents=[shared, output], help="merge each new checkpoint of a run when it is whole")
    watch.add_argument("--watch_dir", required=True, help="run folder with global_step_N in it")
    watch.add_argument("--target_root", required=True, help="merged folders go to TARGET_ROOT/global_step_N")
    watch.add_argument("--role", default="actor", help="actor or critic")
    watch.add_argument("--interval", type=float, default=30.0, help="seconds between two looks")
    watch.add_argument("--once", action="store_true", help="merge what is there and stop")
    watch.add_argument("--remove_old", action="store_true", help="remove a merged checkpoint once a later one is saved")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one operation; 0, or 1 with a sentence on stderr."""
    args = vars(parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    operation = args.pop("operation")
    args.pop("backend")
    try:
        if operation == "merge":
            print(merge(MergeConfig(**args)))
        elif operation == "test":
            print(f"{compare(**args)} tensors are equal")
        else:
            monitor(**args)
    except (CheckpointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
