"""The question core: chance and perfection on the real data, what is invalid or cannot be asked, samples, resuming."""

import json
import statistics

import pytest
from fake_model import FunctionReplier

from ragen.eval.choice import MMLU, MMLU_PRO, SOCIAL, ChoiceBenchmark
from ragen.eval.cli import Settings
from ragen.eval.commongen import SOURCE, CommonGenBenchmark
from ragen.eval.data import Rows, load_rows
from ragen.eval.maths import GSM8K, MATH500, SIMPLERL, MathBenchmark
from ragen.eval.prompts import Template
from ragen.eval.questions import Answer, evaluate_questions
from ragen.eval.repliers import ScriptedReplier
from ragen.eval.results import read_rows
from ragen.eval.text_chat import TextChat


def scripted(bench, name, output, limit=None):
    return evaluate_questions(bench, Settings(str(output), scripted=name, limit=limit), ScriptedReplier(name, TextChat()))


def mmlu(count, **template):
    rows = [{"question": f"{i}?", "subject": f"s{i % 2}", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(count)]
    return ChoiceBenchmark(MMLU, Rows(rows, {"hash": "made up"}), Template(**template))


@pytest.mark.parametrize("kind", [MMLU, MMLU_PRO, SOCIAL], ids=lambda kind: kind.name)
@pytest.mark.parametrize("template", ["train", "usual"])
def test_multiple_choice_chance_and_perfection(kind, template, gift_data, tmp_path):
    bench = ChoiceBenchmark(kind, load_rows(str(gift_data / kind.source.file), kind.source), Template(template))
    chance = statistics.mean(1 / len(q.details["choices"]) for q in bench.questions)
    result = scripted(bench, "random", tmp_path / "random.json")
    for name in ("strict", "flexible"):
        assert result["scores"][name]["low"] <= chance <= result["scores"][name]["high"]
    assert (
        result["counts"]["questions"] == len(bench.questions)
        and result["counts"]["invalid"] == result["counts"]["off_format"] == 0
    )
    perfect = scripted(bench, "perfect", tmp_path / "perfect.json")["scores"]
    assert perfect["strict"]["value"] == perfect["flexible"]["value"] == 1


@pytest.mark.parametrize("kind", [MATH500, SIMPLERL, GSM8K], ids=lambda kind: kind.name)
def test_maths_chance_and_perfection(kind, gift_data, tmp_path):
    bench = MathBenchmark(kind, load_rows(str(gift_data / kind.source.file), kind.source), Template("usual"))
    assert scripted(bench, "perfect", tmp_path / "perfect.json")["scores"]["flexible"]["value"] == 1
    if kind is GSM8K:  # golds are plain numbers: the chance of a random digit can be counted
        chance = statistics.mean(0.1 * (q.gold in set("0123456789")) for q in bench.questions)
        flexible = scripted(bench, "random", tmp_path / "random.json")["scores"]["flexible"]
        assert flexible["low"] <= chance <= flexible["high"]


def test_commongen_chance_and_perfection(gift_data, tmp_path):
    bench = CommonGenBenchmark(load_rows(str(gift_data / SOURCE.file), SOURCE), Template())
    scores = scripted(bench, "random", tmp_path / "random.json")["scores"]
    assert scores["coverage"]["low"] <= 0.5 <= scores["coverage"]["high"]
    all_there = statistics.mean(0.5 ** len(q.gold) for q in bench.questions)
    assert scores["flexible"]["low"] <= all_there <= scores["flexible"]["high"]
    perfect = scripted(bench, "perfect", tmp_path / "perfect.json")["scores"]
    assert perfect["coverage"]["value"] == perfect["strict"]["value"] == 1


def test_what_is_invalid_off_format_too_long_or_failed_is_counted_as_such(tmp_path):
    answers = [
        "<think></think><answer>A</answer>",
        "The answer is B",
        "no idea",
        Answer(status="too_long"),
        Answer(status="failed", error="x"),
    ]
    bench = mmlu(5)
    result = evaluate_questions(bench, Settings(str(tmp_path)), FunctionReplier(lambda r: answers[int(r.question.id)]))
    counts, scores = result["counts"], result["scores"]
    assert {k: counts[k] for k in ("questions", "answered", "too_long", "failed", "invalid", "off_format")} == {
        "questions": 5, "answered": 3, "too_long": 1, "failed": 1, "invalid": 1, "off_format": 2,
    }  # fmt: skip
    assert (scores["strict"]["value"], scores["flexible"]["value"]) == pytest.approx((1 / 3, 2 / 3))
    assert scores["flexible"]["n"] == 3  # what could not be asked is no wrong answer
    assert [row["verdict"] for row in read_rows(tmp_path / "mmlu.json")] == [
        "correct",
        "correct",
        "invalid",
        "too_long",
        "failed",
    ]
    assert set(result["by_category"]["subject"]) == {"s0", "s1"}
    assert "##### invalid: 1 in all" in (tmp_path / "mmlu.samples.txt").read_text()
    assert result["tokens"] == {"prompt": 30, "reply": sum(len(a) for a in answers[:3])}


def test_several_samples_give_mean_majority_and_pass_at_k(tmp_path):
    said = {"0": "AAB", "1": "ABB", "2": "CCC", "3": "DDD"}  # right: A, B, C, D
    reply = FunctionReplier(lambda r: f"<think></think><answer>{said[r.question.id][r.sample]}</answer>")
    result = evaluate_questions(mmlu(4), Settings(str(tmp_path)), reply, samples=3)
    scores = result["scores"]
    assert scores["flexible"]["value"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 1) / 4)
    assert scores["pass@1"]["value"] == pytest.approx(scores["flexible"]["value"])
    assert scores["pass@2"]["value"] == scores["majority"]["value"] == 1 and "pass@4" not in scores
    assert len(read_rows(tmp_path / "mmlu.json")) == 12


def test_a_killed_run_goes_on_and_ends_as_one_never_killed(tmp_path):
    def answer(request):
        return f"<think></think><answer>{'ABCD'[request.seed % 4]}</answer>"

    def kill(number):
        if number == 3:
            raise KeyboardInterrupt

    whole = evaluate_questions(mmlu(50), Settings(str(tmp_path / "whole"), chunk_size=12), FunctionReplier(answer), samples=2)
    killed = FunctionReplier(answer, kill)
    settings = Settings(str(tmp_path / "cut"), chunk_size=12)
    with pytest.raises(KeyboardInterrupt):
        evaluate_questions(mmlu(50), settings, killed, samples=2)
    resumed = FunctionReplier(answer)
    result = evaluate_questions(mmlu(50), settings, resumed, samples=2)
    assert resumed.chunks == 5 - 2
    assert {**result, "seconds": 0} == {**whole, "seconds": 0}
    for name in ("mmlu.rows.jsonl", "mmlu.samples.txt"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    evaluate_questions(mmlu(50), settings, resumed, samples=2)
    assert resumed.chunks == 3  # a finished one is not evaluated again


def test_another_seed_or_other_data_is_another_run(tmp_path):
    replier = FunctionReplier(lambda r: str(r.seed))
    evaluate_questions(mmlu(4), Settings(str(tmp_path)), replier)
    first = [row["reply"] for row in read_rows(tmp_path / "mmlu.json")]
    evaluate_questions(mmlu(4), Settings(str(tmp_path), seed=1), replier)
    assert replier.chunks == 2
    assert not set(first) & {row["reply"] for row in read_rows(tmp_path / "mmlu.json")}


def test_training_prompt_is_the_instruction_then_the_question_and_few_shot_examples_are_turns(gift_data):
    data, examples = (load_rows(str(gift_data / source.file), source) for source in (MMLU.source, MMLU.few_shot_source))
    bench = ChoiceBenchmark(MMLU, data, Template(), examples, shots=5)
    question = bench.questions[0]
    assert [turn["role"] for turn in question.turns] == ["user", "assistant"] * 5 + ["user"]
    assert question.turns[1]["content"] == "<think></think><answer>B</answer>"
    assert question.turns[-1]["content"].startswith("Reply as <think>your thoughts</think><answer>your answer</answer>.\n")
    assert data.rows[0]["question"] in question.turns[-1]["content"]
    with pytest.raises(ValueError, match="--shots 6: mmlu/mmlu_dev.jsonl has fewer examples"):
        ChoiceBenchmark(MMLU, data, Template(), examples, shots=6)


def test_data_in_every_form_and_what_is_wrong_with_it(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"context": f"c{i}", "question": "q", "answerA": "x", "answerB": "y", "answerC": "z", "label": str(1 + i % 3)}
        for i in range(4)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = list(rows[0])
    (tmp_path / "a.csv").write_text("\n".join([",".join(columns), *(",".join(row.values()) for row in rows)]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    golds = {
        tuple(q.gold for q in ChoiceBenchmark(SOCIAL, load_rows(str(p), SOCIAL.source), Template()).questions)
        for p in tmp_path.iterdir()
    }
    assert golds == {("A", "B", "C", "A")}

    (tmp_path / "bare.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "label"}) + "\n" for row in rows)
    )
    (tmp_path / "labels.lst").write_text("3\n3\n1\n2\n")
    labelled = load_rows(str(tmp_path / "bare.jsonl"), SOCIAL.source, str(tmp_path / "labels.lst"))
    assert [q.gold for q in ChoiceBenchmark(SOCIAL, labelled, Template()).questions] == ["C", "C", "A", "B"]
    (tmp_path / "labels.lst").write_text("3\n")
    with pytest.raises(ValueError, match="1 labels for 4 rows"):
        load_rows(str(tmp_path / "bare.jsonl"), SOCIAL.source, str(tmp_path / "labels.lst"))
    with pytest.raises(ValueError, match="row 1 has no field 'label' .its fields: context, question"):
        ChoiceBenchmark(SOCIAL, load_rows(str(tmp_path / "bare.jsonl"), SOCIAL.source), Template())
    (tmp_path / "torn.jsonl").write_text('{"a": 1}\n{"a"')
    with pytest.raises(ValueError, match="torn.jsonl line 2 is not JSON"):
        load_rows(str(tmp_path / "torn.jsonl"), SOCIAL.source)
    with pytest.raises(FileNotFoundError, match="there is no file .*none.jsonl"):
        load_rows(str(tmp_path / "none.jsonl"), SOCIAL.source)


def test_default_data_that_is_not_there_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("GIFT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="looked for .*mmlu_test_sample.jsonl.*download_data.sh"):
        load_rows(None, MMLU.source)


def test_maths_prompts_are_those_of_the_training_env(gift_data):
    """Word for word what an episode would show for the same problem, but for which of the instructions is drawn."""
    from ragen.env import make_env
    from ragen.env.math_lv3to5.wording import INSTRUCTIONS
    from ragen.llm_agent.ctx_manager import Conversation
    from ragen.llm_agent.episode import Agent, Episode, EpisodeLimits, EpisodeSpec, Sampling

    path = gift_data / SIMPLERL.source.file
    env = make_env("math_lv3to5", {"data_path": str(path), "split": "test"})
    bench = MathBenchmark(SIMPLERL, load_rows(str(path), SIMPLERL.source), Template())
    asked = {question.turns[0]["content"].rsplit("\n", 1)[0] for question in bench.questions}
    chat = TextChat()
    for seed in range(20):
        spec, limits = EpisodeSpec("t", "math_lv3to5", 0, 0, seed), EpisodeLimits(1, 10**9)
        episode = Episode(spec, env, chat, limits, Sampling((0,), 8), [], lambda entry, env_type: None)
        env.reset(seed=seed)
        text, _ = episode._prompt_text(Agent(0, Conversation(chat)), 0)
        shown, instruction = text.rsplit("\n", 1)
        assert shown in asked and instruction in INSTRUCTIONS
    assert {question.turns[0]["content"].rsplit("\n", 1)[1] for question in bench.questions} == set(INSTRUCTIONS)
