"""``--protocol paper``: what ends a game, what is read out of a reply, what a result says, what is never compared."""

import argparse
import csv
import json
import re
from collections import Counter
from concurrent.futures import Future

import pytest
from fake_model import FunctionReplier
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ragen.eval import compare, game_benchmarks, games, protocol
from ragen.eval.api import Said
from ragen.eval.choice import MMLU, MMLU_PRO, SOCIAL, ChoiceBenchmark
from ragen.eval.cli import Settings, add_common, settings_from
from ragen.eval.commongen import CommonGenBenchmark
from ragen.eval.data import Rows
from ragen.eval.maths import MATH500, MathBenchmark
from ragen.eval.prompts import Template
from ragen.eval.question_benchmarks import main_mmlu
from ragen.eval.questions import evaluate_questions
from ragen.eval.repliers import ApiReplier, ScriptedReplier, Seats
from ragen.eval.results import read_result, read_rows
from ragen.eval.text_chat import TextChat
from ragen.players.base import Player
from ragen.players.factory import PlayerFactory
from ragen.trainer.config import compose as compose_run

PERFECT, RANDOM = ({"type": "scripted", "name": name} for name in ("perfect", "random"))


class Client:
    """A model's server that is a function of the messages; ``seen`` keeps them."""

    model, url = "m", "nowhere"

    def __init__(self, answer):
        self._answer, self.seen = answer, []

    def ask(self, messages, seed):
        self.seen.append(messages)
        future = Future()
        future.set_result(Said(self._answer(messages), (1, 1), False))
        return future

    def tokens(self):
        return (0, 0)


def play(bench, answer, output, count=40, seats=None):
    client = Client(answer)
    result = games.evaluate_games(bench, count, Settings(str(output), api="m"), ApiReplier(client, TextChat()), seats or Seats())
    return result, read_rows(output), client


def free_cell(messages):
    """The last free cell that the last message shows."""
    return re.findall(r"(\(\d,\d\))-", messages[-1]["content"])[-1]


def formed(answer, before=""):
    return f"{before}<think>so</think><answer>{answer}</answer>"


# -- games ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["nothing", formed("(9,9)"), formed("the middle")], ids=["off the form", "no such cell", "no cell"])
def test_the_first_bad_reply_ends_a_game_unwon(bad, tmp_path):
    """The second reply of every game is bad, the others are good: ours goes on, the paper's has ended."""

    def answer(messages):
        return bad if len(messages) > 1 and sum("Your move" in m["content"] for m in messages) == 2 else formed(free_cell(messages))

    ours, rows, _ = play(game_benchmarks.tictactoe(RANDOM), answer, tmp_path / "ours.json")
    assert any(row["turns"] > 2 and row["refused"] for row in rows) and "forfeit" not in ours["scores"]

    said = Counter()

    def second_is_bad(messages):  # no turn shows the ones before it: count them
        said["replies"] += 1
        return bad if said["replies"] % 2 == 0 else formed(free_cell(messages))

    result, rows, _ = play(game_benchmarks.tictactoe(RANDOM, "paper"), second_is_bad, tmp_path / "paper.json")
    lost = [row for row in rows if row["refused"]]
    assert lost and all(row["status"] == "forfeit" and row["success"] == 0 and not row["replies"][-1]["valid"] for row in lost)
    assert all(row["refused"] == 1 and row["turns"] == len(row["replies"]) for row in lost)
    assert result["scores"]["forfeit"]["value"] == len(lost) / len(rows) and result["counts"]["played"] == len(rows) == 40
    assert result["scores"]["win"]["value"] == sum(row["success"] for row in rows) / 40


def test_a_turn_is_asked_without_the_turns_before_it(tmp_path):
    _, rows, client = play(game_benchmarks.tictactoe(PERFECT, "paper"), lambda m: formed(free_cell(m)), tmp_path / "p.json")
    assert max(row["turns"] for row in rows) > 2
    for messages in client.seen:
        assert [m["role"] for m in messages] == ["user"] and messages[0]["content"].count("Your move") == 1
        assert "Reply as <think>" in messages[0]["content"] and "O" in messages[0]["content"].split("Reply as")[0]  # rules, too
    _, _, client = play(game_benchmarks.tictactoe(PERFECT), lambda m: formed(free_cell(m)), tmp_path / "g.json")
    assert max(len(messages) for messages in client.seen) > 3


def test_first_move_against_x_is_uniform_whoever_the_opponent_is(tmp_path):
    _, rows, client = play(game_benchmarks.tictactoe(PERFECT, "paper"), lambda m: formed("none"), tmp_path / "p.json", count=720)
    seen = Counter()
    for row, messages in zip(rows, client.seen, strict=True):
        board = messages[-1]["content"]
        assert board.count(")X") == 0 and board.count(")O") == (row["role"] == "X")
        if row["role"] == "X":
            seen[re.search(r"\((\d,\d)\)O", board)[1]] += 1
    total = sum(seen.values())
    assert 300 < total < 420 and len(seen) == 9  # either seat by a fair coin
    chi_square = sum((n - total / 9) ** 2 / (total / 9) for n in seen.values())
    assert chi_square < 26.1  # 8 degrees of freedom, p = 0.001


def test_an_opponents_illegal_move_ends_the_game_and_counts_as_not_won(tmp_path):
    class Stubborn(Player):
        name = "stubborn"

        async def reply(self, view):
            return "(1,1)"

    class Factory(PlayerFactory):
        def __call__(self, entry, env_type):
            return Stubborn()

    def play_both(rules, output):
        return play(game_benchmarks.tictactoe(RANDOM, rules), lambda m: formed(free_cell(m)), output, seats=Seats(Factory()))

    result, rows, _ = play_both("paper", tmp_path / "p.json")
    assert result["counts"]["aborted"] == 0 and result["counts"]["played"] == 40
    ended = [row for row in rows if "no legal move in 1 attempts" in row.get("error", "")]
    assert len(ended) > 20 and not any(row["success"] for row in ended)
    result, _, _ = play_both("gift", tmp_path / "g.json")
    assert result["counts"]["aborted"] > 20 and result["counts"]["played"] + result["counts"]["aborted"] == 40


@pytest.mark.parametrize(("reply", "valid"), [("<answer> 1 </answer>", True), ("one<answer>1</answer>two", True),
                                              ("<think>a</think><answer>action 1</answer>", False), ("1", False)])  # fmt: skip
def test_matrix_games_read_the_answer_block_alone(reply, valid, tmp_path):
    _, rows, client = play(game_benchmarks.nash_new("paper", "paper"), lambda m: reply, tmp_path / "n.json", count=12)
    assert len(rows) == len(client.seen) == 12 and {row["replies"][0]["valid"] for row in rows} == {valid}
    assert not any(re.search(r"one of: A\b", m[-1]["content"]) for m in client.seen)  # actions are numbers


def test_spies_are_told_their_aim_and_own_words_are_not_checked(tmp_path):
    def answer(messages):
        text = messages[-1]["content"]
        word = re.search(r"Your word: (.*)\.\n", text)[1]
        return formed(re.findall(r"Player \d", text)[-1] if "All have spoken" in text else f"It is {word}.", before="Well. ")

    speaker = {"type": "scripted", "name": "speaker"}
    _, rows, client = play(game_benchmarks.undercover(speaker, "described", "paper"), answer, tmp_path / "p.json", count=10)
    assert [row["status"] for row in rows] == ["finished"] * 10
    votes = [m[-1]["content"] for m in client.seen if "All have spoken" in m[-1]["content"]]
    assert votes and all("Vote for the undercover" in text or "Turn the suspicion" in text for text in votes)
    _, rows, _ = play(game_benchmarks.undercover(speaker, "described"), answer, tmp_path / "g.json", count=4)
    assert len(rows) == 4 and all(row["refused"] for row in rows)


PIECES = ["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "x", "(1,2)", "B", "."]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("<think></think><answer>x</answer>\n")
@example("<think></think><answer>x</answer>\n\n")
@example("<think></think><answer>x</answer> ")
@example("<think><think></think>x</think> <answer></answer><answer>x</answer>")
def test_the_form_is_what_the_published_pattern_matches(text):
    """The reference's pattern, as a regular expression engine reads it (ours is linear in the reply's length)."""
    match = re.fullmatch(r"(?s).*<think>(.*?)</think>\s*<answer>(.*?)</answer>\n?", text)
    parsed = protocol.read_form(text, True)
    assert parsed.ok == bool(match)
    if match:
        assert (parsed.thought, parsed.answer) == (match[1].strip(), match[2].strip())
    block = re.search(r"(?s)<answer>(.*)</answer>", text)
    assert protocol.answer_block(text) == (block[1] if block else None)


# -- questions ------------------------------------------------------------------------------------


def graded(bench, reply):
    (row,) = bench.grade(bench.questions, [reply])
    return row


def choice_bench(kind, rules):
    rows = {
        "mmlu": {"question": "?", "subject": "s", "choices": ["one", "two", "three", "four"], "answer": 1},
        "mmlu_pro": {"question": "?", "category": "c", "options": list("pqrstuvwxy"), "answer": "B"},
        "social_i_qa": {"context": "c", "question": "?", "answerA": "p", "answerB": "q", "answerC": "r", "label": "2"},
    }
    return ChoiceBenchmark(kind, Rows([rows[kind.name]], {"hash": "h"}), Template(protocol=rules))


@pytest.mark.parametrize("kind", [MMLU, MMLU_PRO, SOCIAL], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("reply", "paper"),
    [
        ("The answer is B.", None),  # no block: nothing, whatever the text says
        ("text before <answer>B</answer> and after", "B"),
        ("<answer>A or rather B</answer>", "A"),  # the first letter that stands alone
        ("<answer>(B)</answer>", None),  # a bracket is no end of a letter there
        ("<answer>BADGE C. B</answer>", "C"),
        ("<think>is it <answer>C.</answer>?</think><answer>B</answer>", "C"),  # from the first tag on: thoughts are read
        ("<answer>b</answer>", None),
    ],
)
def test_choices_are_read_in_the_answer_block_alone(kind, reply, paper):
    row = graded(choice_bench(kind, "paper"), reply)
    assert row["extracted"]["strict"] == row["extracted"]["flexible"] == paper
    assert row["strict"] == row["flexible"] == int(paper == "B") and (row["verdict"] == "invalid") == (paper is None)


def test_our_own_reading_stays_as_it_was():
    assert graded(choice_bench(MMLU, "gift"), "The answer is B.")["extracted"]["flexible"] == "B"


def test_maths_and_sentences_are_read_in_the_answer_block_alone():
    maths = MathBenchmark(MATH500, Rows([{"problem": "?", "answer": "7"}], {"hash": "h"}), Template(protocol="paper"))
    assert maths.primary == "strict"
    row = graded(maths, "So <answer>7</answer>")  # off our form, which wants thoughts first
    assert (row["strict"], row["flexible"]) == (1, 1)
    row = graded(maths, r"It is $\boxed{7}$")
    assert (row["strict"], row["flexible"]) == (0, 1) and row["extracted"]["strict"] is None
    concepts = Rows([{"concept_set": ["dog_N", "run_V"]}], {"hash": "h"})
    assert graded(CommonGenBenchmark(concepts, Template(protocol="paper")), "The dog runs.")["verdict"] == "invalid"
    assert graded(CommonGenBenchmark(concepts, Template()), "The dog runs.")["verdict"] == "correct"


# -- the command line -----------------------------------------------------------------------------


def tictactoe(output, *options):
    return game_benchmarks.main_tictactoe(["--scripted", "random", "--output", str(output), *options])


def test_the_protocol_fixes_what_the_paper_fixes_and_stands_in_the_result(tmp_path, capsys):
    result = tictactoe(tmp_path / "p.json", "--protocol", "paper")
    assert result["protocol"] == "paper" == read_result(tmp_path / "p.json")["protocol"] and result["counts"]["games"] == 100
    assert result["sampling"] == {"temperature": 0.5, "top_p": 1.0, "top_k": -1, "max_tokens": 600}
    assert result["prompt"]["forfeit_on_invalid"] and result["prompt"]["window"] == -1
    assert "protocol paper" in capsys.readouterr().out
    assert tictactoe(tmp_path / "g.json", "--games", "5")["protocol"] == "gift"


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--temperature", "0"], "--temperature 0"), (["--max_tokens", "9"], "--max_tokens 9"), (["--no-think"], "--think False"),
     (["--max_turn", "9"], "--max_turn 9: the paper's protocol has the benchmark's own"), (["--system_prompt", ""], "--system_prompt ''")],
)  # fmt: skip
def test_what_contradicts_the_protocol_is_refused(options, named, tmp_path):
    with pytest.raises(ValueError, match=re.escape(named)):
        tictactoe(tmp_path, "--protocol", "paper", *options)
    assert not list(tmp_path.iterdir())


def test_the_protocol_goes_before_a_runs_own_config(tmp_path):
    """A run's config says how it is validated; under the paper's protocol its sampling and limits give way, its model's do not."""
    run = compose_run("_0_laptop", ["agent_proxy.forfeit_on_invalid=true", "agent_proxy.max_turn=7", "ctx_manager.system_prompt=Play."])
    OmegaConf.save(run, tmp_path / "config.yaml", resolve=True)
    made = {}
    for rules in protocol.PROTOCOLS:
        parser = argparse.ArgumentParser()
        add_common(parser)
        options = ["--scripted", "random", "--output", "o", "--config", str(tmp_path / "config.yaml"), "--protocol", rules]
        made[rules] = settings_from(parser.parse_args(options))
    ours, papers = made["gift"], made["paper"]
    assert (ours.temperature, ours.max_tokens, ours.max_turn, ours.system_prompt, ours.window) == (1.0, 32, 7, "Play.", 0)
    assert {key: getattr(papers, key) for key in protocol.PAPER_SETTINGS} == protocol.PAPER_SETTINGS
    assert papers.max_model_len == ours.max_model_len == 512


def test_games_of_a_run_that_forfeits_are_evaluated_as_they_were_validated(tmp_path):
    bench = game_benchmarks.tictactoe(RANDOM)
    settings = Settings(str(tmp_path / "g.json"), api="m", forfeit_on_invalid=True)
    result = games.evaluate_games(bench, 5, settings, ApiReplier(Client(lambda m: "no form"), TextChat()), Seats())
    assert result["scores"]["forfeit"]["value"] == 1 and result["counts"]["turns"] == 5
    assert result["protocol"] == "gift" and result["prompt"]["forfeit_on_invalid"]


def test_other_prompts_are_refused_under_the_protocol(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"question": "?", "subject": "s", "choices": ["a", "b"], "answer": 0}) + "\n")
    common = ["--scripted", "random", "--output", str(tmp_path / "o"), "--data", str(data), "--protocol", "paper"]
    with pytest.raises(ValueError, match="--template usual"):
        main_mmlu([*common, "--template", "usual"])
    with pytest.raises(ValueError, match="--shots 1"):
        main_mmlu([*common, "--shots", "1", "--few_shot", str(data)])
    with pytest.raises(ValueError, match="--equilibrium any"):
        game_benchmarks.main_nash(["--scripted", "random", "--output", str(tmp_path / "n"), "--protocol", "paper", "--equilibrium", "any"])
    assert main_mmlu(common)["protocol"] == "paper"


# -- side by side ---------------------------------------------------------------------------------


def mmlu_result(folder, rules):
    rows = [{"question": f"{i}", "subject": "s", "choices": ["a", "b"], "answer": i % 2} for i in range(20)]
    bench = ChoiceBenchmark(MMLU, Rows(rows, {"hash": "same"}), Template(protocol=rules))
    return evaluate_questions(bench, Settings(str(folder)), FunctionReplier(lambda r: "<think></think><answer>A</answer>"))


def test_results_of_two_protocols_are_marked_and_never_paired(tmp_path, capsys):
    for name, rules in (("a", "gift"), ("b", "paper"), ("c", "paper")):
        mmlu_result(tmp_path / name, rules)
    old = json.loads((tmp_path / "a" / "mmlu.json").read_text())
    del old["protocol"]  # made before there was a choice
    (tmp_path / "a" / "mmlu.json").write_text(json.dumps(old))
    first, second = compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--csv", str(tmp_path / "t.csv")])
    assert (first["protocol"], second["protocol"]) == ("gift", "paper")
    assert second["note"] == "not paired: protocol paper against gift" and "difference" not in second
    told = capsys.readouterr().out
    assert "not paired: protocol paper against gift" in told
    assert [row["protocol"] for row in csv.DictReader((tmp_path / "t.csv").open())] == ["gift", "paper"]
    _, same = compare.main([str(tmp_path / "b"), str(tmp_path / "c")])
    assert same["pairs"] == 20


def test_the_papers_table_says_whose_rules_each_row_follows(tmp_path, capsys):
    tictactoe(tmp_path / "m", "--games", "4", "--protocol", "paper")
    mmlu_result(tmp_path / "m", "gift")
    mmlu_result(tmp_path / "n", "paper")
    compare.main([str(tmp_path / "m"), str(tmp_path / "n"), "--paper", "7B"])
    lines = capsys.readouterr().out.splitlines()
    (mixed,) = (line for line in lines if line.startswith("m ") and "50.00" in line)
    assert mixed.endswith("paper (tictactoe), gift (mmlu)")
    (whole,) = (line for line in lines if line.startswith("n ") and line.endswith("  paper"))
    assert "50.00" in whole
    assert any(line.startswith("m: not made by the paper's rules") for line in lines)
    assert any(line.startswith("m: tictactoe against random") for line in lines)
    assert not any(line.startswith("n:") for line in lines)


def test_games_under_two_protocols_are_not_compared(tmp_path):
    tictactoe(tmp_path / "a.json", "--games", "4")
    with pytest.raises(ValueError, match="protocol gift, this one under paper"):
        tictactoe(tmp_path / "b.json", "--games", "4", "--protocol", "paper", "--compare", str(tmp_path / "a.json"))
    assert not (tmp_path / "b.json").exists()


def test_a_scripted_player_keeps_the_papers_rules(tmp_path):
    """No rule of the protocol costs a player that replies well anything."""
    for bench, name, score in (
        (game_benchmarks.tictactoe(PERFECT, "paper"), "perfect", "draw"),
        (game_benchmarks.nash_new("paper", "paper"), "equilibrium", "right"),
    ):
        settings = Settings(str(tmp_path / f"{name}.json"), scripted=name)
        result = games.evaluate_games(bench, 45, settings, ScriptedReplier(name, TextChat()), Seats())
        assert result["scores"]["forfeit"]["value"] == 0 and result["scores"][score]["value"] > 0.8
