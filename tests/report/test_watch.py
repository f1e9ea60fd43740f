"""The served report: it follows the run, and answers to localhost alone."""

import http.client
import json
import socket
import threading

import pytest
from fake_runs import write_run

from ragen.report.watch import Watched, make_server


@pytest.fixture
def served(tmp_path):
    folder = write_run(tmp_path / "run", steps=20, tags=("TicTacToe",))
    server = make_server(Watched([str(folder)]), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, server
    server.shutdown()
    server.server_close()


def get(server, path, host=None):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"localhost:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_follows_the_run(served):
    folder, server = served
    status, page = get(server, "/")
    assert status == 200 and 'data-live="live"' in page and "connect-src &#x27;self&#x27;" in page
    version, first = json.loads(get(server, "/version")[1])["version"], get(server, "/payload")[1]
    assert get(server, "/payload")[1] == first
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": 21, "train/TicTacToe/success": 0.9}) + "\n")
    assert json.loads(get(server, "/version")[1])["version"] != version
    assert get(server, "/payload")[1] != first


def test_a_run_that_cannot_be_read_now_is_no_end(served):
    folder, server = served
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("broken\n" + text)
    status, said = get(server, "/payload")
    assert status == 503 and "line 1" in said
    (folder / "metrics.jsonl").write_text(text)
    assert get(server, "/payload")[0] == 200


def test_it_answers_to_localhost_alone(served):
    _, server = served
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", host="evil.example")[0] == 403
    assert get(server, "/../../etc/passwd")[0] == 404


def test_a_taken_port_is_named(served):
    folder, _ = served
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="give another with --port"):
            make_server(Watched([str(folder)]), taken.getsockname()[1])
