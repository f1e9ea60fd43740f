"""The games of the paper as benchmarks, and their command lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ragen.eval import stats
from ragen.eval.cli import Settings, add_common, settings_from
from ragen.eval.games import GameBenchmark, evaluate_games
from ragen.eval.results import ResultFiles, read_result, read_rows
from ragen.llm_agent.es_manager import Tag


def tictactoe(player: dict[str, Any]) -> GameBenchmark:
    """The empty board, who moves first drawn by the seed (paper, appendix B)."""
    tag = Tag("TicTacToe", "tictactoe", {"opening_moves": 0, "trained_seat": "random"}, [player])
    scores = {"win": "success", "draw": "draw", "loss": "loss"}
    return GameBenchmark("tictactoe", tag, 5, scores, "win", lambda env, role: role)


def main_tictactoe(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/tictactoe.py``."""
    parser = _parser("Tic-tac-toe on the empty board against a scripted player, a served model or a checkpoint.", "random", 100)
    args = parser.parse_args(argv)
    settings = settings_from(args)
    return _play(tictactoe(opponent(args.opponent)), args, settings)


def opponent(text: str) -> dict[str, Any]:
    """``--opponent``: a scripted player's name, or a ``player_info`` entry as JSON."""
    if not text.lstrip().startswith("{"):
        return {"type": "scripted", "name": text}
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--opponent {text!r} is not JSON: {error}") from None
    return entry


def _parser(description: str, opponent_name: str | None, games: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add_common(parser)
    parser.add_argument("--games", type=int, default=games, help="how many (default %(default)s)")
    parser.add_argument("--max_turn", type=int, help="replies of the model in a game")
    parser.add_argument("--compare", metavar="RESULT.json", help="an earlier result on the same games: print the paired difference")
    if opponent_name:
        parser.add_argument(
            "--opponent", default=opponent_name, metavar="NAME|JSON",
            help="a scripted player (random, perfect, ...), or a player_info entry such as "
            '\'{"model_name": "M", "port": 1414}\' (default %(default)s)',
        )  # fmt: skip
    return parser


def _play(bench: GameBenchmark, args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from ragen.eval.repliers import make_replier

    games = min(args.games, settings.limit or args.games)
    if games < 1:
        raise ValueError(f"--games must be at least 1, got {games}")
    other = (read_result(args.compare), read_rows(args.compare)) if args.compare else None
    replier = make_replier(settings)
    try:
        result = evaluate_games(bench, games, settings, replier)
    finally:
        replier.close()
    path = ResultFiles(settings.output, bench.name).result
    print(table(result))
    if other:
        print(comparison(other[0], other[1], read_rows(path)))
    print(f"result {path}")
    return result


def table(result: dict[str, Any]) -> str:
    """Scores with intervals, a line each."""
    lines = [f"{result['benchmark']}: {result['counts']['games']} games, {result['seconds']:.1f} s"]
    for name, score in result["scores"].items():
        told = "no game" if score["value"] is None else f"{score['value']:.4f}  [{score['low']:.4f}, {score['high']:.4f}]"
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
        f"success against {other['model'].get('name')}: {d['value']:+.4f}  [{d['low']:+.4f}, {d['high']:+.4f}], p = {d['p_value']:.2g}, "
        f"{d['n']} games in both, better in {d['only_a']}, worse in {d['only_b']}"
    )
