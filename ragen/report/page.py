"""One HTML file that holds everything: the plotting library, the runs, the episodes.

Nothing is loaded from outside, and a content security policy in the page says so to the browser:
only the page's own two scripts (by their hashes) may run, and nothing may be fetched. Data travel as
gzip in base64, so no text of a model or an env is ever parsed as HTML; scripts put it on the page as
text nodes alone.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from ragen.report.episodes import Card, choose, index_run, page_row, read_rows
from ragen.report.headline import Headline, Telling, headline
from ragen.report.runs import Run
from ragen.report.warnings import number

log = logging.getLogger(__name__)

_STATIC = Path(__file__).with_name("static")
#: scripts in the order they are put together
_SCRIPTS = ("dom", "series", "charts", "boards", "tokens", "conversation", "episodes", "headline", "main")
#: episodes a page carries, and what their packed text may weigh (bytes of base64), over all runs
MAX_EPISODES, MAX_EPISODE_BYTES = 3_000, 9_000_000


def build_page(runs: Sequence[Run], *, live: bool = False, title: str = "", **options) -> str:
    """The report of ``runs`` as HTML. ``live``: the page asks its server (``watch``) for news.
    ``options``: as of :func:`build_payload`."""
    payload = build_payload(runs, title=title, **options)
    blobs = [_blob("data", payload["data"])] + [_blob(name, text) for name, text in payload["chunks"].items()]
    script = "'use strict';\n(() => {\n" + "\n".join((_STATIC / f"{name}.js").read_text("utf-8") for name in _SCRIPTS) + "\n})();"
    plotly = _plotly()
    policy = (
        f"default-src 'none'; script-src {_csp_hash(script)} {_csp_hash(plotly)}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "TITLE": html.escape(title or page_title(runs)),
        "POLICY": html.escape(policy, quote=True),
        "LIVE": "live" if live else "",
        "STYLE": (_STATIC / "style.css").read_text("utf-8"),
        "BLOBS": "\n".join([_plotly_blob(), *blobs]),
        "SCRIPT": script,
    }
    page = (_STATIC / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], page)  # one pass: what is put in is not looked at again


def page_title(runs: Sequence[Run]) -> str:
    return " · ".join(dict.fromkeys(run.group for run in runs))


def write_report(runs: Sequence[Run], out: Path, **options) -> Path:
    """Write the page to ``out``, whole or not at all."""
    page = build_page(runs, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".part")
    beside.write_text(page, encoding="utf-8")
    beside.replace(out)
    return out


# -- data ---------------------------------------------------------------------------------------


def build_payload(runs: Sequence[Run], *, title: str = "", max_episodes: int = MAX_EPISODES, version: str = "") -> dict:
    """``{"data": packed, "chunks": {name: packed}}``: what the page's scripts read. A chunk holds the
    episodes of one file and is unpacked when one of them is opened. ``version`` names this state of
    the runs (``watch``)."""
    cards = [index_run(run) for run in runs]
    heads = [headline(run, mine) for run, mine in zip(runs, cards, strict=True)]
    told = [[card for t in head.telling for card in t.cards] for head in heads]
    limit = max_episodes // max(1, len(runs))
    chosen, chunks = _fit(cards, told, limit)
    where = {card: i for i, card in enumerate(c for mine in chosen for c in mine)}
    names = {name: i for i, name in enumerate(chunks)}
    data = {
        "title": title or page_title(runs),
        "version": version,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": [_run_data(run, head) for run, head in zip(runs, heads, strict=True)],
        "groups": [{"name": g, "runs": [i for i, r in enumerate(runs) if r.group == g]} for g in dict.fromkeys(r.group for r in runs)],
        "episodes": _index(chosen, names),
        "sampling": {"shown": len(where), "of": sum(map(len, cards)), "folders": [f"{run.folder.name}/trajectories" for run in runs]},
        "telling": [{"run": i, **_telling(t, where)} for i, head in enumerate(heads) for t in head.telling],
    }
    return {"data": _pack(_json(data)), "chunks": chunks}


def _fit(cards: list[list[Card]], told: list[list[Card]], limit: int) -> tuple[list[list[Card]], dict[str, str]]:
    """The chosen episodes of each run and their chunks, fewer until they fit."""
    while True:
        chosen = [choose(mine, limit, keep) for mine, keep in zip(cards, told, strict=True)]
        chunks = {}
        for i, mine in enumerate(chosen):
            for path in dict.fromkeys(card.path for card in mine):
                rows = [page_row(row) for row in read_rows([c for c in mine if c.path == path])]
                chunks[_chunk_name(i, path)] = _pack(_json(rows))
        weight = sum(map(len, chunks.values()))
        if weight <= MAX_EPISODE_BYTES or limit <= 1:
            return chosen, chunks
        log.info("%d episodes weigh %.1f MB: taking fewer", sum(map(len, chosen)), weight / 1e6)
        limit = min(limit - 1, int(limit * 0.9 * MAX_EPISODE_BYTES / weight))


def _chunk_name(run: int, path: Path) -> str:
    return f"episodes-{run}-{path.stem}"


def _index(chosen: list[list[Card]], chunks: dict[str, int]) -> dict[str, list]:
    """Columns, one entry an episode; ``chunk`` and ``row`` say where its text is."""
    columns: dict[str, list] = {name: [] for name in ("run", "chunk", "row")}
    fields = ("step", "phase", "tag", "opponent", "role", "group", "member", "outcome", "reward", "turns", "refused", "tokens", "kept", "agent")
    columns |= {name: [] for name in fields}
    for i, mine in enumerate(chosen):
        rows: dict[Path, int] = {}
        for card in mine:
            columns["run"].append(i)
            columns["chunk"].append(chunks[_chunk_name(i, card.path)])
            columns["row"].append(rows.setdefault(card.path, 0))
            rows[card.path] += 1
            for name in fields:
                columns[name].append(getattr(card, name))
    return {"chunks": list(chunks), **columns}


def _run_data(run: Run, head: Headline) -> dict:
    keys = dict.fromkeys(key for row in run.metrics for key in row if key != "step")
    metrics = {key: [_round(number(row, key)) for row in run.metrics] for key in keys}
    return {
        "name": run.name, "group": run.group, "folder": run.folder.name,
        "config": {key: json.dumps(value, default=str) if not isinstance(value, str) else value for key, value in run.config.items()},
        "steps": [row["step"] for row in run.metrics],
        "metrics": {key: values for key, values in metrics.items() if any(v is not None for v in values)},
        "sentence": head.sentence, "doubt": head.doubt, "results": [{**asdict(r), "verdict": r.verdict} for r in head.results], "cost": asdict(head.cost),
        "warnings": [asdict(w) for w in head.warnings],
    }  # fmt: skip


def _telling(telling: Telling, where: dict[Card, int]) -> dict:
    return {"title": telling.title, "why": telling.why, "view": telling.view, "episodes": [where[card] for card in telling.cards]}


def _round(value: float | None) -> float | None:
    """Six significant digits; what is not finite is a gap (the warnings name it)."""
    if value is None or value != value or abs(value) == float("inf"):
        return None
    return float(f"{value:.6g}")


# -- packing ------------------------------------------------------------------------------------


def _json(value: object) -> str:
    """JSON that browsers read: numbers that are not finite become null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)).decode("ascii")


def _blob(name: str, packed: str) -> str:
    return f'<script type="text/plain" id="blob-{html.escape(name, quote=True)}">{packed}</script>'


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


@lru_cache(maxsize=1)
def _plotly_blob() -> str:
    return _blob("plotly", _pack(_plotly()))


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # on first use: the import takes a while

    return get_plotlyjs().replace("\r\n", "\n")  # a browser reads one newline either way, and the hash must match
