"""Write docs/configuration.md from the schema, the defaults and their comments.

python scripts/make_config_reference.py            write the file
python scripts/make_config_reference.py --check    exit with 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omegaconf import OmegaConf  # noqa: E402

from ragen.env import REGISTERED_ENVS, env_config_class  # noqa: E402
from ragen.players.remote import RemoteConfig  # noqa: E402
from ragen.players.scripted import DEFAULT_OPPONENT, SCRIPTED  # noqa: E402
from ragen.trainer.config import CONFIG_DIR  # noqa: E402
from ragen.trainer.config_keys import key_table  # noqa: E402
from scripts.config_meanings import MEANINGS  # noqa: E402
from verl.utils.config_check import KeyTable, show  # noqa: E402

TARGET = ROOT / "docs" / "configuration.md"

HEAD = """\
<!-- made by scripts/make_config_reference.py out of the schema, config/*.yaml and scripts/config_meanings.py -->
# Configuration

An experiment is one file in [config/](../config) over `base.yaml` (the playing side, RAGEN's keys), `ppo_trainer.yaml` (VeRL's
keys) and `envs.yaml` (games and opponents). Any key can be given on the command line; `+form=laptop` turns any experiment into a
run without a GPU. What would run, and the memory it takes, without starting anything:

```bash
python train.py --config-name _15_FI1_nested model_path=Qwen/Qwen2.5-7B trainer.n_gpus_per_node=4 trainer.plan_only=true
```

A wrong configuration stops before any worker starts, with the key, the value and what would be right. A key of VeRL or RAGEN
that is [not implemented](#keys-that-have-no-effect) is accepted at its usual value with a warning, and refused otherwise; any
other key is refused, with the nearest name.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    made = reference()
    if parser.parse_args().check:
        if TARGET.read_text(encoding="utf-8") != made:
            print(f"{TARGET.relative_to(ROOT)} is out of date: run python scripts/make_config_reference.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(made, encoding="utf-8")
    return 0


def reference() -> str:
    """The whole document. Raises ``KeyError`` naming a key that nothing explains."""
    return "\n".join([HEAD, *_keys(), *_games(), *_players(), *_absent()]) + "\n"


# -- keys -----------------------------------------------------------------------------------------


def comments() -> dict[str, str]:
    """Key -> the comment beside it in base.yaml or ppo_trainer.yaml."""
    found: dict[str, str] = {}
    for name in ("base.yaml", "ppo_trainer.yaml"):
        above: list[tuple[int, str]] = []
        for line in (CONFIG_DIR / name).read_text(encoding="utf-8").splitlines():
            match = re.match(r"( *)([A-Za-z_]\w*):(.*)$", line)
            if not match:
                continue
            indent = len(match[1])
            above = [entry for entry in above if entry[0] < indent] + [(indent, match[2])]
            comment = re.search(r"(?:^|\s)#\s*(.*)$", match[3])
            if comment:
                found[".".join(key for _, key in above)] = comment[1]
    return found


def defaults() -> dict:
    """The values of base.yaml and ppo_trainer.yaml, as written (``${...}`` is not resolved)."""
    merged = OmegaConf.merge(*[OmegaConf.load(CONFIG_DIR / name) for name in ("ppo_trainer.yaml", "base.yaml")])
    return OmegaConf.to_container(merged)


def meaning(key: str, beside: dict[str, str]) -> str:
    """Out of MEANINGS for the whole key, else the comment beside it or beside the actor's key of that name, else
    out of MEANINGS for the key's ending."""
    if key in MEANINGS:
        return MEANINGS[key]
    same = key.replace("critic.model.", "actor_rollout_ref.model.").replace("critic.", "actor_rollout_ref.actor.")
    for name in (key, same, same.replace("model.fsdp_config", "actor.fsdp_config"), key.replace(".val.", ".train.")):
        if name in beside:
            return beside[name]
    return MEANINGS[_ending(key)]


def _ending(key: str) -> str:
    parts = key.split(".")
    return next((end for i in range(len(parts)) if (end := ".".join(parts[i:])) in MEANINGS), "")


def _keys() -> Iterator[str]:
    beside, values, table = comments(), defaults(), key_table()
    titles = {
        "model_path": "The model", "seed": "Seeds", "ctx_manager": "Prompts", "data": "Chat template", "agent_proxy": "Episodes",
        "es_manager": "Which games, how many",
        "schedule": "Schedule", "collapse_detection": "Collapse diagnostics", "custom_envs": "Tags",
        "actor_rollout_ref": "Policy and engine", "critic": "Critic",
        "algorithm": "Algorithm", "trainer": "Run", "rollout": "Rollout workers", "ray_kwargs": "Ray",
    }  # fmt: skip
    for section, title in titles.items():
        yield f"\n## {title}\n"
        yield "| key | default | takes | meaning |\n|---|---|---|---|"
        mine = [key for key in table.implemented if key.split(".")[0] == section]
        for key in mine:
            yield _row(f"`{key}`", _default(values, key), _takes(table.implemented[key].expects), meaning(key, beside))


def _default(values: dict, key: str) -> str:
    value: object = values
    for part in key.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    if value == "" and "*" in key:
        return ""
    return f"`{_unresolved(value)}`" if isinstance(value, str) else _shown(value)


def _unresolved(text: str) -> str:
    """``${a.b}`` alone as ``as a.b``."""
    return re.sub(r"^\$\{(.*)\}$", r"as \1", text)


def _shown(value: object) -> str:
    return f"`{json.dumps(value) if isinstance(value, (list, tuple, dict)) else show(value)}`"


def _takes(expects: str) -> str:
    return expects.replace("a non-empty string", "string").replace("a whole number", "integer").replace("a number", "number")


def _row(*cells: str) -> str:
    return "| " + " | ".join(_cell(text) for text in cells) + " |"


def _cell(text: str) -> str:
    """``text`` as Markdown in a table: no bar ends the cell, no tag is read as HTML."""
    return re.sub(r"<(?=[a-zA-Z/])", "&lt;", text.replace("|", r"\|"))


# -- games and players ----------------------------------------------------------------------------


def _games() -> Iterator[str]:
    yield "\n## Games\n\nKeys of `custom_envs.TAG.env_config`, by `env_type`."
    for env_type in REGISTERED_ENVS:
        config = env_config_class(env_type)
        yield f"\n### {env_type}\n"
        yield _plain(config)
        yield "\n| key | default |\n|---|---|"
        for field in dataclasses.fields(config):
            yield _row(f"`{field.name}`", _field_default(field))


def _plain(cls: type) -> str:
    """A docstring as Markdown."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", inspect.cleandoc(cls.__doc__))
    return text.replace("``", "`")


def _field_default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _shown(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else _shown(field.default)


def _players() -> Iterator[str]:
    yield "\n## Scripted players\n\n`{type: scripted, name: NAME}`; any game that lists its legal answers has `random`.\n"
    yield "| game | names | without a choice |\n|---|---|---|"
    for game, names in SCRIPTED.items():
        yield _row(game, ", ".join(f"`{name}`" for name in names), f"`{DEFAULT_OPPONENT.get(game, 'random')}`")
    yield "\n## Remote players\n\n`{model_name: M, port: P}`, with `base_url` or `provider` instead of `port`.\n"
    yield _plain(RemoteConfig)
    yield "\n| key | default |\n|---|---|"
    for field in dataclasses.fields(RemoteConfig):
        yield _row(f"`{field.name}`", _field_default(field))


# -- keys without effect ----------------------------------------------------------------------------


def _absent() -> Iterator[str]:
    yield "\n## Keys that have no effect\n"
    yield (
        "Keys of VeRL (to its version 0.9.1) and RAGEN that a launch script may hold: accepted at the value shown (`.*`: a section's keys, "
        "at VeRL's defaults), refused at another.\n"
    )
    yield "| why | keys |\n|---|---|"
    table = key_table()
    reasons: dict[str, dict[str, None]] = {}
    for key, entry in table.absent.items():
        if not key.endswith("._target_"):  # Hydra's, in most of the sections
            reasons.setdefault(entry.reason, {})[_section_or_key(table, key)] = None
    for reason, keys in reasons.items():
        yield _row(reason, ", ".join(f"`{key}`" for key in keys))


def _section_or_key(table: KeyTable, key: str) -> str:
    """``section.*`` for the widest section around an absent key that is absent as a whole and for one reason, else ``key=value``."""
    parts = key.split(".")
    for end in range(1, len(parts)):
        prefix = ".".join(parts[:end]) + "."
        reasons = {entry.reason for other, entry in table.absent.items() if other.startswith(prefix) and not other.endswith("._target_")}
        if len(reasons) == 1 and not any(other.startswith(prefix) for other in table.implemented):
            return prefix + "*"
    return f"{key}={show(table.absent[key].usual)}"


if __name__ == "__main__":
    raise SystemExit(main())
