"""Is a concept in a sentence? By stated rules of spelling, without a dictionary of the language.

A word of the sentence stands for a concept if it is the concept, or one of its forms:

* noun and verb: ``-s``; ``-es`` after s, x, z, ch, sh, o; consonant + y -> ``-ies``; ``-f``/``-fe`` -> ``-ves``
* verb: ``-ed``, ``-ing``; final e dropped (``riding``); ``-ie`` -> ``-ying``; consonant + y -> ``-ied``; the last
  consonant doubled after a single vowel (``stopping``)
* the irregular verbs and plurals listed below

Parts of speech are not told apart (``a climb`` counts for ``climb``); ``-er``, ``-ly`` and other derivations do
not count (``climber`` is not ``climb``). Case, punctuation and a possessive 's do not matter; a hyphenated
compound counts for its parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_VERBS = """
be am is are was were been being|have has had having|do does did done|go goes went gone|say said|make made|
take took taken|come came|see saw seen|know knew known|get got gotten|give gave given|find found|think thought|
tell told|become became|leave left|feel felt|put put|bring brought|begin began begun|keep kept|hold held|
write wrote written|stand stood|hear heard|let let|mean meant|set set|meet met|run ran|pay paid|sit sat|
speak spoke spoken|lie lay lain lying|lead led|read read|grow grew grown|lose lost|fall fell fallen|send sent|
build built|understand understood|draw drew drawn|break broke broken|spend spent|cut cut|rise rose risen|
drive drove driven|buy bought|wear wore worn|choose chose chosen|eat ate eaten|drink drank drunk|sleep slept|
fly flew flown|ride rode ridden|swim swam swum|sing sang sung|throw threw thrown|catch caught|teach taught|fight fought|
sell sold|win won|shoot shot|hang hung|hide hid hidden|hit hit|hurt hurt|shake shook shaken|shine shone|shut shut|
slide slid|spin spun|spread spread|spring sprang sprung|steal stole stolen|stick stuck|sting stung|strike struck|
sweep swept|swing swung|tear tore torn|wake woke woken|weave wove woven|wind wound|bend bent|bite bit bitten|
blow blew blown|bleed bled|breed bred|burn burnt|cling clung|creep crept|deal dealt|dig dug|dive dove|feed fed|
forget forgot forgotten|freeze froze frozen|grind ground|kneel knelt|lay laid|lean leant|leap leapt|learn learnt|
light lit|ring rang rung|seek sought|sew sewn|shear shorn|shed shed|shrink shrank shrunk|sink sank sunk|spill spilt|
split split|swear swore sworn|swell swollen|weep wept|dream dreamt|bet bet|bind bound|cast cast|cost cost|lend lent|
quit quit|rid rid|saw sawn|show shown|slit slit|spit spat|stink stank stunk|string strung|stride strode|thrust thrust|
tread trod
"""
_PLURALS = """
man men|woman women|child children|person people|foot feet|tooth teeth|goose geese|mouse mice|ox oxen|
fish fish|sheep sheep|deer deer
"""
_IRREGULAR: dict[str, frozenset[str]] = {}
for _group in (_VERBS + "|" + _PLURALS).split("|"):
    if _words := _group.split():
        _IRREGULAR[_words[0]] = _IRREGULAR.get(_words[0], frozenset()) | frozenset(_words)


@lru_cache(maxsize=8192)
def forms(concept: str) -> frozenset[str]:
    """Every spelling that stands for ``concept`` (see the module's rules)."""
    word = concept.casefold()
    found = {word, *_IRREGULAR.get(word, ())}
    if word.endswith("man") and len(word) > 3:
        found.add(word[:-3] + "men")
    found |= _with_s(word) | _with_ed_and_ing(word)
    return frozenset(found)


def _with_s(word: str) -> set[str]:
    found = {word + "s"}
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        found.add(word + "es")
    if re.search(r"[^aeiou]y$", word):
        found.add(word[:-1] + "ies")
    if word.endswith("f"):
        found.add(word[:-1] + "ves")
    if word.endswith("fe"):
        found.add(word[:-2] + "ves")
    return found


def _with_ed_and_ing(word: str) -> set[str]:
    found = {word + "ed", word + "ing"}
    if word.endswith("e"):
        found |= {word + "d", word[:-1] + "ing"}
    if word.endswith("ie"):
        found.add(word[:-2] + "ying")
    if re.search(r"[^aeiou]y$", word):
        found.add(word[:-1] + "ied")
    if re.search(r"[aeiou][bdgklmnprtvz]$", word) and not re.search(r"[aeiou]{2}.$", word):
        found |= {word + word[-1] + "ed", word + word[-1] + "ing"}
    return found


def words(sentence: str) -> set[str]:
    """The words of a sentence, in lower case, without possessive 's."""
    text = re.sub(r"['’]s\b", "", sentence.casefold())
    return set(re.findall(r"[^\W\d_]+", text))


def covered(concepts: Sequence[str], sentence: str) -> list[bool]:
    """For each concept, whether the sentence has it."""
    there = words(sentence)
    return [not forms(bare(concept)).isdisjoint(there) for concept in concepts]


def bare(concept: str) -> str:
    """``walk_V`` -> ``walk``."""
    return re.sub(r"_[A-Z]$", "", concept)
