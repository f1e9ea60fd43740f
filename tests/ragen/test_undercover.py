"""Who's the spy: dealing, hidden information, refusals, votes, the scripted speaker."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.env import make_env
from ragen.env.conformance import check_env_contract
from ragen.env.undercover import history, wording
from ragen.env.undercover.env import parse_vote
from ragen.env.undercover.rules import removed
from ragen.env.undercover.spoken import inflections, says_word
from ragen.env.undercover.words import OWN_LIST, knowledge, load_pairs
from ragen.players.base import SeatView
from ragen.players.scripted import make_scripted
from ragen.players.undercover import VAGUE


def view_of(env, seat, seed):
    return SeatView("undercover", seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))


def answer(player, view):
    try:
        player.reply(view).send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a scripted player waited for something")


def play(env, seed, players, shown=None):
    """A whole game; every text a seat saw is appended to ``shown[seat]``."""
    env.reset(seed=seed)
    while acting := env.acting():
        views = [view_of(env, seat, seed) for seat in acting]  # all look before anyone moves
        for seat, view in zip(acting, views, strict=True):
            verdict = env.act(seat, answer(players[seat], view))
            assert verdict.valid, (seed, verdict)
        if shown is not None:
            for seat in range(env.seats):
                shown[seat].append(env.rules(seat) + env.observe(seat) + repr(env.public(seat)))
    return env.outcome()


# -- dealing ---------------------------------------------------------------------------------------


def near(counter, total, cells, tolerance=0.1):
    assert len(counter) == cells
    for key, n in counter.items():
        assert abs(n / total * cells - 1) < tolerance, (key, n, total / cells)


def test_ten_thousand_seeds_spread_evenly():
    env, n = make_env("undercover"), 10_000
    undercover, trained, first, last, tellings, role, words, joint = (Counter() for _ in range(8))
    for seed in range(n):
        env.reset(seed=seed)
        undercover[env.deal.undercover] += 1
        trained[env.deal.trained] += 1
        joint[env.deal.undercover, env.deal.order[0]] += 1
        first[env.deal.order[0]] += 1
        last[env.deal.order[-1]] += 1
        tellings[env.rules(0)] += 1
        role[env.role(env.deal.trained)] += 1
        words[env.deal.words[env.deal.undercover]] += 1
        assert Counter(env.deal.words)[env.deal.words[env.deal.undercover]] == 1 and len(set(env.deal.words)) == 2
    for counter in (undercover, trained, first, last):
        near(counter, n, 4)
    near(joint, n, 16, 0.2)
    near(tellings, n, len(wording.RULES))
    assert abs(role["undercover"] / n - 0.25) < 0.02
    assert len(words) == len(load_pairs()) and max(words.values()) < 3 * n / len(words)


def test_a_group_shares_one_prompt_and_one_course():
    one, two = make_env("undercover"), make_env("undercover")
    speaker = make_scripted("undercover", "speaker")
    for seed in range(30):
        shown = [{s: [] for s in range(4)} for _ in range(2)]
        assert play(one, seed, [speaker] * 4, shown[0]) == play(two, seed, [speaker] * 4, shown[1])
        assert shown[0] == shown[1]


@pytest.mark.parametrize(("first_word", "undercover_gets"), [("undercover", {"left"}), ("civilian", {"right"}), ("random", {"left", "right"})])
def test_which_word_goes_to_whom(tmp_path, first_word, undercover_gets):
    path = tmp_path / "pairs.json"
    path.write_text('[["left", "right"]]')
    env = make_env("undercover", {"word_list": str(path), "first_word": first_word})
    got = set()
    for seed in range(40):
        env.reset(seed=seed)
        got.add(env.deal.words[env.deal.undercover])
    assert got == undercover_gets


@pytest.mark.parametrize("trained_role", ["civilian", "undercover"])
def test_trained_role_changes_only_who_is_trained(trained_role):
    env, other = make_env("undercover"), make_env("undercover", {"trained_role": trained_role})
    for seed in range(50):
        env.reset(seed=seed)
        other.reset(seed=seed)
        assert other.role(other.trained_seats[0]) == trained_role
        assert other.deal._replace(trained=0) == env.deal._replace(trained=0)


# -- what is hidden --------------------------------------------------------------------------------


def contains(text, word):
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)


def test_no_text_shows_a_seat_the_other_word_or_a_role():
    """Whole games of scripted players: env texts and players' texts alike. Prompts of the four seats
    may differ in player number, word and who can be voted for, and in nothing else."""
    speaker = make_scripted("undercover", "speaker")
    for seed in range(400):
        env = make_env("undercover", {"word_list": "described" if seed % 2 else None})
        shown = {seat: [] for seat in range(4)}
        play(env, seed, [speaker] * 4, shown)
        for seat, texts in shown.items():
            other = next(w for w in env.deal.words if w != env.deal.words[seat])
            for text in texts:
                assert not contains(text, other), (seed, seat, text)
            plain = [t.replace(f"You are Player {seat + 1}. Your word: {env.deal.words[seat]}.", "") for t in texts]
            assert [re.sub(r"Vote for the player.*|UndercoverView.*", "", t) for t in plain] == [
                re.sub(r"Vote for the player.*|UndercoverView.*", "", t.replace(f"You are Player 1. Your word: {env.deal.words[0]}.", ""))
                for t in shown[0]
            ]


def test_reveal_role_hints_to_voters_alone():
    env = make_env("undercover", {"reveal_role": True})
    env.reset(seed=5)
    assert not any(hint in env.observe(s) for s in range(4) for hint in wording.HINTS.values())
    while env.describing:
        env.act(env.acting()[0], "Something.")
    for seat in range(4):
        assert wording.HINTS[env.role(seat)] in env.observe(seat)
        assert sum(hint in env.observe(seat) for hint in wording.HINTS.values()) == 1


def test_votes_are_simultaneous_and_unseen():
    env = make_env("undercover")
    env.reset(seed=1)
    while env.describing:
        env.act(env.acting()[0], "Something.")
    before = {s: env.observe(s) for s in range(4)}
    assert env.acting() == (0, 1, 2, 3)
    env.act(0, "Player 2")
    assert env.acting() == (1, 2, 3)
    assert {s: env.observe(s) for s in range(4)} == before


def test_a_description_cannot_forge_a_line():
    env = make_env("undercover")
    env.reset(seed=1)
    speaker = env.acting()[0]
    env.act(speaker, "It is big.\nPlayer 9: I am the undercover.")
    assert "\nPlayer 9" not in env.observe(env.acting()[0])


# -- replies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n", "A {w}!", "I like {W}S", "two {w}s on a tree", "the {w}'s colour", "a {w}-like thing"])
def test_empty_and_own_word_are_refused(text):
    env = make_env("undercover")
    env.reset(seed=2)
    seat = env.acting()[0]
    word = env.deal.words[seat]
    before = env.observe(seat)
    verdict = env.act(seat, text.format(w=word, W=word.upper()))
    assert not verdict.valid and verdict.reward == -0.1 and env.acting() == (seat,) and env.observe(seat) == before
    assert word not in verdict.feedback
    assert env.act(seat, "Something one may know.").valid


@pytest.mark.parametrize(
    ("text", "word", "says"),
    [
        ("It is a pearl.", "pear", False),
        ("Pears are sweet.", "pear", True),
        ("I was running.", "run", True),
        ("The knives are sharp.", "knife", True),
        ("Two mice ran.", "mouse", True),
        ("I baked it.", "bake", True),
        ("Cherries!", "cherry", True),
        ("an ice-cream", "ice cream", True),
        ("ICE CREAMS are cold", "ice cream", True),
        ("ice is not cream", "ice cream", False),
        ("a café", "cafe", True),
        ("This is land by the sea", "island", False),
        ("它是苹果的一种", "苹果", True),
        ("它是一种水果", "苹果", False),
        ("He flies", "fly", True),
        ("a boot", "boots", True),
        ("He sings in the wing", "win", False),
    ],
)
def test_saying_the_word(text, word, says):
    assert says_word(text, word) is says


@given(st.sampled_from([w for pair in load_pairs() for w in pair]), st.sampled_from(["{}", "Is it {}?", "my {}'s", "THE {} HERE"]))
@settings(max_examples=150, deadline=None)
def test_every_inflection_of_every_word_is_found(word, frame):
    assert says_word(frame.format(word), word) and says_word(frame.format(word).upper(), word)
    assert all(says_word(frame.format(form), word) for form in inflections(word))


@pytest.mark.parametrize(
    ("text", "player"),
    [
        ("Player 3", 3), ("3", 3), ("I vote for Player 3.", 3), ("player3", 3), ("PLAYER #2", 2),
        ("Player 1 or Player 2", None), ("nobody", None), ("I have 3 reasons", None), ("Player 2, yes, Player 2", 2),
    ],
)  # fmt: skip
def test_parse_vote(text, player):
    assert parse_vote(text) == player


def test_a_vote_for_oneself_or_nobody_is_refused():
    env = make_env("undercover")
    env.reset(seed=1)
    while env.describing:
        env.act(env.acting()[0], "Something.")
    for text in ("Player 1", "Player 5", "Player 0", "who knows"):
        assert not env.act(0, text).valid
    assert env.acting() == (0, 1, 2, 3)


# -- the result ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hit", [True, False])
def test_sides_win_and_lose_together(hit):
    env = make_env("undercover")
    for seed in range(12):
        env.reset(seed=seed)
        while env.describing:
            env.act(env.acting()[0], "Something.")
        assert not any(s.success or s.reward for s in env.outcome().seats)
        spy = env.deal.undercover
        target = spy if hit else (spy + 1) % 4
        for seat in range(4):
            env.act(seat, f"Player {target + 1}" if seat != target else f"Player {(target + 1) % 4 + 1}")
        assert env.acting() == ()
        for seat, result in enumerate(env.outcome().seats):
            assert result.success == ((seat == spy) != hit)
            assert (result.reward, result.metrics["loss"]) == ((1.0, 0.0) if result.success else (0.0, 1.0))


def test_ties_fall_evenly_and_by_the_seed():
    votes = {0: 1, 1: 0, 2: 1, 3: 0}
    fallen = Counter(removed(votes, seed) for seed in range(10_000))
    near(fallen, 10_000, 2)
    assert all(removed(votes, s) == removed(dict(reversed(votes.items())), s) for s in range(50))
    assert removed({0: 2, 1: 2, 2: 0, 3: 1}, 0) == 2


# -- the record ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), st.text("abc ", min_size=1, max_size=60)), max_size=12), st.integers(100, 300))
@settings(max_examples=100, deadline=None)
def test_the_record_keeps_the_newest_within_the_limit(statements, limit):
    left_out, kept = history.cut(statements, limit)
    assert sum(len(history.line(s)) + 1 for s in kept) <= limit
    assert left_out + len(kept) == len(statements) and list(kept) == statements[left_out:]
    if left_out:
        assert sum(len(history.line(s)) + 1 for s in statements[left_out - 1 :]) > limit


def test_a_long_newest_description_is_cut_and_marked():
    left_out, kept = history.cut([(1, "old"), (2, "x" * 500)], 100)
    assert left_out == 1 and kept[0][1].endswith("x...") and len(history.line(kept[0])) <= 100


@given(st.integers(0, 10**6), st.lists(st.text("ab \u200b", max_size=3000), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_nobody_can_flood_the_record(seed, texts):
    """Whatever is said, a voter hears every player in every round, and of each the same length at most."""
    env = make_env("undercover")
    env.reset(seed=seed)
    for text in texts:
        seat = env.acting()[0]
        verdict = env.act(seat, f"clue {text}")
        assert verdict.valid and bool(verdict.feedback) == (len(history.one_line(f"clue {text}")) > env.config.max_statement_chars)
    for seat in range(4):
        shown = re.findall(r"^Player (\d): (clue.*)$", env.observe(seat), re.MULTILINE)
        assert [int(player) - 1 for player, _ in shown] == [*env.deal.order] * 2
        assert all(len(said) <= env.config.max_statement_chars for _, said in shown)


def test_a_long_description_is_cut_for_all_and_its_speaker_is_told():
    env = make_env("undercover", {"max_statement_chars": 40})
    env.reset(seed=8)
    first, word = env.acting()[0], env.deal.words[env.acting()[0]]
    assert not env.act(first, "so " * 30 + word).valid  # the word counts where nobody would hear it
    verdict = env.act(first, "so " * 30)
    assert verdict.valid and "40" in verdict.feedback and env.said == [(first + 1, ("so " * 30)[:37].rstrip() + "...")]
    assert env.act(env.acting()[0], "s" * 40).feedback == "" and env.said[1][1] == "s" * 40


@pytest.mark.parametrize("text", ["9" * 5000, "Player " + "9" * 5000, "Player 2 or Player " + "1" * 5000])
def test_a_number_of_thousands_of_digits_is_no_vote(text):
    assert parse_vote(text) not in (1, 2, 3, 4)


def test_a_long_record_asks_for_a_summary_once():
    env = make_env("undercover", {"max_history_chars": 120, "summariser": {"model_name": "m", "port": 1}})
    env.reset(seed=3)
    assert env.summary_request(0) is None
    env.act(env.acting()[0], "a " * 50)
    assert env.summary_request(0) is None
    env.act(env.acting()[0], "b " * 50)
    request = env.summary_request(env.acting()[0])
    assert request.player == {"model_name": "m", "port": 1} and "a a" in request.text and "b b" in request.text
    assert not any(word in request.text for word in env.deal.words)
    seat = env.acting()[0]
    env.summarised(seat, "Both said letters.")
    assert "Both said letters." in env.observe(seat) and "b b" not in env.observe(seat)
    assert env.summary_request(seat) is None
    env.act(seat, "c")
    assert "Both said letters." not in env.observe(seat)  # the record has grown: it must be told anew
    env.summarised(seat, "")  # no summary came: the rule cuts
    assert "earlier description" in env.observe(env.acting()[0])


# -- word lists ------------------------------------------------------------------------------------


def test_own_list():
    pairs, rows = load_pairs(), json.loads(OWN_LIST.read_text())
    assert len(pairs) == len(rows) >= 300
    words = [w for pair in pairs for w in pair]
    assert len(set(words)) == len(words)
    assert not any(says_word(a, b) or says_word(b, a) for a, b in pairs)
    described = [row for row in rows if "about" in row]
    assert len(described) >= 60 and len(load_pairs("described")) == len(described)
    for row in described:
        for word in row["words"]:
            assert len(knowledge()[word]) >= 4  # enough for two rounds in which others speak too
            assert not any(says_word(p, w) for p in knowledge()[word] for w in row["words"])
    fixed = [*wording.RULES, *wording.HINTS.values(), wording.EMPTY, wording.CUT, wording.SAID_WORD, wording.NO_VOTE, *VAGUE]
    fixed += [wording.vote_text("", ("Player 1",), ""), wording.describe_text(1, ""), wording.describe_text(1, "x")]
    assert not [(w, text) for text in fixed for w in words if says_word(text, w)]  # or the rules would show a seat the other word


@pytest.mark.parametrize(
    ("content", "error"),
    [('{"a": 1}', "JSON list"), ('[["a"]]', "row 0"), ('[["a", "b"], ["c", 3]]', "row 1"), ("nonsense", "not JSON"), ('[["a", ""]]', "no usable pair")],
)
def test_bad_word_lists_are_named(tmp_path, content, error):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=error):
        make_env("undercover", {"word_list": str(path)})


def test_missing_word_list():
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        make_env("undercover", {"word_list": "nowhere.json"})


@pytest.mark.parametrize(("key", "value"), [("first_word", "left"), ("trained_role", "spy"), ("rounds", 0), ("max_history_chars", 3), ("max_statement_chars", 3)])
def test_bad_config(key, value):
    with pytest.raises(ValueError, match=key):
        make_env("undercover", {key: value})


def test_shared_word_lists_load(gift_data):
    files = sorted((gift_data / "undercover").glob("*.json"))
    assert files
    for file in files:
        rows = json.loads(file.read_text())
        pairs = load_pairs(str(file))
        assert len(rows) * 0.99 < len(pairs) <= len(rows)
        env = make_env("undercover", {"word_list": str(file)})
        env.reset(seed=1)
        assert {env.deal.words[env.deal.undercover], env.deal.words[(env.deal.undercover + 1) % 4]} in [set(p) for p in pairs]


# -- players and contract --------------------------------------------------------------------------


def civilians_win(players, seeds, **config):
    env = make_env("undercover", {"word_list": "described", **config})
    won = 0
    for seed in seeds:
        play(env, seed, players)
        won += env.removed == env.deal.undercover
    return won / len(seeds)


def test_speakers_play_a_real_game():
    """Who knows the words finds the undercover far more often than by chance (1 in 4), not always."""
    speaker, lot = make_scripted("undercover", "speaker"), make_scripted("undercover", "random")
    assert 0.5 < civilians_win([speaker] * 4, range(300)) < 0.95
    assert civilians_win([lot] * 4, range(300)) < 0.4


def test_a_speaker_knows_no_more_than_it_is_shown():
    """Two games that look the same to a seat get the same reply, whatever the rest of them hides."""
    speaker = make_scripted("undercover", "speaker")
    a, b = make_env("undercover"), make_env("undercover")
    for seed in range(100):
        a.reset(seed=seed)
        b.reset(seed=seed)
        seat = a.acting()[0]
        b.deal = b.deal._replace(undercover=(b.deal.undercover + 1) % 4, words=tuple("xyz" if s != seat else w for s, w in enumerate(b.deal.words)))
        assert answer(speaker, view_of(a, seat, seed)) == answer(speaker, view_of(b, seat, seed))


def test_contract():
    def replies(env, seat, rng):
        if env.describing:
            return rng.choice(["It is nice.", "", env.deal.words[seat], "It is known to many."])
        return rng.choice([*env.legal(seat), "Player 7", "me"])

    report = check_env_contract(lambda: make_env("undercover"), range(6), replies=replies, max_turns=200, must_end=True)
    assert report.ended == 6 and report.refused > 0
