"""The small WebShop: catalogue, search, pages, reward; and the env over it."""

import math
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("rank_bm25", reason="rank-bm25 is not installed (pip install rank-bm25)")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "external" / "webshop_minimal"))  # installed or not

from webshop_minimal import SearchEngine, Shop, make_catalogue, make_goals, score  # noqa: E402
from webshop_minimal.score import type_score  # noqa: E402
from webshop_minimal.search import _document, words  # noqa: E402

from ragen.env import make_env  # noqa: E402
from ragen.env.conformance import check_env_contract  # noqa: E402


@pytest.fixture(scope="module")
def catalogue():
    return make_catalogue(1000, 0)


@pytest.fixture(scope="module")
def goals(catalogue):
    return make_goals(catalogue)


@pytest.fixture(scope="module")
def engine(catalogue):
    return SearchEngine(catalogue)


def test_a_thousand_products_by_seed(catalogue):
    make_catalogue.cache_clear()
    assert make_catalogue(1000, 0) == catalogue != make_catalogue(1000, 1)
    assert len({p.asin for p in catalogue}) == 1000 and len({(p.title, p.price) for p in catalogue}) > 950
    kinds = Counter(p.kind for p in catalogue)
    assert max(kinds.values()) - min(kinds.values()) <= 1
    for p in catalogue:
        assert p.price > 0 and 3 <= len(p.attributes) == len(set(p.attributes)) and all(len(v) >= 2 for v in p.options.values())
        values = [v for vs in p.options.values() for v in vs]
        assert len(set(values)) == len(values)  # a button names one option


def test_bm25_is_the_formula(catalogue, engine):
    """Scores against Okapi BM25 written out (k1 1.5, b 0.75)."""
    documents = [words(_document(p)) for p in catalogue]
    mean = sum(map(len, documents)) / len(documents)
    query = ["navy", "linen"]
    containing = {term: sum(term in document for document in documents) for term in query}
    expected = []
    for document in documents:
        total = 0.0
        for term in query:
            df, tf = containing[term], document.count(term)
            idf = math.log(len(documents) - df + 0.5) - math.log(df + 0.5)
            total += idf * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * len(document) / mean))
        expected.append(total)
    assert list(engine._index.get_scores(query)) == pytest.approx(expected)




def test_search_finds_the_kind(engine):
    assert [p.kind for p in engine.search("frying pan")[:10]] == ["frying pan"] * 10
    assert engine.search("") == engine.search("zzz qqq") == [] and len(engine.search("black")) <= 50


def test_a_shopper_who_reads_the_instruction_gets_full_reward(catalogue, engine, goals):
    """Search, pages, options and buying lead to the product that was meant, by clicks alone."""
    shop, found = Shop(catalogue, engine), 0
    for goal in goals[::25]:
        shop.begin(goal)
        assert shop.clicks() == [] and not shop.act("click[buy now]")
        assert shop.act(f"search[{goal.product.title}]")
        while goal.product.asin not in shop.clicks() and shop.act("click[next >]"):
            pass
        if not shop.act(f"click[{goal.product.asin}]"):
            continue
        found += 1
        assert shop.act("click[Description]") and goal.product.description in shop.page() and shop.act("click[< prev]")
        assert shop.act("click[features]") and shop.act("click[< prev]")
        for value in goal.options.values():
            assert shop.act(f"click[{value}]") and f"(chosen: {value})" in shop.page()
        assert shop.act("click[buy now]") and shop.done and shop.reward == 1.0
        assert not shop.act("click[buy now]") and shop.clicks() == []
    assert found >= 38  # of 40


def test_pages_go_forward_and_back(catalogue, engine, goals):
    shop = Shop(catalogue, engine, page_size=4)
    shop.begin(goals[0])
    shop.act("search[black]")
    first = shop.page()
    assert not shop.act("click[< prev]") and shop.act("click[next >]") and shop.page() != first
    assert shop.act("click[< prev]") and shop.page() == first
    seen = list(shop.clicks())
    while shop.act("click[next >]"):
        seen += shop.clicks()
    assert len({c for c in seen if c.startswith("b0")}) == len(shop.results)
    assert not shop.act("search[x]") and shop.act("click[back to search]") and shop.place == "search"
    assert shop.act("search[nothing like this zzz]") and shop.page().startswith("[back to search]")


@pytest.mark.parametrize("action", ["", "buy", "search[]", "search[ ]", "click[]", "click[b9999]", "press[x]", "click[a] search[b]"])
def test_what_is_no_action_changes_nothing(catalogue, engine, goals, action):
    shop = Shop(catalogue, engine)
    shop.begin(goals[0])
    before = shop.page()
    assert not shop.act(action) and shop.page() == before


def test_reward_is_the_papers(catalogue, goals):
    """By hand: type * (attributes + options + price) / (asked attributes + options + 1)."""
    for goal in goals[:200]:
        asked = len(goal.attributes) + len(goal.options) + 1
        assert score(goal.product, goal.options, goal) == 1.0
        assert score(goal.product, {}, goal) == pytest.approx((asked - len(goal.options)) / asked)
        for other in catalogue[::97]:
            hit = len(set(goal.attributes) & set(other.attributes)) + (other.price <= goal.price)
            assert score(other, {}, goal) == pytest.approx(type_score(other, goal.product) * hit / asked)


def test_another_kind_of_product_counts_less(catalogue):
    by_kind = {p.kind: p for p in catalogue}
    shirt, tee, pan = by_kind["dress shirt"], by_kind["running tee"], by_kind["frying pan"]
    assert type_score(shirt, shirt) == 1.0
    assert type_score(tee, shirt) in (0.0, 1.0)  # same shelf, but a title may share no word
    other = [p for p in catalogue if not set(p.title.lower().replace(",", "").split()) & set(shirt.title.lower().replace(",", "").split())]
    assert other and all(type_score(p, shirt) == 0.0 for p in other) and type_score(pan, shirt) < 1.0


# -- the env ---------------------------------------------------------------------------------------


def buyer(env, seat, rng):
    """Searches for the kind, opens something, buys; sometimes talks nonsense."""
    if rng.random() < 0.1:
        return "nonsense"
    if env.shop.place == "search":
        return f"search[{env.goal.product.kind}]"
    wanted = [a for a in env.legal(seat) if a == "click[buy now]" and len(env.shop.chosen) == len(env.shop.item.options)]
    return rng.choice(wanted or [a for a in env.legal(seat) if "buy" not in a and "back" not in a])


def test_contract():
    report = check_env_contract(lambda: make_env("webshop"), range(3), replies=buyer, max_turns=60)
    assert report.refused > 0 and report.ended >= 1


def test_gymnasium_checker():
    from gymnasium.utils.env_checker import check_env

    check_env(make_env("webshop"), skip_render_check=True)


def test_a_whole_visit():
    env = make_env("webshop", {"split": "test"})
    env.reset(seed=4)
    assert env.goal.instruction in env.observe(0) and env.legal(0) is None
    refused = env.act(0, "click[buy now]")
    assert not refused.valid and refused.reward == -0.1
    product = env.goal.product
    env.act(0, f"search[{product.title}]")
    while f"click[{product.asin}]" not in env.legal(0):
        assert env.act(0, "click[next >]").valid
    env.act(0, f"click[{product.asin}]")
    for value in env.goal.options.values():
        env.act(0, f"click[{value}]")
    assert env.act(0, "click[buy now]").reward == 1.0
    assert env.acting() == () and env.outcome()[0].success and env.outcome()[0].metrics["score"] == 1.0


def test_splits_are_apart_and_goals_spread():
    products = {}
    for split in ("train", "test"):
        env, products[split] = make_env("webshop", {"split": split}), Counter()
        for seed in range(2000):
            env.reset(seed=seed)
            products[split][env.goal.product.asin] += 1
    assert not set(products["train"]) & set(products["test"])
    assert len(products["test"]) == 100 and max(products["test"].values()) < 45
    assert len(products["train"]) > 750


@pytest.mark.parametrize(("key", "value"), [("split", "dev"), ("products", 3), ("success_at", 0)])
def test_bad_config(key, value):
    with pytest.raises(ValueError, match=key):
        make_env("webshop", {key: value})
