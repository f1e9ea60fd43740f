"""A run's configuration: composed by Hydra, checked as a whole, resolved to a plan.

    config = compose("_15_FI1_nested", ["trainer.n_gpus_per_node=2"])
    plan = validate_config(config)          # ConfigError names every key that is wrong
    print(plan)

Nothing here imports torch or starts a process: a wrong configuration stops within a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ragen.trainer import config_checks, machine_checks
from ragen.trainer.config_keys import FOREIGN, key_table
from ragen.trainer.plan import ResolvedPlan, resolve
from verl.utils.config_check import ConfigError
from verl.utils.import_utils import import_external_libs

#: the folder of experiments, beside the packages
CONFIG_DIR = Path(__file__).resolve().parents[2] / "config"

_PLAIN_OVERRIDE = re.compile(r"\+{0,2}[A-Za-z_][\w]*(\.[\w]+)*=.*", re.DOTALL)


def open_overrides(overrides: Sequence[str]) -> list[str]:
    """``key=value`` as ``++key=value``, so that a key Hydra does not know reaches :func:`validate_config`,
    which knows VeRL's keys and the nearest name. Hydra's own keys and config groups stay as they are."""
    opened = []
    for item in overrides:
        key = item.lstrip("+").split("=", 1)[0]
        group = (CONFIG_DIR / key).is_dir() or key == "hydra" or key.startswith(("hydra.", "hydra/"))
        opened.append(item if group or not _PLAIN_OVERRIDE.fullmatch(item) else "++" + item.lstrip("+"))
    return opened


def gpu_form(opened: Sequence[str], form: str | None) -> list[str]:
    """Overrides in which ``form`` has become its GPU form (``config/form/FORM_gpu.yaml``), where it has one."""
    name = f"{form}_gpu"
    if not (CONFIG_DIR / "form" / f"{name}.yaml").is_file():
        return list(opened)
    named = [item for item in opened if item.lstrip("+").split("=", 1)[0] == "form"]
    replaced = [f"{item.split('=', 1)[0]}={name}" if item in named else item for item in opened]
    return replaced if named else [*replaced, f"form={name}"]  # an experiment's own form


def compose(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The experiment ``config/CONFIG_NAME.yaml`` with overrides, as ``train.py`` sees it. A run on GPUs gets the GPU form of
    a form that has one (``+form=laptop``).

    Raises :class:`ConfigError` for a name that is not there and for an override Hydra cannot read.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    if not (CONFIG_DIR / f"{config_name}.yaml").is_file():
        known = ", ".join(sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
        raise ConfigError([f"--config-name {config_name}: there is no such experiment (known: {known})"])
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            opened = open_overrides(overrides)
            config = hydra_compose(config_name, overrides=opened)
            if config.trainer.get("device") not in ("cuda", "auto") or machine_checks.resolve_device(config) != "cuda":
                return config
            chosen = hydra_compose(config_name, overrides=opened, return_hydra_config=True).hydra.runtime.choices
            return hydra_compose(config_name, overrides=gpu_form(opened, chosen.get("form")))
    except HydraException as error:
        raise ConfigError([str(error)]) from error


def plain(config: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """The configuration as plain dicts and lists, every ``${...}`` resolved.

    Raises :class:`ConfigError` where one points at nothing.
    """
    try:
        if not isinstance(config, DictConfig):
            config = OmegaConf.create(dict(config))
        done = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ConfigError([f"{where}{str(error).splitlines()[0]}"]) from error
    return {key: value for key, value in done.items() if key not in FOREIGN}


def _import_external_libs(config: Mapping[str, Any]) -> None:
    """Modules of the user's, before any name is looked up; the workers import them too."""
    for section in ("actor_rollout_ref", "critic"):
        path = f"{section}.model.external_lib"
        libs = ((config.get(section) or {}).get("model") or {}).get("external_lib")
        if isinstance(libs, str) or (isinstance(libs, list) and all(isinstance(name, str) for name in libs)):
            try:
                import_external_libs(libs)
            except ImportError as error:
                raise ConfigError([f"{path}: {error}"]) from error


def validate_config(config: Mapping[str, Any] | DictConfig, *, check_machine: bool | None = None) -> ResolvedPlan:
    """Check a whole configuration; return what it amounts to.

    Args:
        config: as composed by Hydra (or a plain dict of the same keys).
        check_machine: also look at this machine (model folder, GPUs, packages, ports, opponents).
            Default: unless ``trainer.plan_only``, which plans for another machine.
    Raises:
        ConfigError: every fault found, one sentence each: key, value, what would be right.
    """
    done = plain(config)
    _import_external_libs(done)
    report = key_table().check(done)
    report.raise_if_wrong()  # the checks below rely on keys being there and of the right type
    if check_machine is None:
        check_machine = not done["trainer"]["plan_only"]
    report.problems += [problem for check in config_checks.CHECKS for problem in check(done)]
    report.raise_if_wrong()
    device = machine_checks.resolve_device(done)
    if check_machine:
        report.problems += machine_checks.check_device(done, device)
        report.problems += [problem for check in machine_checks.CHECKS for problem in check(done)]
        report.raise_if_wrong()
    report.warnings += config_checks.warnings(done)
    return resolve(done, device, tuple(report.warnings))
