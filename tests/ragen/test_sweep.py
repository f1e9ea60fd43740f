"""``train.py -m``: the combinations are Hydra's, every run has a folder of its own, a failed one stops nobody."""

import subprocess
import sys

import pytest

from ragen.trainer.config import CONFIG_DIR
from ragen.trainer.sweep import expand
from verl.utils.config_check import ConfigError


def test_combinations_are_those_of_hydras_basic_sweeper():
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = ["seed.train=1,2,3", "trainer.logger=[console,file]", "algorithm.adv_estimator=grpo,rloo", "+form=laptop", "trainer.test_freq=range(1,3)"]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
    assert [chosen for chosen, _ in expand(given)] == [list(job) for job in batch]
    assert expand(["seed.train=1"]) == [(["seed.train=1"], "")]
    assert [name for _, name in expand(["a.b=1,2", "c=3"])] == ["a.b=1", "a.b=2"]


def test_an_override_that_hydra_cannot_read_is_told():
    with pytest.raises(ConfigError, match=r"\[1,"):
        expand(["seed.train=[1,"])


def test_each_run_plans_in_its_own_folder_and_a_wrong_one_stops_nobody():
    command = [sys.executable, "train.py", "-m", "trainer.plan_only=true", "algorithm.adv_estimator=grpo,nonsense,rloo", "trainer.default_local_dir=outputs/x"]
    done = subprocess.run(command, cwd=CONFIG_DIR.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "nonsense" in done.stderr
    for name in ("grpo", "rloo"):
        assert f"outputs/x/algorithm.adv_estimator={name}" in done.stdout
