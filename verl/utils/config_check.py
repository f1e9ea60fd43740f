"""Checks a configuration against a table of keys before anything is started.

Keys fall in three classes. *Implemented* ones have a :class:`Field` that says what they take.
*Absent* ones are known (VeRL or RAGEN documents them) and have no effect here: at their usual value
they are accepted with a warning, at any other they are refused with the reason. All the rest are
*unknown* and refused with the nearest known name, so that a misspelt ``+key`` never goes unnoticed.

Every fault is collected, then raised at once as one :class:`ConfigError`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot run. ``problems``: one sentence each, with key, value and remedy."""

    def __init__(self, problems: Iterable[str]):
        self.problems = tuple(problems)
        super().__init__("\n".join(["the configuration cannot run:"] + [f"  - {p}" for p in self.problems]))


@dataclass(frozen=True)
class Field:
    """What a key takes: ``expects`` in words (completes "must be ..."), ``accepts`` as a test."""

    expects: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Absent:
    """A known key that is not implemented: ``usual`` (and what is in ``also``) is accepted, anything else is
    not, ``reason`` says why."""

    usual: Any
    reason: str
    also: tuple[Any, ...] = ()


# -- fields -----------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(
    *, low: float | None = None, high: float | None = None, above: float | None = None, below: float | None = None
) -> Field:
    """A finite number, ``low <= x <= high`` and ``above < x < below`` where given."""
    limits = [(low, ">="), (above, ">"), (high, "<="), (below, "<")]
    words = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if limit is not None)

    def accepts(value: Any) -> bool:
        return (
            _is_number(value)
            and (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return Field(f"a number {words}".strip(), accepts)


def integer(*, low: int | None = None, also: tuple[int, ...] = ()) -> Field:
    """A whole number of at least ``low``, or one of ``also`` (such as -1 for "no limit")."""
    words = ("a whole number" + (f" >= {low}" if low is not None else "")) + "".join(f" or {v}" for v in also)
    return Field(
        words,
        lambda v: isinstance(v, int) and not isinstance(v, bool) and (low is None or v >= low or v in also),
    )


def boolean() -> Field:
    return Field("true or false", lambda v: isinstance(v, bool))


def text() -> Field:
    return Field("a non-empty string", lambda v: isinstance(v, str) and bool(v))


def choice(*names: str) -> Field:
    return Field("one of " + ", ".join(map(str, names)), lambda v: v in names and isinstance(v, str))


def registered(names: Iterable[str], registry: Mapping[str, Any], by: str) -> Field:
    """One of ``names``, or what stands in ``registry`` by then; ``by``: the key whose modules add to it."""
    known = tuple(names)
    words = f"one of {', '.join(known)}, or one that a module of {by} registers"
    return Field(words, lambda v: isinstance(v, str) and (v in known or v in registry))


def mapping() -> Field:
    """A section whose keys are checked elsewhere."""
    return Field("a section of keys", lambda v: isinstance(v, Mapping))


def optional(inner: Field) -> Field:
    return Field(f"{inner.expects}, or null", lambda v: v is None or inner.accepts(v))


def either(*inner: Field) -> Field:
    return Field(", or ".join(f.expects for f in inner), lambda v: any(f.accepts(v) for f in inner))


def one_or_more(value: Any) -> list:
    """The values of a key that takes a list or a single one."""
    return [value] if isinstance(value, str) else list(value)


def list_of(inner: Field, *, length: int | None = None) -> Field:
    size = "" if length is None else f"{length} values, "
    return Field(
        f"a list ({size}each {inner.expects})",
        lambda v: isinstance(v, (list, tuple)) and (length is None or len(v) == length) and all(map(inner.accepts, v)),
    )


# -- the walk ---------------------------------------------------------------------------------


@dataclass
class Report:
    """``problems`` stop a run, ``warnings`` are told."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def raise_if_wrong(self) -> None:
        if self.problems:
            raise ConfigError(self.problems)


class KeyTable:
    """The known keys. Paths are dotted; a part ``*`` stands for any one name (``custom_envs.*.env_type``)."""

    def __init__(self, implemented: Mapping[str, Field], absent: Mapping[str, Absent]):
        both = sorted(set(implemented) & set(absent))
        if both:
            raise ValueError(f"keys both implemented and absent: {', '.join(both)}")
        self.implemented = dict(implemented)
        self.absent = dict(absent)
        self._words = {word for path in (*implemented, *absent) for word in re.split(r"[._]", path)}
        self._tree: dict[str, Any] = {}
        for path, entry in {**self.implemented, **self.absent}.items():
            *parents, leaf = path.split(".")
            node = self._tree
            for part in parents:
                node = node.setdefault(part, {})
                if not isinstance(node, dict):
                    raise ValueError(f"{path}: {part} is a key of its own, it cannot have keys below")
            node[leaf] = entry

    def check(self, config: Mapping[str, Any]) -> Report:
        """Walk a plain (resolved) configuration. Every implemented key must be there, but for those under a ``*``."""
        report = Report()
        self._walk(config, self._tree, "", report)
        return report

    def _walk(
        self, section: Mapping[str, Any], tree: dict[str, Any], prefix: str, report: Report, all_needed: bool = True
    ) -> None:
        for name, value in section.items():
            path = f"{prefix}{name}"
            entry = tree.get(str(name), tree.get("*"))
            if entry is None:
                near = self._nearest(path, tree, prefix, is_section=isinstance(value, Mapping))
                report.problems.append(f"{path} is not a key" + (f"; did you mean {near}?" if near else ""))
            elif isinstance(entry, Field):
                if not entry.accepts(value):
                    report.problems.append(describe(path, value, entry.expects))
            elif isinstance(entry, Absent):
                self._check_absent(path, value, entry, report)
            elif isinstance(value, Mapping):
                self._walk(value, entry, path + ".", report, all_needed=all_needed and str(name) in tree)
            else:
                report.problems.append(describe(path, value, f"a section with the keys {', '.join(sorted(entry))}"))
        for name, entry in tree.items():
            if all_needed and name != "*" and name not in section and _has_field(entry):
                report.problems.append(f"{prefix}{name} is missing from the configuration; restore it")

    @staticmethod
    def _check_absent(path: str, value: Any, entry: Absent, report: Report) -> None:
        if value == entry.usual or value in entry.also:
            report.warnings.append(f"{path} = {show(value)} has no effect here: {entry.reason}")
        else:
            report.problems.append(
                f"{path} = {show(value)} is not implemented: {entry.reason}. Leave it out (or at {show(entry.usual)})"
            )

    def _nearest(self, path: str, tree: dict[str, Any], prefix: str, is_section: bool) -> str | None:
        """The key that ``path`` is a misspelling of, beside it or else in the same part of the config; or the key of the same name in
        another section; or ``None``.

        A name whose words are all known ones is no misspelling: ``max_critic_ckpt_to_keep`` is not ``max_actor_ckpt_to_keep``,
        and naming a key of another meaning misleads more than naming none.
        """
        leaf = path.rpartition(".")[2]
        beside = [f"{prefix}{name}" for name, entry in tree.items() if name != "*" and isinstance(entry, dict) == is_section]
        near = self._misspelt(leaf, beside)
        if near or is_section:
            return near
        part = path.partition(".")[0] + "." if prefix else ""
        known = [key for key in self.implemented if key.startswith(part) and "*" not in key]
        same = [key for key in known if key.endswith("." + leaf)]
        sure = [key for key in same if "_" in leaf or key.startswith(prefix)]  # any section may have a seed of its own
        return sure[0] if sure else self._misspelt(leaf, [key for key in known if key not in same])

    def _misspelt(self, leaf: str, candidates: Iterable[str]) -> str | None:
        """The path among ``candidates`` whose last name ``leaf`` was most likely meant to be."""
        names = [(path, path.rpartition(".")[2]) for path in candidates]
        found = [(_likeness(leaf, name), path) for path, name in names if self._alike(leaf, name)]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _alike(self, leaf: str, name: str) -> bool:
        """Whether ``leaf`` is ``name`` with words misspelt or in another order, or broken off within a word."""
        given, wanted = leaf.split("_"), name.split("_")
        if sorted(given) == sorted(wanted) or ("_" in leaf and name.startswith(leaf) and name[len(leaf) :][:1].isalpha()):
            return True
        odd, left = [word for word in given if word not in wanted], [word for word in wanted if word not in given]
        if not odd or any(word in self._words for word in odd):
            return False
        return _likeness(leaf, name) >= 0.65 and all(difflib.get_close_matches(word, left, n=1, cutoff=0.6) for word in odd)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _has_field(entry: Any) -> bool:
    if isinstance(entry, dict):
        return any(_has_field(v) for name, v in entry.items() if name != "*")
    return isinstance(entry, Field)


def show(value: Any) -> str:
    """A value as YAML would write it on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value else repr(value)


def describe(path: str, value: Any, expects: str) -> str:
    """The sentence for a wrong value."""
    if value == "???":
        return f"{path} is not set: it must be {expects}"
    return f"{path} = {show(value)}: must be {expects}"
