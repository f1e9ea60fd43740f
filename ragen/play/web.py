"""The table on a page of localhost. Games are played in the main thread, the server answers beside it.

The page is the report's style and drawings with a script of its own; it makes elements and text nodes
alone, so nothing that a model or a game writes is ever read as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import re
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import ragen.report
from ragen.play.game import Move, Result, Stopped, Table
from ragen.players.base import SeatView

log = logging.getLogger(__name__)

_OWN = Path(__file__).with_name("static")
_REPORT = Path(ragen.report.__file__).with_name("static")
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_WAIT_S = 20.0  # how long a question of the page is held open while nothing happens
_LONGEST = 20_000  # characters of an answer


class WebTable(Table):
    """What the page shows and the person answers; thread-safe. ``version`` grows with every change."""

    def __init__(self, show_thoughts: bool = False):
        self._show_thoughts = show_thoughts
        self._changed = threading.Condition()
        self._version, self._game = 0, 0
        self._moves: list[dict] = []
        self._question: dict | None = None
        self._answer: str | None = None
        self._result: dict | None = None
        self._new = False

    # -- the game's side --------------------------------------------------------------------------

    def ask(self, view: SeatView) -> str:
        with self._changed:
            self._question = {
                "number": self._version + 1, "seat": view.seat, "rules": view.rules, "observation": view.observation,
                "feedback": view.feedback if view.attempt else "", "public": _plain(view.public), "legal": view.legal,
            }  # fmt: skip
            self._answer = None
            self._tell()
            self._changed.wait_for(lambda: self._answer is not None or self._new)
            self._question = None
            if self._new:
                raise Stopped
            return self._answer

    def moved(self, move: Move) -> None:
        shown = asdict(move) | ({} if self._show_thoughts else {"thought": ""})
        with self._changed:
            self._moves.append(shown)
            self._tell()

    def over(self, result: Result) -> None:
        thoughts = [{"answer": move.answer, "thought": move.thought} for move in result.thoughts]
        with self._changed:
            self._result = {"sentence": result.sentence, "last": result.last, "public": _plain(result.public)}
            self._result["thoughts"] = thoughts
            self._tell()

    def wait_for_new(self) -> None:
        """Until the person asks for another game."""
        with self._changed:
            self._changed.wait_for(lambda: self._new)

    def clear(self) -> None:
        """An empty table for the next game."""
        with self._changed:
            self._moves, self._question, self._result, self._new = [], None, None, False
            self._game += 1
            self._tell()

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()

    # -- the page's side --------------------------------------------------------------------------

    def state(self, known: int) -> dict:
        """All there is to show, as soon as it is newer than version ``known``."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > known, timeout=_WAIT_S)
            return {
                "version": self._version, "game": self._game, "moves": list(self._moves),
                "question": self._question, "result": self._result,
            }  # fmt: skip

    def answer(self, number: object, text: object) -> bool:
        """Take the answer to question ``number``; ``False`` if that is not what is asked now."""
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
            return False
        with self._changed:
            if self._question is None or self._question["number"] != number or self._answer is not None:
                return False
            self._answer = text.strip()
            self._changed.notify_all()
            return True

    def new_game(self) -> None:
        with self._changed:
            self._new = True
            self._changed.notify_all()


def _plain(value: object) -> object:
    """A structured position as JSON knows it; ``None`` for one that JSON does not."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def build_page(title: str) -> str:
    """The page of one game; its texts come later, as JSON."""
    scripts = (_REPORT / "dom.js", _REPORT / "boards.js", _OWN / "play.js")
    script = "'use strict';\n(() => {\n" + "\n".join(path.read_text("utf-8") for path in scripts) + "\n})();"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (_OWN / "page.html").read_text("utf-8")
    style = (_REPORT / "style.css").read_text("utf-8") + (_OWN / "play.css").read_text("utf-8")
    parts = {"TITLE": html.escape(title), "POLICY": html.escape(policy), "STYLE": style, "SCRIPT": script}
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], page)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer

    def do_GET(self) -> None:
        if not self._from_here():
            return
        where = urlsplit(self.path)
        if where.path == "/":
            return self._send(200, "text/html", self.server.page)
        if where.path == "/state":
            known = parse_qs(where.query).get("known", ["0"])[0]
            return self._json(self.server.table.state(int(known) if known.isdecimal() else 0))
        return self._send(404, "text/plain", "there is / alone")

    def do_POST(self) -> None:
        # JSON alone: a form of another site cannot send it without the browser asking us first
        if not self._from_here() or self.headers.get_content_type() != "application/json":
            return self._send(403, "text/plain", "only the page of this server may play")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > 4 * _LONGEST:
            return self._send(413, "text/plain", "too long")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return self._send(400, "text/plain", "not a JSON object")
        if self.path == "/new":
            self.server.table.new_game()
            return self._json({"taken": True})
        if self.path == "/answer":
            return self._json({"taken": self.server.table.answer(asked.get("number"), asked.get("text"))})
        return self._send(404, "text/plain", "there is /answer and /new")

    def _from_here(self) -> bool:
        """A page of another site could reach localhost under a name of its own: answer to ours alone."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host.rsplit(":", 1)[0] in _HOSTS and origin in (None, f"http://{host}"):
            return True
        if self.command == "GET":
            self._send(403, "text/plain", "ragen.play answers to localhost alone")
        return False

    def _json(self, value: object) -> None:
        self._send(200, "application/json", json.dumps(value))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("the browser went away")

    def log_message(self, format: str, *args) -> None:
        log.debug(format, *args)


class PlayServer(ThreadingHTTPServer):
    """Serves one table on localhost. Raises ``OSError`` with the remedy where the port is taken."""

    daemon_threads = True

    def __init__(self, table: WebTable, title: str, port: int):
        self.table, self.page = table, build_page(title)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as fault:
            told = f"port {port} of localhost cannot be served ({fault.strerror}): give another with --serve, or 0 for any"
            raise OSError(told) from fault
