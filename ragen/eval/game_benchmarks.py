"""The paper's games as benchmarks, and their command lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ragen.eval import protocol, stats
from ragen.eval.cli import Settings, add_common, say, settings_from
from ragen.eval.games import GameBenchmark, evaluate_games
from ragen.eval.protocol import GIFT, PAPER
from ragen.eval.results import ResultFiles, read_result, read_rows
from ragen.llm_agent.es_manager import Tag


def tictactoe(player: dict[str, Any], rules: str = GIFT) -> GameBenchmark:
    """The empty board, who moves first drawn by the seed (paper, appendix B). ``rules``: the protocol."""
    env = {"opening_moves": 0, "trained_seat": "random", **({"first_move": "uniform"} if rules == PAPER else {})}
    scores = {"win": "success", "draw": "draw", "loss": "loss"}
    tag = Tag("TicTacToe", "tictactoe", env, [player])
    return _benchmark("tictactoe", tag, 5, scores, lambda env, role: {"seat": role}, rules, protocol.read_cell)


def nash_new(equilibrium: str = "paper", rules: str = GIFT) -> GameBenchmark:
    """The paper's nine matrix games, one turn."""
    if rules == PAPER and equilibrium != "paper":
        raise ValueError(f"--equilibrium {equilibrium}: the paper's protocol has 'paper'; leave the option out, or use --protocol gift")
    env = {"equilibrium": equilibrium, **({"labels": "numbers"} if rules == PAPER else {})}
    tag = Tag("NashNew", "nash_new", env, [])
    return _benchmark(
        "nash_new", tag, 1, {"right": "success"}, lambda env, role: {"role": role, "game": env.game_name}, rules, protocol.read_action
    )


def undercover(player: dict[str, Any], word_list: str | None, rules: str = GIFT) -> GameBenchmark:
    """Who's the spy against three players of one kind: two rounds and the vote."""
    env = {"word_list": word_list, **({"reveal_role": True, "refuse_own_word": False} if rules == PAPER else {})}
    tag = Tag("Undercover", "undercover", env, [player])
    return _benchmark("undercover", tag, 3, {"win": "success"}, lambda env, role: {"role": role}, rules, protocol.read_form)


def _benchmark(name: str, tag: Tag, max_turn: int, scores, categories, rules: str, read: protocol.Read) -> GameBenchmark:
    """The first of ``scores`` is the one to compare by."""
    limits = protocol.game_limits(read) if rules == PAPER else {}
    return GameBenchmark(name, tag, max_turn, scores, next(iter(scores)), categories, rules, limits)


def main_tictactoe(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/tictactoe.py``."""
    args = _parser(
        "Tic-tac-toe on the empty board against a scripted player, a served model or a checkpoint.", "random"
    ).parse_args(argv)
    return _play(tictactoe(opponent(args.opponent), args.protocol), args, settings_from(args))


def main_nash(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/nash-new.py``."""
    parser = _parser("The paper's nine matrix games: name the action of a Nash equilibrium.", None)
    parser.add_argument(
        "--equilibrium", choices=("paper", "any"), default="paper", help="what counts as right (default: the paper's rule)"
    )
    args = parser.parse_args(argv)
    args.scripted = {"perfect": "equilibrium"}.get(args.scripted, args.scripted)
    return _play(nash_new(args.equilibrium, args.protocol), args, settings_from(args))


def main_undercover(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/undercover.py``."""
    parser = _parser("Who's the spy: the model in one seat, three other players.", "speaker")
    parser.add_argument(
        "--word_list", default="described",
        help="JSON list of word pairs; 'described': the pairs that scripted speakers can describe (default); "
        "'all': the project's whole list",
    )  # fmt: skip
    args = parser.parse_args(argv)
    word_list = None if args.word_list == "all" else args.word_list
    return _play(undercover(opponent(args.opponent), word_list, args.protocol), args, settings_from(args))


def opponent(text: str) -> dict[str, Any]:
    """``--opponent``: a scripted player's name, or a ``player_info`` entry as JSON."""
    if not text.lstrip().startswith("{"):
        return {"type": "scripted", "name": text}
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"--opponent {text!r} is not JSON: {error}") from None


def _parser(description: str, opponent_name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add_common(parser)
    parser.add_argument("--games", type=int, default=100, help="how many (default %(default)s)")
    parser.add_argument("--max_turn", type=int, help="replies of the model in a game")
    parser.add_argument(
        "--compare", metavar="RESULT.json", help="an earlier result on the same games: print the paired difference"
    )
    if opponent_name:
        parser.add_argument(
            "--opponent", default=opponent_name, metavar="NAME|JSON",
            help="a scripted player (random, perfect, ...) or a player_info entry: '{\"model_name\": \"M\", \"port\": 1414}', "
            "'{\"type\": \"policy\", \"checkpoint\": \"DIR\"}' (default %(default)s)",
        )  # fmt: skip
    return parser


def _play(bench: GameBenchmark, args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from ragen.eval.load import count_checkpoints, make_replier, seat_opponents

    games = min(args.games, settings.limit or args.games)
    if games < 1:
        raise ValueError(f"--games must be at least 1, got {games}")
    entries = bench.tag.player_info
    _check(bench, settings, entries)
    other = (read_result(args.compare), read_rows(args.compare)) if args.compare else None
    if other and protocol.of_result(other[0]) != bench.protocol:
        raise ValueError(
            f"--compare: {args.compare} was played under the protocol {protocol.of_result(other[0])}, this one under {bench.protocol}: "
            "their rules differ and nothing can be paired; give both the same --protocol"
        )
    replier = make_replier(settings, 1 + count_checkpoints(entries))
    try:
        result = evaluate_games(bench, games, settings, replier, seat_opponents(entries, settings))
    finally:
        replier.close()
    path = ResultFiles(settings.output, bench.name).result
    say(table(result))
    if other:
        say(comparison(other[0], other[1], read_rows(path)))
    say(f"result {path}")
    return result


def _check(bench: GameBenchmark, settings: Settings, entries: Sequence[dict]) -> None:
    """Players and the names of scripts, before anything is loaded. Raises ``ValueError``."""
    from ragen.players.entries import check_entry
    from ragen.players.scripted import make_scripted

    for entry in entries:
        try:
            check_entry(entry, bench.tag.env_type)
        except ValueError as error:
            raise ValueError(f"--opponent: {error}") from None
    if settings.scripted:
        make_scripted(bench.tag.env_type, settings.scripted)


def table(result: dict[str, Any]) -> str:
    """Scores with intervals, a line each."""
    lines = [
        f"{result['benchmark']}: {result['counts']['games']} games, protocol {protocol.of_result(result)}, {result['seconds']:.1f} s"
    ]
    for name, score in result["scores"].items():
        told = "no game" if score["value"] is None else f"{score['value']:.4f}  {stats.interval(score)}"
        lines.append(f"  {name:<11} {told}")
    if result["counts"]["aborted"]:
        lines.append(f"  {result['counts']['aborted']} games were aborted (an opponent failed) and are in no score")
    return "\n".join(lines)


def comparison(other: dict[str, Any], other_rows: list[dict], rows: list[dict]) -> str:
    """The paired difference of this result to an earlier one, by success."""
    seeds = {row["id"]: row["seed"] for row in rows}
    if any(seeds.get(row["id"], row["seed"]) != row["seed"] for row in other_rows):
        raise ValueError("--compare: the other result was played on other games (another --seed): nothing can be paired")
    d = stats.paired_difference(rows, other_rows)
    return (
        f"success against {other['model'].get('name')}: {d['value']:+.4f}  {stats.interval(d, form='+.4f')}, "
        f"p = {d['p_value']:.2g}, {d['n']} games in both, better in {d['only_a']}, worse in {d['only_b']}"
    )
