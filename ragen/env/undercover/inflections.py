"""Forms of an English word that are the same word: plurals, third person, past and -ing.

By spelling rules, with tables for what no rule gives and for what a rule gives wrongly. A *derived* word
is another word and not among them: ``farmer`` for farm, ``corner`` for corn (no rule tells the two apart),
``colder`` for cold. Parts of speech are not known, so a noun has the forms of a verb too (``parking`` for park).
"""

from __future__ import annotations

import re

_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth",
    "die": "dice", "ox": "oxen", "person": "people", "cactus": "cacti", "octopus": "octopi", "louse": "lice", "penny": "pence",
    "leaf": "leaves", "loaf": "loaves", "half": "halves", "calf": "calves", "elf": "elves", "wolf": "wolves", "thief": "thieves", "scarf": "scarves",
    "hoof": "hooves", "dwarf": "dwarves", "wharf": "wharves", "sheaf": "sheaves", "knife": "knives", "life": "lives", "wife": "wives",
}  # fmt: skip

#: lemma, then past forms; left out are pasts that are common words of another meaning (born, left, felt, ground, rose, spoke, saw)
_VERBS = """
become became|begin began begun|bend bent|bite bit bitten|blow blew blown|break broke broken|bring brought|build built|buy bought
catch caught|choose chose chosen|come came|creep crept|dig dug|draw drew drawn|dream dreamt|drink drank drunk|drive drove driven|eat ate eaten
fall fell fallen|feed fed|fight fought|flee fled|fly flew flown|forget forgot forgotten|freeze froze frozen|give gave given|go went gone
grow grew grown|hang hung|hear heard|hide hid hidden|hold held|keep kept|know knew known|lay laid|lead led|learn learnt|lend lent|light lit|lose lost
make made|meet met|pay paid|ride rode ridden|ring rang rung|rise risen|run ran|say said|see seen|seek sought|sell sold|send sent|shake shook shaken
shine shone|shoot shot|show shown|sing sang sung|sink sank sunk|sit sat|sleep slept|slide slid|speak spoken|spend spent|spin spun|spring sprang sprung
stand stood|steal stole stolen|stick stuck|sting stung|strike struck|sweep swept|swim swam swum|swing swung|take took taken|teach taught|tear tore torn
tell told|think thought|throw threw thrown|wake woke woken|wear wore worn|weave wove woven|weep wept|win won|write wrote written
"""
_PASTS = {lemma: tuple(forms) for lemma, *forms in (row.split() for row in re.split(r"[|\n]", _VERBS.strip()))}

#: words that the rules take for a form of a shorter one, and are not
_NO_FORM = {
    "blue": "blues", "crook": "crooked", "doe": "does", "dog": "dogged", "even": "evening", "fee": "feed", "good": "goods", "her": "herring",
    "inn": "inning innings", "lung": "lunged lunging", "mean": "means", "morn": "morning", "new": "news", "overall": "overalls", "rag": "ragged",
    "rug": "rugged", "see": "seed", "short": "shorts", "sing": "singed", "stock": "stocking", "tight": "tights", "wee": "weed", "wick": "wicked",
}  # fmt: skip
#: words in -s that have no singular of the same meaning
_NO_PLURAL = frozenset(form for forms in _NO_FORM.values() for form in forms.split() if form.endswith("s")) | {"glasses"}

_ONE_SYLLABLE = re.compile(r"(?:qu|[^aeiouy])*[aeiouy][bdgklmnprtv]")  # doubles its last letter: map, mapping
_MAY_DOUBLE = re.compile(r".*[^aeiou][aeiouy][bdgklmnprstvz]")  # market, marketing; tunnel, tunnelling; gas, gassed
_SIBILANT = re.compile(r".*(?:s|x|z|ch|sh|o)")
_CONSONANT_Y = re.compile(r".*[^aeiou]y")
_SILENT_E = re.compile(r".*[^aeoy]e")  # bake, glue; not see, shoe, dye


def forms_of(word: str) -> frozenset[str]:
    """The forms of one lower-case English word, itself among them."""
    if len(word) == 1:
        return frozenset({word})
    forms = {word, *_plurals(word), *_singulars(word), *_PASTS.get(word, ()), *_verb_forms(word)}
    return frozenset(forms - set(_NO_FORM.get(word, "").split()))


def _plurals(word: str) -> set[str]:
    """Plurals, and third persons of verbs."""
    if _CONSONANT_Y.fullmatch(word):
        forms = {word[:-1] + "ies"}
    else:
        forms = {word + "es"} if _SIBILANT.fullmatch(word) else set()
        forms.add(word + "s")
        if word.endswith("z"):
            forms.add(word + "zes")  # quizzes
    return forms | {word[: -len(one)] + many for one, many in _PLURALS.items() if word == one or (len(one) > 2 and word.endswith(one))}


def _singulars(word: str) -> set[str]:
    """Of a word that is a plural itself."""
    forms = {word[: -len(many)] + one for one, many in _PLURALS.items() if word == many}
    if len(word) <= 3 or not word.endswith("s") or word.endswith("ss") or word in _NO_PLURAL:
        return forms
    forms.add(word[:-1])
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    elif word.endswith("es") and _SIBILANT.fullmatch(word[:-2]) and len(word) > 5:  # not toes, shoes
        forms.add(word[:-2])
    return forms


def _verb_forms(word: str) -> set[str]:
    """-ed and -ing."""
    if len(word) < 3 or _ONE_SYLLABLE.fullmatch(word):
        stems = {word + word[-1]} if len(word) > 2 else {word}
        return {stem + end for stem in stems for end in ("ed", "ing")}
    if word.endswith("ie"):
        return {word + "d", word[:-2] + "ying"}  # lie, lying
    if word.endswith("e"):
        return {word + "d", (word[:-1] if _SILENT_E.fullmatch(word) else word) + "ing"}
    if _CONSONANT_Y.fullmatch(word):
        return {word[:-1] + "ied", word + "ing"}
    stems = {word, word + word[-1]} if _MAY_DOUBLE.fullmatch(word) else {word}
    if word.endswith("ic"):
        stems.add(word + "k")  # picnicking
    return {stem + end for stem in stems for end in ("ed", "ing")}
