"""Shared fixtures. Data that the project does not ship comes from ``GIFT_DATA``."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is; what must be fast has a test that measures it
settings.register_profile("gift", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gift")


@pytest.fixture(scope="session")
def gift_data() -> Path:
    """Folder of real data sets; tests that need it are skipped where it is absent."""
    root = os.environ.get("GIFT_DATA")
    if not root:
        pytest.skip("GIFT_DATA is not set: this test needs the real data sets (docs/evaluation.md)")
    if not Path(root).is_dir():
        pytest.skip(f"GIFT_DATA={root} is not a folder")
    return Path(root)


@pytest.fixture(scope="module")
def ray_apart():
    """An environment in which a simulated Ray cluster meets no other of this machine."""
    folder = tempfile.mkdtemp(prefix="r_")  # short: Ray's sockets lie below it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(folder, ignore_errors=True)
