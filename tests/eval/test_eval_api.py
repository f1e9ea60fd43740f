"""A served model in the place of a local one, over a real local server."""

import json

import pytest

from ragen.eval import game_benchmarks, question_benchmarks
from ragen.eval.results import read_rows
from tests.ragen.chat_server import ChatServer


def social(tmp_path, count):
    rows = [
        {"context": "c", "question": f"{i}", "answerA": "x", "answerB": "y", "answerC": "z", "label": "1"} for i in range(count)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--data", str(tmp_path / "rows.jsonl")]


def base(server):
    return f"http://localhost:{server.port}/v1"


def served(server, *options):
    return ["--api", "some-model", "--base_url", base(server), "--retries", "1", "--timeout_s", "20", *map(str, options)]


def test_thoughts_are_part_of_the_reply_and_tokens_are_the_servers(tmp_path):
    text = "<think>hm</think><answer>A</answer>"
    with ChatServer(
        lambda n, body: {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    ) as server:
        result = question_benchmarks.main_social([*social(tmp_path, 6), *served(server, "--output", tmp_path / "out")])
    assert result["scores"]["strict"]["value"] == 1
    assert result["tokens"] == {"prompt": 42, "reply": 18}
    assert result["model"] == {"kind": "api", "name": "some-model", "url": f"{base(server)}/chat/completions"}
    sent = server.requests[0]
    assert sent["messages"][0]["role"] == "system" and sent["max_tokens"] == 600 and sent["temperature"] == 0.5
    assert len({request["seed"] for request in server.requests}) == 6


def test_a_call_that_fails_is_counted_as_failed_and_not_as_wrong(tmp_path):
    def behave(n, body):
        return 500 if "\n2\n" in body["messages"][-1]["content"] else "<think></think><answer>A</answer>"

    with ChatServer(behave) as server:
        result = question_benchmarks.main_social([*social(tmp_path, 4), *served(server, "--output", tmp_path / "out")])
    assert result["counts"]["failed"] == 1 and result["scores"]["flexible"] == {
        **result["scores"]["flexible"],
        "value": 1.0,
        "n": 3,
    }
    assert "500" in next(row["error"] for row in read_rows(tmp_path / "out" / "social_i_qa.json") if row["verdict"] == "failed")


@pytest.mark.parametrize("apart", [True, False])
def test_games_against_a_served_model_in_the_trained_seat(tmp_path, apart):
    """It always takes the first free cell it sees. Its thoughts come apart from its answer, or before it, without
    the opening tag that the server's template wrote."""

    def behave(n, body):
        board = body["messages"][-1]["content"].split("Reply as")[-1]
        cell = next(f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in board)
        answer = f"<answer>{cell}</answer>"
        message = {"reasoning_content": "hm", "content": answer} if apart else {"content": f"hm\n</think>\n{answer}"}
        return {"choices": [{"message": message}]}

    with ChatServer(behave) as server:
        result = game_benchmarks.main_tictactoe(
            ["--games", "12", "--opponent", "random", *served(server, "--output", tmp_path / "g.json")]
        )
        assert result["counts"]["played"] == 12 and result["scores"]["invalid"]["value"] == 0
        longest = max(server.requests, key=lambda body: len(body["messages"]))
    assert [m["role"] for m in longest["messages"][:4]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]  # the whole conversation each turn


def test_a_dead_server_aborts_games_and_loses_none(tmp_path):
    with ChatServer(lambda n, body: 500) as server:
        options = ["--games", "3", "--opponent", "random", *served(server, "--output", tmp_path / "g.json")]
        result = game_benchmarks.main_tictactoe(options)
    assert result["counts"] == {**result["counts"], "games": 3, "played": 0, "aborted": 3}
    assert result["scores"]["loss"]["value"] is None


def test_where_the_server_is_must_be_said(tmp_path):
    with pytest.raises(ValueError, match="exactly one of port, base_url and provider"):
        question_benchmarks.main_social([*social(tmp_path, 1), "--api", "m", "--output", str(tmp_path / "out")])


def test_commongen_is_judged_by_a_served_model(tmp_path):
    row = {"id": "1", "concept_set": ["dog", "run"], "human_annotations": ["A dog runs."]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with ChatServer(lambda n, body: "<answer>tie</answer>") as server:
        entry = json.dumps({"model_name": "judge", "base_url": base(server)})
        options = [
            "--data",
            str(tmp_path / "rows.jsonl"),
            "--scripted",
            "perfect",
            "--judge",
            entry,
            "--output",
            str(tmp_path / "out"),
        ]
        result = question_benchmarks.main_common(options)
    assert result["scores"]["win_or_tie"]["value"] == 1 and result["prompt"]["judge"]["model"] == "judge"
    assert server.requests[0]["temperature"] == 0.0
