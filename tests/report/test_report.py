"""The report's file: what is in it, what is escaped, how large it is; runs, groups and the headline."""

import base64
import gzip
import hashlib
import json
import re
import time
from pathlib import Path

import pytest
from fake_runs import write_large_run, write_run

from ragen.report import __main__ as cli
from ragen.report import page as page_module
from ragen.report.episodes import choose, index_run, mask_faults, page_row, read_rows, widest_pair
from ragen.report.headline import TaskResult, headline, sentence, task_results
from ragen.report.outcome import difference, outcome, wilson
from ragen.report.page import build_page, build_payload, write_report
from ragen.report.runs import ReportError, load_run, load_runs

STATIC = Path(page_module.__file__).with_name("static")
EVIL = "</script><script>window.evil=1</script><img src=x onerror=window.evil=1><!-- \x1b[31m </think>"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "laptop")


def unpack(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed)))


# -- the file -----------------------------------------------------------------------------------


def test_one_file_that_asks_for_nothing(healthy, capsys):
    assert cli.main([str(healthy)]) == 0
    page = (healthy / "report.html").read_text("utf-8")
    assert "report.html" in capsys.readouterr().out and len(page) < 4e6
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == [] and "@import" not in page and "url(" not in page
    assert "default-src &#x27;none&#x27;" in page and "connect-src &#x27;none&#x27;" in page
    assert not list(healthy.glob("*.part"))


def test_the_policy_names_the_scripts_that_are_there(healthy):
    page = build_page([load_run(healthy)])
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    plotly = gzip.decompress(base64.b64decode(re.search(r'id="blob-plotly">([^<]*)<', page)[1]))
    for text in (script[0].encode(), plotly):
        assert f"sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}" in page
    assert len(script) == 1


def test_scripts_make_text_nodes_alone():
    files = list(STATIC.glob("*.js"))
    assert len(files) > 3
    for file in files:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()), file.name


def test_text_of_models_never_reaches_the_html(tmp_path):
    run = load_run(write_run(tmp_path / "r<b>un", steps=20, evil=EVIL, tags=("TicTacToe",)))
    page = build_page([run], title="<script>alert(1)</script>")
    assert "window.evil" not in page and "onerror" not in page and "<script>alert" not in page
    chunks = build_payload([run])["chunks"]
    assert any(EVIL in m["content"] for packed in chunks.values() for row in unpack(packed) for m in row["messages"])


def test_a_large_run_is_sampled_and_says_so(tmp_path):
    folder = write_large_run(tmp_path / "large")
    start = time.process_time()
    page = write_report([load_run(folder)], folder / "report.html").read_text("utf-8")
    assert time.process_time() - start < 30
    assert len(page) < 15e6
    data = unpack(re.search(r'id="blob-data">([^<]*)<', page)[1])
    assert 1000 < data["sampling"]["shown"] <= 3100 and data["sampling"]["of"] == 201 * 128
    assert set(data["episodes"]["step"]) == set(range(1, 201)) and any(data["episodes"]["tokens"])


def test_long_texts_are_cut_until_the_file_fits(healthy, monkeypatch):
    whole = sum(map(len, build_payload([load_run(healthy)])["chunks"].values()))
    monkeypatch.setattr(page_module, "MAX_EPISODE_BYTES", whole // 2)
    payload = build_payload([load_run(healthy)])
    assert sum(map(len, payload["chunks"].values())) <= whole // 2
    data = unpack(payload["data"])
    assert data["sampling"]["shown"] < data["sampling"]["of"] and len(data["telling"]) == 3
    row = page_row({"messages": [{"role": "user", "content": "x" * 50_000}], "tokens": {"text": ["a"] * 9000, "trained": [1] * 9000, "logprob": [0.0] * 9000, "advantage": [None] * 9000}})
    assert len(row["messages"][0]["content"]) < 10_000 and "characters left out" in row["messages"][0]["content"]
    assert len(row["tokens"]["text"]) == 2000 and row["tokens"]["left_out"] == 7000


def test_the_index_finds_its_episodes(healthy):
    run = load_run(healthy)
    payload = build_payload([run], max_episodes=60)
    data = unpack(payload["data"])
    columns = data["episodes"]
    for i, name in enumerate(columns["chunk"]):
        row = unpack(payload["chunks"][columns["chunks"][name]])[columns["row"][i]]
        assert (row["step"], row["phase"], row["group"], row["member"], row["tag"]) == tuple(columns[k][i] for k in ("step", "phase", "group", "member", "tag"))
        assert outcome(row) == columns["outcome"][i]


def test_numbers_that_are_not_finite_are_gaps(healthy, tmp_path):
    folder = write_run(tmp_path / "nan", steps=20, tags=("TicTacToe",))
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    rows[-1] = rows[-1].replace('"actor/grad_norm": ', '"actor/grad_norm": NaN, "was": ')
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    data = unpack(build_payload([load_run(folder)])["data"])
    assert data["runs"][0]["metrics"]["actor/grad_norm"][-1] is None
    assert data["runs"][0]["warnings"][0]["code"] == "nonfinite"


# -- headline -----------------------------------------------------------------------------------


def test_headline_of_a_healthy_run(healthy):
    run = load_run(healthy)
    head = headline(run, index_run(run))
    assert head.sentence.startswith("It learned TicTacToe (") and "NashNew" in head.sentence and head.doubt == "" and head.warnings == []
    assert [(r.basis, r.steps, r.episodes, r.verdict) for r in head.results] == [("validation", (0, 60), (256, 256), "learned")] * 2
    assert head.cost.seconds == pytest.approx(60 * 5 + 3) and head.cost.tokens == 60 * 21000 and head.cost.steps == 60
    assert len(head.telling) == 3 and head.telling[0].title == "One start, two endings"
    best, worst = head.telling[0].cards
    assert best.family == worst.family and best.reward > worst.reward and best.step == 60
    first, last = head.telling[1].cards
    assert (first.outcome, last.outcome) == ("loss", "win") and first.step < last.step


@pytest.mark.parametrize(("fault", "code", "telling"), [
    ("broken_mask", "wrong_mask", "What is trained here"), ("collapsed", "entropy_collapse", ""), ("dead_opponent", "dead_opponent", "Given up"),
])  # fmt: skip
def test_headline_of_a_sick_run(tmp_path, fault, code, telling):
    run = load_run(write_run(tmp_path / fault, fault=fault))
    head = headline(run, index_run(run))
    assert code in {w.code for w in head.warnings} and head.doubt.startswith("Not to be trusted")
    assert not telling or head.telling[0].title == telling
    if fault == "collapsed":
        assert head.sentence.startswith("It got worse at TicTacToe") and {r.verdict for r in head.results} == {"worse"}


def test_a_run_without_validation_is_judged_by_its_ends(tmp_path):
    folder = write_run(tmp_path / "r", tags=("TicTacToe",))
    rows = [{k: v for k, v in json.loads(line).items() if not k.startswith("val/")} for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (result,) = task_results(load_run(folder))
    expected = [sum(r["train/TicTacToe/success"] for r in part) / 5 for part in (rows[1:6], rows[-5:])]
    assert result.basis == "training" and [result.first, result.last] == pytest.approx(expected) and result.episodes == (1280, 1280)


def test_losing_less_is_learning_too():
    def result(first, last, losses):
        return TaskResult("T", "validation", (0, 60), first, last, (0, first), (256, 256), None, difference(first, last, 256, 256), losses)

    steadier = result(0.0, 0.0, (0.84, 0.6))  # a perfect player can be held to a draw and no more
    assert steadier.verdict == "steadier" and sentence([steadier]) == "It loses less at T (lost 84% → 60%)."
    assert result(0.0, 0.0, (0.6, 0.84)).verdict == "worse" and result(0.4, 0.6, (0.5, 0.5)).verdict == "learned"
    assert result(0.0, 0.0, None).verdict == result(0.0, 0.0, (0.6, 0.62)).verdict == "unclear"


def test_intervals_agree_with_published_ones():
    # Newcombe 1998, Statistics in Medicine 17: 857-872 (81/263) and 873-890 (56/70 against 48/80)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert difference(48 / 80, 56 / 70, 80, 70) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert wilson(0, 0) == (0, 1) and wilson(1.0, 10)[1] == 1


# -- runs and episodes ----------------------------------------------------------------------------


def test_runs_equal_up_to_the_seed_are_one_group(tmp_path, healthy):
    folders = [write_run(tmp_path / name, steps=10, seed=i, fault=fault) for i, (name, fault) in enumerate([("a_seed0", ""), ("a_seed1", ""), ("b", "collapsed")])]
    assert [r.group for r in load_runs(list(map(str, folders)))] == ["a", "a", "b"]
    assert [r.group for r in load_runs(list(map(str, folders)), "none")] == ["a_seed0", "a_seed1", "b"]
    named = load_runs([f"ours={folders[0]}", f"ours={folders[2]}", str(folders[1])])
    assert [r.group for r in named] == ["ours", "ours", "a_seed1"] and len({r.name for r in named}) == 3
    twins = load_runs([str(write_run(tmp_path / f"{x}/run", steps=10, fault=f)) for x, f in (("x", ""), ("y", "collapsed"))])
    assert [r.name for r in twins] == ["x/run", "y/run"]


def test_faults_of_a_folder_are_named(tmp_path, capsys):
    assert cli.main([str(tmp_path)]) == 1 and "no metrics.jsonl there" in capsys.readouterr().err
    write_run(tmp_path / "inner", steps=10)
    assert cli.main([str(tmp_path)]) == 1 and "did you mean one of its runs: inner" in capsys.readouterr().err
    metrics = tmp_path / "inner" / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text(text + '{"step": 11, "train')  # being written
    assert load_run(tmp_path / "inner").metrics[-1]["step"] == 10
    metrics.write_text("not json\n" + text)
    with pytest.raises(ReportError, match=r"metrics.jsonl, line 1: not a metrics row"):
        load_run(tmp_path / "inner")
    metrics.write_text("")
    with pytest.raises(ReportError, match="has not finished its first step"):
        load_run(tmp_path / "inner")


def test_secrets_are_masked(tmp_path):
    folder = write_run(tmp_path / "r", steps=10)
    (folder / "config.yaml").write_text("custom_envs:\n  T:\n    player_info:\n      - {provider: x, api_key: sk-123}\n    max_tokens: 5\n")
    config = load_run(folder).config
    assert config["custom_envs.T.player_info.0.api_key"] == "***" and config["custom_envs.T.max_tokens"] == 5


def test_choose_keeps_what_is_told_and_every_file(healthy):
    cards = index_run(load_run(healthy))
    keep = [cards[17], cards[-1]]
    chosen = choose(cards, 40, keep)
    assert set(keep) <= set(chosen) and len(chosen) <= 40 + 2 and {c.path for c in chosen} == {c.path for c in cards}
    assert chosen == [c for c in cards if c in set(chosen)] == choose(cards, 40, keep)
    best, worst = widest_pair(cards)
    assert best.reward - worst.reward == max(a.reward - b.reward for a in cards for b in cards if a.family == b.family)
    assert [r["member"] for r in read_rows([cards[5], cards[2]])] == [5, 2]


def test_a_wrong_mask_is_counted(tmp_path):
    assert mask_faults({"tokens": {"trained": [0, 1, 1, 0], "logprob": [None, -1.0, None, -2.0]}}) == (1, 1)
    assert mask_faults({"tokens": None}) == (0, 0)


@pytest.mark.parametrize(("row", "word"), [
    ({"status": "finished", "success": True}, "win"), ({"status": "finished", "metrics": {"draw": 1.0}}, "draw"), ({"status": "finished"}, "loss"),
    ({"status": "aborted", "success": True}, "aborted"), ({"status": "truncated"}, "truncated"), ({"status": "unfinished"}, "unfinished"), ({"status": "new"}, "unfinished"),
])  # fmt: skip
def test_outcome(row, word):
    assert outcome(row) == word
