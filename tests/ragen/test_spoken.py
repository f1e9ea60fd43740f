"""Whether a description says its own word: hand-written sentences, disguises, people's own sentences, and time."""

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.env.undercover.spoken import inflections, says_word, tokens
from ragen.env.undercover.words import knowledge, load_pairs

#: word -> sentences that say it; every one must be refused
SAID = {
    "car": ["Two cars in a row.", "My car's colour is red.", "The cars' owners.", "CAR!", "It is (a car)."],
    "care": ["Caring for somebody.", "She cared a lot.", "He cares."],
    "bake": ["I was baking.", "It is baked in an oven."],
    "run": ["He ran home.", "She runs.", "They are running."],
    "swim": ["We swam.", "Who has swum here?", "A swimming fish."],
    "fly": ["It flew off.", "Flies are small.", "The flying kind.", "It has flown."],
    "study": ["She studies.", "He studied."],
    "glue": ["Gluing paper.", "It was glued."],
    "lie": ["She is lying.", "Nobody lied."],
    "map": ["A mapped coast.", "The mapping was done by hand."],
    "tunnel": ["They are tunnelling.", "tunneling", "tunnelled"],
    "picnic": ["We went picnicking."],
    "bus": ["All the buses.", "Busing is cheap."],
    "quiz": ["Two quizzes."],
    "potato": ["Mashed potatoes."],
    "leaf": ["Its leaves fall."],
    "shelf": ["Rows of shelves."],
    "knife": ["Sharp knives."],
    "wolf": ["A pack of wolves."],
    "tooth": ["It has teeth."],
    "mouse": ["Three blind mice."],
    "snowman": ["Children build snowmen."],
    "boots": ["One boot."],
    "dominoes": ["A domino falls."],
    "cherry": ["Cherries are red."],
    "café": ["At the cafe", "CAFÉS"],
    "naïve": ["How naive"],
    "ice cream": ["an ice-cream", "icecream", "two ice creams", "ice  cream", "ICE_CREAM"],
    "mother-in-law": ["mothers-in-law", "my mother in law"],
    "football": ["foot ball", "foot-ball", "footballs"],
    "pineapple": ["a pine apple", "pine-apples"],
    "mp3": ["an MP3 file", "mp-3"],
    "T恤": ["我的T恤很白"],
    "苹果": ["它是苹果", "一个 苹 果", "苹·果"],
    "яблоко": ["Это яблоко.", "ЯБЛОКО"],
    "стол": ["за столом", "столы"],
    "사과": ["사과는 맛있다"],
    "がき": ["がきだ"],
}
#: word -> ordinary sentences that do not say it; none may be refused
NOT_SAID = {
    "car": ["It needs caring for.", "He cared.", "A carpet in a cart.", "I am scared."],
    "rat": ["It has a good rating.", "Rated by all.", "At any rate."],
    "hat": ["I hated it.", "Hating is bad."],
    "star": ["People stared at it.", "Stop staring.", "start"],
    "bar": ["His feet were bared.", "baring"],
    "bat": ["Bathing in the lake.", "A battery", "my better half"],
    "bee": ["It is being made.", "One drinks beer."],
    "see": ["A small seed."],
    "doe": ["It does that often."],
    "new": ["I read it in the news."],
    "corn": ["It stands in the corner."],
    "ham": ["A hammer is heavy."],
    "moth": ["My mother has one."],
    "pie": ["Boats lie at the pier."],
    "sweat": ["I wear a sweater."],
    "lake": ["A lakeside hotel."],
    "pan": ["A pane of glass.", "Spanish", "Two window panes."],
    "pin": ["A pine tree.", "pining", "The pines are tall."],
    "plan": ["planes fly", "a planet"],
    "shoe": ["The shore"],
    "toes": ["It goes to the end."],
    "shoes": ["sho"],
    "lung": ["He lunged at me."],
    "rug": ["a rugged coast"],
    "dog": ["dogged work"],
    "wick": ["a wicked king"],
    "even": ["In the evening."],
    "inn": ["They lost an inning."],
    "news": ["It is new."],
    "glasses": ["Two round pieces of glass."],
    "goods": ["It is good for you."],
    "shorts": ["They are short."],
    "ear": ["You hear with it.", "It appears early."],
    "pear": ["a pearl", "It appears in autumn."],
    "ice": ["Nice and cold.", "Rice."],
    "island": ["There is land around it.", "It is, landwards, flat."],
    "carpet": ["A car, pets, and a house."],
    "herring": ["I gave her rings."],
    "ant": ["I want plants."],
    "art": ["It is a part of the start."],
    "ice cream": ["ice is not cream", "cream and ice"],
    "win": ["wine in the wind"],
    "ai": ["It has grade A. I like it, as they do."],
    "usa": ["use a pen", "Us, a team"],
    "苹果": ["它是一种水果", "果子很苹"],
    "кот": ["который час", "скот"],
    "стол": ["столица", "столкновение"],
    "かき": ["がきだ"],
}


@pytest.mark.parametrize("word", SAID)
def test_sentences_that_say_the_word_are_refused(word):
    assert [text for text in SAID[word] if not says_word(text, word)] == []


@pytest.mark.parametrize("word", NOT_SAID)
def test_sentences_that_do_not_say_the_word_are_not_refused(word):
    assert [text for text in NOT_SAID[word] if says_word(text, word)] == []


OWN = [w for pair in load_pairs() for w in pair]
PHRASES = sorted({phrase for known in knowledge().values() for phrase in known})


def test_the_lists_own_phrases_say_no_word_but_by_its_name():
    """All phrases against all words of the list: where one is refused it holds the word, its regular plural, or one of five forms."""
    odd = set()
    for word in (word for word in OWN if says_word("\n".join(PHRASES), word)):  # all at once first: it is quicker
        for phrase in PHRASES:
            if says_word(phrase, word) and not re.search(rf"\b{re.escape(word)}(s|es)?\b", phrase, re.IGNORECASE):
                odd.add((word, *sorted(inflections(word) & set(tokens(phrase)))))
    assert odd == {("fly", "flies"), ("leaf", "leaves"), ("mouse", "mice"), ("thief", "thieves"), ("tooth", "teeth")}


def test_people_s_sentences_say_their_concept(gift_data):
    """CommonGen: people were given a word and wrote a sentence with it, in any form. A judge of our rules that we did not write."""
    found = total = 0
    for line in (gift_data / "commongen" / "commongen_dev_refs.jsonl").read_text().splitlines():
        row = json.loads(line)
        for written in row["human_annotations"]:
            for concept in row["concept_set"]:
                total += 1
                found += says_word(written["ref"], concept)
    assert total > 7000 and found / total > 0.999


# -- disguises -------------------------------------------------------------------------------------

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u180e\u3164"
ALIKE = {"a": "аαɑᴀ", "c": "сϲᴄ", "e": "ееᴇ", "o": "оοᴏ", "p": "рρ", "i": "іιı", "x": "хχ", "y": "уү", "k": "кκ", "m": "м", "t": "тτ", "b": "вβ", "n": "ηɴ"}
SINGLE = [w for w in OWN if w.isascii() and w.isalpha() and len(w) > 2]


@given(st.sampled_from(SINGLE), st.data())
@settings(max_examples=300, deadline=None)
def test_no_disguise_of_a_letter_hides_the_word(word, data):
    said = ""
    for letter in word:
        kind = data.draw(st.sampled_from("plain plain invisible alike wide upper accent".split()))
        if kind == "alike" and letter in ALIKE:
            said += data.draw(st.sampled_from(ALIKE[letter]))
        elif kind == "wide":
            said += chr(ord(letter) + 0xFEE0)
        elif kind == "accent":
            said += letter + "\u0301"
        else:
            said += letter.upper() if kind == "upper" else letter
        if kind == "invisible":
            said += data.draw(st.sampled_from(INVISIBLE))
    frame = data.draw(st.sampled_from(["{}", "It is {}.", "a {}-like thing", "the {}’s end", "({})"]))
    assert says_word(frame.format(said), word)


@given(st.sampled_from(SINGLE), st.sampled_from([" ", "-", ".", "·", "_", "*", "/", " - ", "\u2013", "\n", "\u3000", "\u200b ", ", "]), st.sampled_from(["{}", "I spell {} now", "It is a {}"]))
@settings(max_examples=200, deadline=None)
def test_letters_apart_say_the_word(word, between, frame):
    assert says_word(frame.format(between.join(word)), word)
    assert says_word(frame.format(between.join(word.upper())), word)


@given(st.sampled_from(SINGLE), st.data(), st.sampled_from("-._*/·+~"))
@settings(max_examples=200, deadline=None)
def test_a_mark_within_the_word_does_not_hide_it(word, data, mark):
    place = data.draw(st.integers(1, len(word) - 1))
    assert says_word(f"It is {word[:place]}{mark}{word[place:]}, I think", word)


@given(st.sampled_from(SINGLE), st.sampled_from(["un{}", "{}xq", "q{}", "{}{}"]))
@settings(max_examples=200, deadline=None)
def test_a_longer_word_does_not_say_it(word, frame):
    longer = frame.format(word, word)
    if longer not in inflections(word):
        assert not says_word(f"It is {longer}.", word)


@given(st.text(max_size=80), st.sampled_from(OWN))
@settings(max_examples=300, deadline=None)
def test_any_text_is_judged(text, word):
    assert says_word(text, word) in (True, False)
    assert says_word(f"{text} {word}", word)  # a word more does not hide it, whatever came before


@pytest.mark.parametrize("piece", ["a", "a-", "1+", "'s", "а\u200b", "ap ple ", "苹-", "a\u0301", "x" * 50 + " ", "-", "\u200b"])
def test_time_grows_as_the_text_does(piece):
    """60,000 characters, three words, in seconds of this process; at quadratic cost it is minutes."""
    text = piece * (60_000 // len(piece))
    started = time.process_time()
    says_word(text, "apple")
    says_word(text, "ice cream")
    says_word(text, "苹果")
    assert time.process_time() - started < 4
