"""Games through the evaluation's own core with scripted repliers: what theory says, seeds apart, resumed runs."""

import json
from functools import cache

import pytest

from ragen.env import make_env
from ragen.env.tictactoe import rules as ttt
from ragen.eval import game_benchmarks as benchmarks
from ragen.eval import games
from ragen.eval.cli import Settings
from ragen.eval.repliers import ScriptedReplier, Seats
from ragen.eval.results import read_rows
from ragen.eval.text_chat import TextChat
from ragen.llm_agent.es_manager import TRAIN, VAL, deal_groups


def play(bench, name, count, output, **options):
    return games.evaluate_games(
        bench, count, Settings(str(output), scripted=name, **options), ScriptedReplier(name, TextChat()), Seats()
    )


def tictactoe(opponent):
    return benchmarks.tictactoe({"type": "scripted", "name": opponent})


def test_perfect_tictactoe_never_loses(tmp_path):
    against_random = play(tictactoe("random"), "perfect", 150, tmp_path / "r.json")
    assert against_random["scores"]["loss"]["value"] == 0 and against_random["scores"]["win"]["value"] > 0.8
    against_perfect = play(tictactoe("perfect"), "perfect", 40, tmp_path / "p.json")
    assert against_perfect["scores"]["draw"]["value"] == 1


@cache
def _chance(board):
    """(O wins, draw, X wins) under uniformly random play of both."""
    if ttt.is_over(board):
        return {"O": (1, 0, 0), None: (0, 1, 0), "X": (0, 0, 1)}[ttt.winner(board)]
    nexts = [_chance(ttt.play(board, cell)) for cell in ttt.empty_cells(board)]
    return tuple(sum(p) / len(nexts) for p in zip(*nexts, strict=True))


def test_random_tictactoe_scores_its_exact_expectation(tmp_path):
    result = play(tictactoe("random"), "random", 600, tmp_path / "r.json")
    o_wins, draw, x_wins = _chance(ttt.EMPTY_BOARD)
    expected = {"win": (o_wins + x_wins) / 2, "draw": draw, "loss": (o_wins + x_wins) / 2}
    for name, value in expected.items():
        score = result["scores"][name]
        assert score["low"] <= value <= score["high"], name
    assert sum(result["scores"][name]["value"] for name in expected) == pytest.approx(1)
    seats = result["by_category"]["seat"]
    assert abs(seats["O"]["win"]["value"] - o_wins) < 0.09 and abs(seats["X"]["win"]["value"] - x_wins) < 0.09


def test_nash_equilibrium_is_always_right_and_random_as_often_as_actions_say(tmp_path):
    assert play(benchmarks.nash_new(), "equilibrium", 60, tmp_path / "e.json")["scores"]["right"]["value"] == 1
    result = play(benchmarks.nash_new(), "random", 400, tmp_path / "r.json")
    env, chances = make_env("nash_new", {}), []
    for row in read_rows(tmp_path / "r.json"):
        env.reset(seed=row["seed"])
        chances.append(len(env.right) / len(env.legal(0)))
    right = result["scores"]["right"]
    assert right["low"] <= sum(chances) / len(chances) <= right["high"]


def test_undercover_is_played_by_four_and_scored(tmp_path):
    bench = benchmarks.undercover({"type": "scripted", "name": "speaker"}, "described")
    result = play(bench, "speaker", 60, tmp_path / "u.json")
    assert result["counts"]["played"] == 60 and result["scores"]["invalid"]["value"] == 0
    assert set(result["by_category"]["role"]) == {"civilian", "undercover"}


@pytest.mark.parametrize(("make", "script"), [(benchmarks.tictactoe, "random"), (lambda p: benchmarks.undercover(p, "described"), "speaker")])
def test_a_game_against_itself_counts_once(tmp_path, make, script):
    """``--opponent '{"type": "policy"}'``: one row a game, of the seat that is evaluated."""
    bench = make({"type": "policy"})
    result = play(bench, script, 40, tmp_path / "self.json")
    rows = read_rows(tmp_path / "self.json")
    assert result["counts"]["games"] == result["counts"]["played"] == len(rows) == len({row["id"] for row in rows}) == 40
    env = make_env(bench.tag.env_type, bench.tag.env_config)
    for row in rows:
        env.reset(seed=row["seed"])
        assert row["role"] == env.role(env.trained_seats[0]) and row["opponent"] == "self"
    assert result["counts"]["turns"] == sum(row["turns"] for row in rows)


def test_evaluation_seeds_meet_neither_training_nor_validation():
    tag = tictactoe("random").tag
    dealt = {spec.seed for spec in games._deal(tag, 300, seed=123)}
    assert len(dealt) == 300
    for phase in (TRAIN, VAL):
        for step in range(3):
            groups = deal_groups(
                base_seed=123, phase=phase, step=step, tags={tag.name: tag}, plays=[(tag.name, 300)], group_size=1
            )
            assert not dealt & {group[0].seed for group in groups}


def test_players_do_not_depend_on_how_many_are_played(tmp_path):
    play(tictactoe("random"), "random", 30, tmp_path / "few.json")
    play(tictactoe("random"), "random", 45, tmp_path / "more.json", chunk_size=7)
    assert read_rows(tmp_path / "more.json")[:30] == read_rows(tmp_path / "few.json")


class _Killed(BaseException):
    pass


def test_a_killed_run_goes_on_and_ends_as_one_never_killed(tmp_path):
    whole = play(tictactoe("random"), "random", 50, tmp_path / "whole.json", chunk_size=10)
    played = []
    replier = ScriptedReplier("random", TextChat())
    ask = replier.new_chunk

    def new_chunk():
        played.append(1)
        if len(played) == 4:
            raise _Killed
        ask()

    replier.new_chunk = new_chunk
    settings = Settings(str(tmp_path / "cut.json"), scripted="random", chunk_size=10)
    with pytest.raises(_Killed):
        games.evaluate_games(tictactoe("random"), 50, settings, replier, Seats())
    assert not (tmp_path / "cut.json").exists()
    resumed = games.evaluate_games(tictactoe("random"), 50, settings, replier, Seats())
    assert len(played) == 4 + 2  # chunks 4 and 5 alone are played
    assert {**resumed, "seconds": 0, "rows_file": "", "samples_file": ""} == {
        **whole,
        "seconds": 0,
        "rows_file": "",
        "samples_file": "",
    }
    assert (tmp_path / "cut.rows.jsonl").read_bytes() == (tmp_path / "whole.rows.jsonl").read_bytes()
    assert (tmp_path / "cut.samples.txt").read_bytes() == (tmp_path / "whole.samples.txt").read_bytes()
    again = games.evaluate_games(tictactoe("random"), 50, settings, replier, Seats())
    assert again == json.loads((tmp_path / "cut.json").read_text()) and len(played) == 6  # nothing is played twice


def test_command_line_compares_to_an_earlier_result(tmp_path, capsys):
    options = ["--games", "40", "--opponent", "random"]
    benchmarks.main_tictactoe([*options, "--scripted", "random", "--output", str(tmp_path / "a.json")])
    benchmarks.main_tictactoe(
        [*options, "--scripted", "perfect", "--output", str(tmp_path / "b.json"), "--compare", str(tmp_path / "a.json")]
    )
    assert "40 games in both" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other games"):
        benchmarks.main_tictactoe(
            [
                *options,
                "--scripted",
                "perfect",
                "--seed",
                "1",
                "--output",
                str(tmp_path / "c.json"),
                "--compare",
                str(tmp_path / "a.json"),
            ]
        )
    with pytest.raises(ValueError, match="did you mean 'perfect'"):
        benchmarks.main_tictactoe(["--scripted", "random", "--opponent", "perfekt", "--output", str(tmp_path / "d.json")])


@pytest.mark.parametrize(
    ("entry", "named"),
    [("{}", "is none of"), ('{"type": "scripted"}', "is none of"), ('{"type": "policy", "chekpoint": "x"}', "chekpoint"),
     ('{"model_name": "M", "prot": 1}', "did you mean 'port'"), ('{"type": "scripted", "name": "perfekt"}', "did you mean 'perfect'"), ("", "scripted player ''")],
)  # fmt: skip
def test_a_wrong_opponent_is_named_before_anything_is_loaded(tmp_path, entry, named):
    with pytest.raises(ValueError, match="--opponent") as caught:
        benchmarks.main_tictactoe(["--model_path", str(tmp_path / "none"), "--opponent", entry, "--output", str(tmp_path / "o.json")])
    assert named in str(caught.value)
