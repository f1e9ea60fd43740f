"""The process that runs lines: a name in on stdin, a result as one line of JSON out on stdout, until stdin ends."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import traceback
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.lines import Skipped, all_lines


def machine(torch, device: str) -> dict[str, str]:
    """What the figures were measured on."""
    names = ("torch", "transformers", "tensordict", "peft", "vllm", "ray", "flash-attn")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    chip = "CPU, " + (platform.processor() or platform.machine())
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        chip = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return {"device": chip, "host": f"{os.cpu_count()} cores, Python {platform.python_version()}", "versions": versions}


def _clean(torch) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is log
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"status": "failed", "error": "torch sees no CUDA device (--device cpu --tiny rehearses without one)"}), file=answers)
        return 1
    from benchmarks.gpu.setting import Setting

    lines, setting = all_lines(), Setting(args.device, args.tiny, args.scratch)
    print(json.dumps({"status": "ok", "machine": machine(torch, args.device)}), file=answers)
    for name in sys.stdin:
        try:
            result = {"status": "ok", "rows": lines[name.strip()].function(setting)}
        except Skipped as reason:
            result = {"status": "skipped", "error": str(reason)}
        except Exception as error:
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            last = text.strip().splitlines()[-1]
            where = traceback.extract_tb(error.__traceback__)[-1]
            result = {"status": "failed", "error": f"{last[:500]} ({Path(where.filename).name}:{where.lineno})", "traceback": text[-6000:]}
            del error, where
        try:
            _clean(torch)
        except RuntimeError as error:  # a device-side fault shows here at the latest
            result = {**result, "status": "failed", "error": f"{result.get('error', '')} the device after the line: {error}"[:600]}
        print(json.dumps(result, default=str), file=answers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
