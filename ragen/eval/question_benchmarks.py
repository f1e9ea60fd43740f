"""Command lines of the question benchmarks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ragen.eval import stats
from ragen.eval.cli import Settings, add_common, say, settings_from
from ragen.eval.data import Rows, load_rows
from ragen.eval.prompts import TEMPLATES, Template
from ragen.eval.protocol import of_result
from ragen.eval.questions import QuestionBenchmark, evaluate_questions
from ragen.eval.results import ResultFiles


def main_lv3to5(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/lv3to5_dl.py``."""
    from ragen.eval.maths import MATH500, SIMPLERL

    parser = _parser("MATH500, or the SimpleRL-Zoo test file: strict and flexible.")
    parser.add_argument("--dataset", choices=("math500", "simplerl_test"), default="math500")
    args = parser.parse_args(argv)
    return _maths(args, {"math500": MATH500, "simplerl_test": SIMPLERL}[args.dataset])


def main_gsm8k(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/math_dl.py``."""
    from ragen.eval.maths import GSM8K

    return _maths(_parser("GSM8K: strict and flexible.").parse_args(argv), GSM8K)


def main_mmlu(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/mmlu_dl.py``."""
    from ragen.eval.choice import MMLU

    return _choice("MMLU, by subject.", MMLU, argv)


def main_mmlu_pro(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/mmlu_pro_dl.py``."""
    from ragen.eval.choice import MMLU_PRO

    return _choice("MMLU-Pro, by category.", MMLU_PRO, argv)


def main_social(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/social.py``."""
    from ragen.eval.choice import SOCIAL

    return _choice("SocialIQA (validation).", SOCIAL, argv)


def main_common(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """``reason_test/common.py``."""
    from ragen.eval.commongen import SOURCE, CommonGenBenchmark

    parser = _parser("CommonGen: concept coverage, and win-or-tie against human references by a judge model.")
    parser.add_argument("--judge", metavar="JSON", help='who judges: a player_info entry, \'{"model_name": "M", "port": 1414}\'')
    args = parser.parse_args(argv)
    settings = settings_from(args)
    judge = _judge(args.judge) if args.judge else None
    bench = CommonGenBenchmark(load_rows(args.data, SOURCE), _template(args, settings), judge)
    return _evaluate(bench, args, settings)


def _maths(args: argparse.Namespace, kind) -> dict[str, Any]:
    from ragen.eval.maths import MathBenchmark

    settings = settings_from(args)
    return _evaluate(MathBenchmark(kind, load_rows(args.data, kind.source), _template(args, settings)), args, settings)


def _choice(description: str, kind, argv: Sequence[str] | None) -> dict[str, Any]:
    from ragen.eval.choice import ChoiceBenchmark

    parser = _parser(description)
    parser.add_argument("--labels", metavar="FILE.lst", help="labels of the rows, one a line, where they lie apart")
    if kind.few_shot_source:
        parser.add_argument(
            "--shots", type=int, default=0, help="examples of the same category in front of a question (default 0)"
        )
        parser.add_argument("--few_shot", metavar="FILE", help="where examples come from (default: the benchmark's own)")
    args = parser.parse_args(argv)
    settings, shots = settings_from(args), getattr(args, "shots", 0)
    if shots < 0:
        raise ValueError(f"--shots must be 0 or more, got {shots}")
    examples: Rows | None = load_rows(args.few_shot, kind.few_shot_source) if shots else None
    data = load_rows(args.data, kind.source, args.labels)
    return _evaluate(ChoiceBenchmark(kind, data, _template(args, settings), examples, shots), args, settings)


def _judge(text: str):
    from ragen.eval.api import ApiClient
    from ragen.eval.win_or_tie import WinOrTie
    from ragen.players.remote import RemoteConfig

    try:
        entry = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--judge {text!r} is not JSON: {error}") from None
    config = RemoteConfig.from_entry({"temperature": 0.0, **entry})
    return WinOrTie(ApiClient(config).ask, {"model": config.model_name, "url": config.url, "temperature": config.temperature})


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add_common(parser)
    group = parser.add_argument_group("questions")
    group.add_argument("--data", help="a file (.jsonl, .json, .csv, .parquet), 'hub' or ORG/NAME (default: $GIFT_DATA, data/)")
    group.add_argument(
        "--template",
        choices=TEMPLATES,
        default="train",
        help="the form that is asked for: training's or the benchmark's usual one",
    )
    group.add_argument(
        "--samples", type=int, default=1, help="replies to each question: adds pass@k, majority vote and the mean (default 1)"
    )
    return parser


def _template(args: argparse.Namespace, settings: Settings) -> Template:
    return Template(args.template, settings.think, args.protocol)


def _evaluate(bench: QuestionBenchmark, args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from ragen.eval.load import make_replier

    if args.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {args.samples}")
    if args.samples > 1 and settings.temperature == 0:
        raise ValueError(f"--samples {args.samples} at temperature 0 gives the same reply each time: set --temperature")
    replier = make_replier(settings)
    try:
        result = evaluate_questions(bench, settings, replier, args.samples)
    finally:
        replier.close()
    say(table(result))
    say(f"result {ResultFiles(settings.output, bench.name).result}")
    return result


def table(result: dict[str, Any]) -> str:
    """Scores with intervals, a line each, and what is in no score."""
    counts = result["counts"]
    lines = [
        f"{result['benchmark']}: {counts['questions']} questions, {counts['samples']} replies each, protocol {of_result(result)}, "
        f"{result['seconds']:.1f} s"
    ]
    for name, score in result["scores"].items():
        told = "nothing to score" if score["value"] is None else f"{score['value']:.4f}  {stats.interval(score)}"
        lines.append(f"  {name:<11} {told}")
    if counts["too_long"]:
        lines.append(f"  {counts['too_long']} prompts are too long for the model and are in no score")
    if counts["failed"]:
        lines.append(f"  {counts['failed']} replies failed at the server and are in no score")
    if counts.get("without_references"):
        lines.append(f"  {counts['without_references']} rows have no human reference and were not judged")
    if counts.get("unjudged"):
        lines.append(f"  {counts['unjudged']} comparisons stayed unjudged and are in no score")
    return "\n".join(lines)
