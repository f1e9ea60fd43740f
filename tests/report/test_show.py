"""The report in the terminal."""

import argparse
import io
import re

import pytest
from fake_runs import write_run
from rich.console import Console

from ragen.report import __main__ as cli
from ragen.report.boards import board_text
from ragen.report.show import safe

EVIL = "\x1b]0;owned\x07\x1b[2J[bold]tag[/bold]\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "laptop", evil=EVIL)


def shown(capsys, *argv):
    code = cli.main(["show", *map(str, argv)])
    out = capsys.readouterr()
    return code, " ".join(out.out.split()), out.err


def test_headline(run, capsys):
    code, out, _ = shown(capsys, run)
    assert code == 0 and "It learned TicTacToe" in out and "validation," in out and "tokens sampled" in out
    assert "One start, two endings" in out and "▲" not in out


def test_headline_of_a_sick_run(tmp_path, capsys):
    _, out, _ = shown(capsys, write_run(tmp_path / "sick", fault="dead_opponent"))
    assert "An opponent does not answer" in out and "(steps 19 to 60)" in out and "Given up" in out


def test_the_commands_it_names_work(run, capsys):
    _, out, _ = shown(capsys, run)
    named = re.findall(r"python -m ragen.report show (\S+ --phase \w+ --step \d+ --group \d+ --member \d+)", out)
    assert len(named) >= 3
    for arguments in named:
        code, out, err = shown(capsys, *arguments.split())
        assert code == 0 and "1 of 1 episodes" in out, (arguments, err)


def test_worst_episodes_of_a_step(run, capsys):
    code, out, _ = shown(capsys, run, "--step", 40, "--task", "TicTacToe", "--phase", "train", "--worst", 3)
    assert code == 0 and "3 of 16 episodes that fit" in out and out.count("step 40 · training") == 3
    rewards = [float(part.split()[0]) for part in out.split(" reward ")[1:] if part.split()[1].startswith("─")]
    assert rewards == sorted(rewards) and len(rewards) == 3
    assert "✕ refused: That is not a cell of the board" in out and ("[O]" in out or "[X]" in out)


def test_tokens(run, capsys):
    code, out, _ = shown(capsys, run, "--tokens", "trained", "--first", 1)
    assert code == 0 and "tokens trained; coloured by trained" in out and "did not sample" not in out


def test_texts_cannot_steer_the_terminal(run, capsys):
    _, out, _ = shown(capsys, run, "--first", 2)
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert "\\x1b]0;owned\\x07" in out and "[bold]tag[/bold]" in out
    assert safe("a\tb\nc\r\nd") == "a\tb\nc\nd"


def test_colours_mark_a_wrong_mask(tmp_path):
    from ragen.report.show import show

    folder = write_run(tmp_path / "sick", fault="broken_mask", steps=20)
    names = ("step", "phase", "task", "opponent", "outcome", "group", "member", "worst", "best", "first", "tokens")
    for mode in ("trained", "advantage", "logprob"):
        console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100)
        show(argparse.Namespace(run=folder, **{**dict.fromkeys(names), "tokens": mode, "first": 1}), console)
        text = console.file.getvalue()
        assert "trained tokens that the policy did not sample" in text and "\x1b[4" in text


@pytest.mark.parametrize(("argv", "said"), [
    (("--task", "Chess"), "no episode with --task Chess; there is task NashNew, TicTacToe"), (("--step", 7), "there is step 0, 10, 20"),
    (("--outcome", "aborted"), "there is outcome draw, loss"),
])  # fmt: skip
def test_what_is_not_there_is_named(run, capsys, argv, said):
    code, out, err = shown(capsys, run, *argv)
    assert code == 1 and said in err


@pytest.mark.parametrize(("public", "answer", "text"), [
    (["O.X......", "O"], "(2,2)", " O  ·  X \n · [O] · \n ·  ·  · "),
    (["O.X......", "O"], "(1,1)", "[O] ·  X \n ·  ·  · \n ·  ·  · "),
    (["O.X......", "O"], "nonsense", " O  ·  X \n ·  ·  · \n ·  ·  · "),
    ([["..X.", 2, 2, 2], "O"], "1", "[O] · \n X  · "),
    ([["....", 2, 2, 2], "O"], "2", " ·  · \n · [O]"),
    (["row", [[3, 0], [5, 1]], [[3, 5], [0, 1]], ["A", "B"]], "Action B", "       1     2\n  A  3,3   0,5\n[B]  5,0  1,1*"),
    ({"A": [[1]], "B": [[2]]}, "", "      1\n1  1,2*"),
    (None, "", ""), ("text", "", ""), ({"word": "sea"}, "", ""), ([1, 2], "", ""), ([["a", "b"], 3], "", ""),
])  # fmt: skip
def test_boards(public, answer, text):
    assert board_text(public, answer) == text
