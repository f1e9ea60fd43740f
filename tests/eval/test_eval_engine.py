"""The laptop model through the engine: every script end to end, replies that do not hang on batch or chunk."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from ragen.eval import game_benchmarks, question_benchmarks
from ragen.eval.results import read_rows
from verl.workers.rollout.vllm_rollout import vllm_available

STARTER = Path(__file__).resolve().parents[2] / "assets" / "starter"
SCRIPTS = STARTER.parents[1] / "reason_test"


def model(output, *options, engine="hf"):
    return ["--model_path", str(STARTER), "--engine", engine, "--output", str(output), "--max_tokens", "12", *map(str, options)]


@pytest.mark.parametrize("main", ["main_lv3to5", "main_gsm8k", "main_mmlu", "main_mmlu_pro", "main_social", "main_common"])
def test_question_scripts_run_end_to_end(main, gift_data, tmp_path, monkeypatch):
    monkeypatch.setenv("GIFT_DATA", str(gift_data))
    result = getattr(question_benchmarks, main)(model(tmp_path, "--limit", 4, "--temperature", 0))
    counts = result["counts"]
    assert counts["questions"] == 4 and counts["answered"] + counts["too_long"] == 4  # each is accounted for
    assert result["scores"]["flexible"]["n"] == counts["answered"]
    rows = read_rows(tmp_path / f"{result['benchmark']}.json")
    assert sum(row["verdict"] == "too_long" for row in rows) == counts["too_long"]
    assert result["tokens"]["reply"] == sum(row["reply_tokens"] for row in rows) <= 4 * 12
    assert len(result["model"]["hash"]) == len(result["data"]["hash"]) == 64 and result["versions"]["torch"]


def test_a_prompt_too_long_is_counted_and_is_no_wrong_answer(tmp_path):
    rows = [{"problem": text, "answer": "1"} for text in ("short", "long " * 600)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = question_benchmarks.main_lv3to5(model(tmp_path / "out", "--data", tmp_path / "rows.jsonl", "--max_model_len", 512))
    assert (result["counts"]["too_long"], result["counts"]["answered"], result["scores"]["flexible"]["n"]) == (1, 1, 1)


@pytest.mark.parametrize("main", ["main_nash", "main_undercover", "main_tictactoe"])
def test_game_scripts_run_end_to_end(main, tmp_path):
    result = getattr(game_benchmarks, main)(model(tmp_path, "--games", 3))
    assert result["counts"]["played"] == 3 and result["tokens"]["prompt"] > 0


def test_a_checkpoint_may_be_the_opponent(tmp_path):
    entry = json.dumps({"type": "policy", "checkpoint": str(STARTER)})
    result = game_benchmarks.main_tictactoe(model(tmp_path, "--games", 4, "--opponent", entry, "--max_tokens", 32))
    assert result["counts"]["played"] + result["counts"]["aborted"] == 4
    assert {row["opponent"] for row in read_rows(tmp_path / "tictactoe.json")} == {"starter"}


def test_settings_of_a_training_run_are_taken_over_and_the_command_line_wins(tmp_path):
    from omegaconf import OmegaConf

    from ragen.trainer.config import compose

    OmegaConf.save(compose("_0_laptop", []), tmp_path / "config.yaml", resolve=True)
    options = ["--games", "2", "--config", str(tmp_path / "config.yaml"), "--temperature", "0.25"]
    result = game_benchmarks.main_tictactoe(
        ["--model_path", str(STARTER), "--engine", "hf", "--output", str(tmp_path / "out"), *options]
    )
    assert result["sampling"]["max_tokens"] == 32 and result["sampling"]["temperature"] == 0.25
    assert result["model"]["max_model_len"] == 512 and result["prompt"]["max_turn"] == 5


@pytest.mark.parametrize("main", ["main_tictactoe", "main_social"])
def test_a_model_that_always_thinks_is_not_asked_for_answers_alone(main, tmp_path, monkeypatch):
    """Its template opens every reply with a thought, unless it is told not to; a run's config.yaml tells it."""
    from omegaconf import OmegaConf

    from ragen.trainer.config import compose

    shutil.copytree(STARTER, tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    opens = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    template.write_text(template.read_text().removesuffix("{% endif %}") + opens + "{% endif %}")
    row = {"context": "It moved.", "question": "O or X?", "answerA": "O", "answerB": "X", "answerC": "-", "label": "1"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    data = ["--games", "1"] if main == "main_tictactoe" else ["--data", str(tmp_path / "rows.jsonl")]
    evaluate = {"main_tictactoe": game_benchmarks.main_tictactoe, "main_social": question_benchmarks.main_social}[main]
    common = ["--model_path", str(tmp_path / "model"), "--engine", "hf", "--max_tokens", "8", *data]
    with pytest.raises(ValueError, match="--chat_template_kwargs"):
        evaluate([*common, "--no-think", "--output", str(tmp_path / "a")])
    assert "chat_template_kwargs" not in evaluate([*common, "--output", str(tmp_path / "b")])["model"]
    told = evaluate([*common, "--no-think", "--chat_template_kwargs", '{"enable_thinking": false}', "--output", str(tmp_path / "c")])
    assert told["model"]["chat_template_kwargs"] == {"enable_thinking": False}
    run = compose("_0_laptop", ["data.apply_chat_template_kwargs={enable_thinking: false}", "agent_proxy.enable_think=false"])
    OmegaConf.save(run, tmp_path / "config.yaml", resolve=True)
    told = evaluate([*common, "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "d")])
    assert told["model"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_every_script_names_a_main_that_is_there():
    scripts = sorted(SCRIPTS.glob("*.py"))
    assert len(scripts) == 9
    for script in scripts:
        module, name = next(
            line.split("  #")[0].split(" import ")
            for line in script.read_text().splitlines()
            if line.startswith("from ragen.eval.") and "main" in line
        )
        assert callable(getattr(importlib.import_module(module.removeprefix("from ")), name)), script


@pytest.mark.skipif(not vllm_available(), reason="vLLM is not installed here")
def test_vllm_gives_the_same_replies_in_other_batches_and_in_a_run_that_was_killed(tmp_path, monkeypatch):
    from ragen.eval import load
    from ragen.eval.choice import SOCIAL, ChoiceBenchmark
    from ragen.eval.cli import Settings
    from ragen.eval.data import Rows
    from ragen.eval.prompts import Template
    from ragen.eval.questions import evaluate_questions

    rows = [
        {"context": f"Player {i} moved.", "question": "O or X?", "answerA": "O", "answerB": "X", "answerC": "-", "label": "1"}
        for i in range(90)
    ]
    bench = ChoiceBenchmark(SOCIAL, Rows(rows, {"hash": "made up"}), Template())

    def evaluate(name, chunk_size, temperature):
        settings = Settings(
            str(tmp_path / f"{name}.json"), model_path=str(STARTER), max_tokens=24, chunk_size=chunk_size, temperature=temperature
        )
        evaluate_questions(bench, settings, replier)
        return read_rows(tmp_path / f"{name}.json")

    replier = load.make_replier(Settings("unused", model_path=str(STARTER), max_model_len=512))
    try:
        greedy, small = evaluate("greedy", 512, 0.0), evaluate("small", 7, 0.0)
        assert sum(a["reply"] == b["reply"] for a, b in zip(greedy, small, strict=True)) / 90 >= 0.999

        whole, new_chunk, begun = evaluate("whole", 40, 1.0), replier.new_chunk, []

        def killed():
            begun.append(1)
            if len(begun) == 2:
                raise KeyboardInterrupt
            new_chunk()

        monkeypatch.setattr(replier, "new_chunk", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate("cut", 40, 1.0)
        assert evaluate("cut", 40, 1.0) == whole  # sampled: each request has a seed of its own
        assert len({row["reply"] for row in whole}) > 1
    finally:
        replier.close()
