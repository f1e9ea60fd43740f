"""What the machine can do at best, and the tests that want a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

from benchmarks.gpu.lines import Skipped, line, row

ROOT = Path(__file__).resolve().parents[2]


@line("machine", "matrix rate and copy rate, the ceilings of what follows", 10)
def machine(setting) -> list[dict]:
    import torch

    from verl.utils.flops_counter import get_device_flops

    size, numbers = (256, 2**16) if setting.tiny else (8192, 2**30)
    a, b = (torch.randn(size, size, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = setting.seconds(lambda: [a @ b for _ in range(10)]) / 10
    source = torch.empty(numbers, dtype=torch.float32, device=setting.device)
    copied = torch.empty_like(source)
    copy = setting.seconds(lambda: copied.copy_(source))
    peak = get_device_flops("T")
    return [
        row("bfloat16 matrix product", 2 * size**3 / seconds / 1e12, "TFLOP/s", note=f"{size}^3; the data sheet says {peak:g}"),
        row("copy on the device", 8 * numbers / copy / 1e9, "GB/s", note="read and written"),
    ]


@line("gpu-tests", "every test marked gpu that runs without Ray and vLLM", 45, 240)
def gpu_tests(setting) -> list[dict]:
    try:
        import pytest  # noqa: F401
    except ModuleNotFoundError as error:
        raise Skipped("pytest is not installed") from error
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    report = setting.folder("tests") / "report.xml"
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--continue-on-collection-errors", "--durations=0",
        "-p", "no:cacheprovider", f"--junitxml={report}", *files,
    ]  # fmt: skip
    if setting.tiny:
        command.insert(3, "--collect-only")  # what is collected is what would run; here every one of them would be skipped
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, env=os.environ, timeout=230)
    if setting.tiny:
        return [row("collected", done.returncode in (0, 5), note=f"{len(files)} files; a rehearsal runs none")]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    broken = []
    for case in xml.parse(report).getroot().iter("testcase"):
        faults = [*case.findall("failure"), *case.findall("error")]
        lacking = any(f"No module named '{name}" in (fault.get("message") or "") + (fault.text or "") for fault in faults for name in ("ray", "vllm"))
        outcome = "skipped" if lacking or case.findall("skipped") else "failed" if faults else "passed"
        counts[outcome] += 1
        if outcome == "failed":
            broken.append(f"{case.get('name') or case.get('classname')}: {(faults[0].get('message') or '').splitlines()[:1]}")
    return [row("tests that failed", counts["failed"], at_most=0, note=f"{counts['passed']} passed, {counts['skipped']} skipped {'; '.join(broken)}")]
