"""Results side by side: text, CSV, figure, the paper's row and its averages."""

import csv
import xml.etree.ElementTree as ET
from collections import Counter

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
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("paper: ") for line in lines) == 30 and any("75.00" in line for line in lines)
    (base,) = (line for line in lines if line.startswith("paper: Qwen2.5-1.5B base"))
    assert base.endswith("paper  (its columns give 21.70)")
    figure = (tmp_path / "p.svg").read_text()
    assert "paper: Qwen2.5-1.5B F+I3 nested" in figure and "paper: GPT-4o closed" in figure and "F+I1 mixed" not in figure
    compare.main([str(tmp_path / "m"), "--paper", "7b", "--figure", str(tmp_path / "p.svg")])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("paper: ")]
    assert len(rows) == 12 and all("7B" in line for line in rows) and "F+I1 mixed" in (tmp_path / "p.svg").read_text()
    with pytest.raises(ValueError, match="the paper has no such model"):
        compare.main([str(tmp_path / "m"), "--paper", "Llama"])


def test_an_average_of_two_protocols_is_not_formed():
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    made = {b: {"protocol": "paper", "scores": {s: score, "strict": score}} for b, s in paper.COLUMNS.values()}
    assert paper.table_row(made)["Avg"]["value"] == 0.5
    made["mmlu"]["protocol"] = "gift"
    assert paper.table_row(made)["Avg"] is None


def test_mathematics_under_the_papers_rules_is_the_strict_score():
    scores = {name: {"value": value, "low": value, "high": value} for name, value in (("strict", 0.25), ("flexible", 0.75))}
    for rules, expected in (("paper", 0.25), ("gift", 0.75)):
        assert paper.table_row({"math500": {"protocol": rules, "scores": scores}})["MATH"]["value"] == expected


def test_every_row_of_the_papers_tables_is_there_and_its_average_follows_or_is_marked():
    rows = paper.published()
    assert Counter(row["table"] for row in rows) == {"2": 11, "3": 11, "4": 4, "5": 4, "6": 2, "7": 3}
    odd = []
    for row in rows:
        again = sum(row[column] for column in paper.GENERAL) / 4
        assert row["Avg recomputed"] == pytest.approx(again, abs=0.0051)
        if abs(again - row["Avg"]) > paper.ROUNDING:
            odd.append((row["model"], row["method"]))
        assert all(0 <= row[column] <= 100 for column in paper.COLUMNS)
    assert odd == [("Qwen2.5-1.5B-Instruct", "none"), ("Qwen2.5-7B-Instruct", "math")]
    assert len(paper.distinct(rows)) == len({paper.label(row) for row in paper.distinct(rows)}) == 30


def test_the_published_rows_are_those_of_the_shared_copy(gift_data):
    with (gift_data / "paper" / "gift_tables.csv").open(newline="", encoding="utf-8") as shared:
        assert list(csv.DictReader(shared)) == list(csv.DictReader(paper.PUBLISHED.open(newline="", encoding="utf-8")))


def test_what_cannot_be_compared_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result file"):
        compare.main([str(tmp_path)])
    result(tmp_path / "a", 1)
    with pytest.raises(ValueError, match="has no score 'wins' .it has strict, flexible"):
        compare.main([str(tmp_path / "a"), "--score", "wins"])
