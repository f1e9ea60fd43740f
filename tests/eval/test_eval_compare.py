"""Results side by side: text, CSV, figure, the paper's row and its averages."""

import csv
import xml.etree.ElementTree as ET

import pytest
from fake_model import FunctionReplier

from ragen.eval import compare, paper, stats
from ragen.eval.choice import MMLU, SOCIAL, ChoiceBenchmark
from ragen.eval.cli import Settings
from ragen.eval.data import Rows
from ragen.eval.prompts import Template
from ragen.eval.questions import evaluate_questions


def result(folder, wrong, kind=MMLU, hash="d", samples=1):
    """40 questions of which the first ``wrong`` are answered wrongly."""
    rows = [{"question": f"{i}", "subject": "s", "choices": ["a", "b"], "answer": 0} for i in range(40)]
    if kind is SOCIAL:
        rows = [
            {"context": "c", "question": f"{i}", "answerA": "a", "answerB": "b", "answerC": "c", "label": "1"} for i in range(40)
        ]
    bench = ChoiceBenchmark(kind, Rows(rows, {"hash": hash}), Template())
    replier = FunctionReplier(lambda r: f"<think></think><answer>{'B' if int(r.question.id) < wrong else 'A'}</answer>")
    return evaluate_questions(bench, Settings(str(folder)), replier, samples)


def test_two_models_paired_on_the_same_questions(tmp_path, capsys):
    result(tmp_path / "first", 20)
    result(tmp_path / "second", 12)
    result(tmp_path / "third", 12, hash="other data")
    table, figure = tmp_path / "t.csv", tmp_path / "t.svg"
    folders = [str(tmp_path / name) for name in ("first", "second", "third")]
    compare.main([*folders, "--csv", str(table), "--figure", str(figure)])
    first, second, third = csv.DictReader(table.open())
    assert (first["value"], first["difference"], second["difference"]) == ("0.5", "", "0.2")
    assert float(second["p_value"]) == pytest.approx(stats.mcnemar(8, 0))
    assert float(second["difference_low"]) < 0.2 < float(second["difference_high"])
    assert third["difference"] == "" and "other data" in third["note"]
    told = capsys.readouterr().out
    assert "difference +0.2000" in told and "n=40" in told
    svg = ET.fromstring(figure.read_text())
    circles = [e for e in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(circles) == 3 and float(circles[1].get("cx")) > float(circles[0].get("cx"))


def test_samples_are_paired_by_their_question(tmp_path):
    result(tmp_path / "a", 20, samples=3)
    result(tmp_path / "b", 10, samples=3)
    rows = compare.compare([compare.read_entry(tmp_path / "a"), compare.read_entry(tmp_path / "b")], score="strict")
    assert (rows[1]["difference"], rows[1]["pairs"], rows[1]["score"]) == (0.25, 40, "strict")


def test_the_papers_row_and_its_average(tmp_path, capsys):
    result(tmp_path / "m", 20)
    result(tmp_path / "m", 10, kind=SOCIAL)
    entry = compare.read_entry(tmp_path / "m")
    row = paper.table_row(entry.results)
    assert row["MMLU"]["value"] == 0.5 and row["Social"]["value"] == 0.75 and row["Common"] is None
    assert row["Avg"] is None  # two of its four columns are missing
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    full = paper.table_row({b: {"scores": {s: score}} for b, s in paper.COLUMNS.values()})
    assert full["Avg"] == {"value": 0.5, "low": pytest.approx(0.45), "high": pytest.approx(0.55)}
    compare.main([str(tmp_path / "m"), "--paper", "--figure", str(tmp_path / "p.svg")])
    told = capsys.readouterr().out
    assert "paper: 1.5B base" in told and "(its columns give 21.70)" in told and "75.00" in told
    assert "paper: 7B maths only" in (tmp_path / "p.svg").read_text()


def test_published_averages_agree_with_their_columns_or_say_so():
    for row in paper.published():
        again = paper.recomputed(row)
        if again is not None:  # the columns are known here
            assert again == pytest.approx(row["Avg"] if row["Avg recomputed"] is None else row["Avg recomputed"], abs=0.011)
        assert row["source"]
    printed = {(row["model"], row["method"]): (row["Avg"], row["Avg recomputed"]) for row in paper.published()}
    assert printed["1.5B", "base"] == (27.1, 21.7) and printed["7B", "maths only"] == (42.0, 52.51)


def test_what_cannot_be_compared_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result file"):
        compare.main([str(tmp_path)])
    result(tmp_path / "a", 1)
    with pytest.raises(ValueError, match="has no score 'wins' .it has strict, flexible"):
        compare.main([str(tmp_path / "a"), "--score", "wins"])
