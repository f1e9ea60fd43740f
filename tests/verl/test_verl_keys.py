"""The tables of VeRL's keys against the registries and the YAML they speak of."""

from pathlib import Path

import yaml

from verl.utils import verl_keys
from verl.utils.verl_keys_absent import ABSENT

ROOT = Path(__file__).resolve().parents[2]


def _paths(section, prefix=""):
    for name, value in section.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in verl_keys.IMPLEMENTED:
            yield from _paths(value, path + ".")
        else:
            yield path


def test_the_yaml_holds_every_implemented_key_and_no_other():
    written = set(_paths(yaml.safe_load((ROOT / "config" / "ppo_trainer.yaml").read_text())))
    assert written == set(verl_keys.IMPLEMENTED)


def test_absent_keys_have_reasons():
    assert len(ABSENT) > 100
    assert all(entry.reason for entry in ABSENT.values())


def test_algorithm_names_are_the_registries():
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.registry import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    assert core_algos  # importing it fills the registries
    assert {getattr(k, "value", k) for k in ADV_ESTIMATOR_REGISTRY} == set(verl_keys.ADV_ESTIMATORS)
    assert set(POLICY_LOSS_REGISTRY) == set(verl_keys.POLICY_LOSSES)


def test_kl_forms_are_those_that_compute():
    import torch

    from verl.trainer.ppo.kl import kl_penalty

    one = torch.zeros(1, 1)
    for form in verl_keys.KL_FORMS:
        assert kl_penalty(one, one, form).shape == (1, 1)

