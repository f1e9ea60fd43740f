"""The report of a run that goes on, served on localhost and refreshed as steps come in."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from ragen.report.page import build_page, build_payload
from ragen.report.runs import METRICS, Run, load_runs

log = logging.getLogger(__name__)

_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Watched:
    """The runs of a watch and what was last made of them; thread-safe. A page is built only when
    one is asked for and a run has changed."""

    def __init__(self, arguments: Sequence[str], *, grouping: str = "seed", **options):
        self.arguments, self.grouping, self.options = list(arguments), grouping, options
        self._lock, self._made = threading.Lock(), {}
        self._files = [run.folder / METRICS for run in self._runs()]

    def _runs(self) -> list[Run]:
        return load_runs(self.arguments, self.grouping)

    def version(self) -> str:
        """Changes when a run has logged a step."""
        return " ".join(f"{stat.st_size}.{stat.st_mtime_ns}" for stat in (path.stat() for path in self._files))

    def page(self) -> str:
        return self._make("page", lambda version: build_page(self._runs(), live=True, version=version, **self.options))

    def payload(self) -> str:
        return self._make("payload", lambda version: json.dumps(build_payload(self._runs(), version=version, **self.options)))

    def _make(self, what: str, build) -> str:
        with self._lock:
            version = self.version()
            if self._made.get(what, ("",))[0] != version:
                self._made[what] = (version, build(version))
            return self._made[what][1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        # a page of another site could reach localhost under a name of its own: answer to ours alone
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in _HOSTS:
            return self._send(403, "text/plain", "ragen.report watch answers to localhost alone")
        path = urlsplit(self.path).path
        try:
            if path == "/":
                return self._send(200, "text/html", self.server.watched.page())
            if path == "/version":
                return self._send(200, "application/json", json.dumps({"version": self.server.watched.version()}))
            if path == "/payload":
                return self._send(200, "application/json", self.server.watched.payload())
        except (ValueError, OSError) as fault:  # a file half written, a folder gone: the next question may find it well
            log.warning("report of %s: %s", self.server.watched.arguments, fault)
            return self._send(503, "text/plain", f"not readable now: {fault}")
        return self._send(404, "text/plain", "there is / alone")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            log.debug("the browser went away")

    def log_message(self, format: str, *args) -> None:
        log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    watched: Watched


def make_server(watched: Watched, port: int) -> _Server:
    """A server on localhost, not yet serving. Raises ``OSError`` with the remedy when the port is taken."""
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as fault:
        raise OSError(f"port {port} of localhost cannot be served ({fault.strerror}): give another with --port, or 0 for any") from fault
    server.watched = watched
    return server


def serve(arguments: Sequence[str], *, port: int, **options) -> int:
    """Serve until interrupted."""
    server = make_server(Watched(arguments, **options), port)
    print(f"http://localhost:{server.server_address[1]}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0
