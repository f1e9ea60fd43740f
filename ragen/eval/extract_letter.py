r"""The letter that a reply to a multiple-choice question gives, by rules tried in turn (:data:`RULES`).

The rules look for what a reply *claims*: "the answer is B", "**B. London**", "so C is correct". A letter that is merely
mentioned ("option C is wrong too", "vitamin C", "A gas expands") is no claim. Of several claims of a kind the last
counts, as a model that corrects itself says the right thing last. A claim that names two letters ("A or B"), or one
that is not on offer ("(X)"), is no single answer, and no later rule is then tried.

How often each rule is right on real replies: ``python -m scripts.extraction_table`` and docs/evaluation.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ragen.eval.reply_parts import (
    Extracted,
    answer_block,
    boxed,
    first,
    half_width,
    outside_blocks,
    squeezed,
    strict_text,
    without_thoughts,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NOT_OFFERED = "?"
_REACH = 200  # characters of a sentence that are looked at on each side of a claim

_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathbb|boxed|fbox|bf|rm)\b|\\[()\[\],;! ]|[*`${}\"“”„«»「」]|__|(?<!\w)['‘_]|['’_](?!\w)")
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|__([^_\n]{1,300})__")

# what follows a letter that stands for an option
_AFTER = r"(?![A-Za-z\u00c0-\u1fff0-9_'’^+#=°%]|-\w| ?=)"
_LETTER = re.compile(rf"(?:[Oo]ption |[Cc]hoice |[Ll]etter |[Aa]nswer )?(?:([(\[<]) ?([A-Za-z]) ?[)\]>,]|([A-Za-z])[)\]]|([A-Za-z])){_AFTER}")
_SEPARATOR = r" ?(?:,|/|&|;|\band\b|\bor\b)(?: ?(?:and|or)\b)? ?(?:[Oo]ption |[Cc]hoice )?[(\[]?"
_ONE_MORE = re.compile(rf"{_SEPARATOR}([A-Z])(?![\w'’-])[)\]]?(?! (?:is|was|has|does|would|can|could|will|being)\b)")
_ONE_MORE_SENTENCE = re.compile(r"[.)]? ([A-Z])[.)]?\s*(?:\n|$)")
_EACH_FOR = re.compile(r" for .{1,80}?(?:,|\band|\bor)(?: \w+)? ?\(([A-Z])\) for\b")
_GOES_ON = re.compile(r" (?:because|since|as|and|or|but|not|for|which|with|is|was|due|given|rather|instead|in|on|by|from|here)\b| [^a-z]|[^ ]|$")
_ENDS = re.compile(r" ?(?:[.,;!:)\n]|$)| (?:because|since|as|and|or|but|not|rather|instead|here|with text)\b")
_NEXT_LABEL = re.compile(r"[^\n]*\n[-*•]? ?\(?([A-Z])[.):] ")

# "the answer is", "answer:", and the like; the letter follows. A verb claims only after a key in its sentence
_KEY = (
    r"(?:answer|choice|option|response|solution|letter|alternative|conclusion|statement|argument|claim"
    r"|(?:right|correct|best|true) one|respuesta|réponse|risposta|resposta|antwort|ответ)\b"
)
_CLAIM = re.compile(
    r"(?:(?P<direct>(?:答案|正解|選択肢)(?: ?(?:是|为|為|は))?[\]】]?:?|\b(?:answer|choice)\n)"
    r"|\b(?:is|was|be|remains|becomes|seems|es|est|ist|lautet|è|é)\b|[:=→])"
    r"(?:[\s:]*\b(?:therefore|thus|then|clearly|probably|likely|most likely|indeed|actually|simply|definitely|to be|be|the|either"
    r"|only|la|le|el|die|given by|hence)\b,?){0,3}[\s:]*(?:[-–•] ?)?",
    re.IGNORECASE,
)
_KEY_BEFORE = re.compile(_KEY, re.IGNORECASE)
_NO_CLAIM = re.compile(
    r"\b(?:not|cannot|never|wrong|incorrect|other|another|previous|(?:if|whether|assuming|suppose)(?: \w+){0,2} (?:answer|choice|option))\b|n't\b",
    re.IGNORECASE,
)
_SENTENCE_START = re.compile(r"[.;!?。](?=\s)|[\n。]")

# "B is correct", "Option D fits"
_CORRECT = re.compile(
    r"(?<![\w'’$])(?:(?P<word>[Oo]ption|[Cc]hoice|[Ll]etter|[Aa]nswer) )?[(\[]?(?P<letter>[A-Z])(?:[)\].:]{1,2}(?: [^\n]{1,200}?)?)?"
    r" (?:(?:is|must be|has to be|seems|seems to be) (?:the |most |only |clearly |therefore )*(?:correct|right|best|appropriate|answer)\b"
    r"|fits\b|matches\b)"
    r"(?! (?:if|only if|option if)\b|[^.\n]{0,20}\?)"
)
_NO_CORRECT = re.compile(r"\b(?:not|neither|nor|whether|if|and|or|both|is|are)\W*$", re.IGNORECASE)
_MARKED = re.compile(r"(?:^|\n)[-*•]? ?\(?([A-Z])[.):]+ ?(?:[^\n]{0,200}? [-–:] ?)?(?:Correct|True|Right|✓|✔|✅)(?![\w'’])")

# "I choose B", "that leaves C", "so D."
_CHOSEN = re.compile(
    r"\b(?:(?:choose|chose|pick|select|go with|going with|go for|settle on|opt for|say|vote for|leaves?|leaving|use)(?: only)?"
    r"|(?:it is|it's|it must be|(?i:hence|therefore|thus|so))(?: it is| it's| it must be)?|is)(?: the)?,? (?=[(\[]?[A-Z]\b|(?i:option|choice|letter|answer) )",
)
_NO_CHOICE = re.compile(r"\b(?:if|when|can|cannot|not|whether|would be|could)\b|n't\b", re.IGNORECASE)

_LINE = re.compile(r"(?:(?i:option|choice) )?[-•]? ?(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[.):]|([A-Z])(?=\n|$))[.:]?(?= |\n|$)(?! (?:is|was|would|has)\b)")
_LINE_STARTS = re.compile(r"(?:^|\n)[-•]? ?[(\[]?([A-Z])[.):\]]{1,2} ")
_INNER_LABEL = re.compile(r"[.:;] \(?([A-Z])[.)] ")

Options = Sequence[str]


def choice(reply: str, think: bool, usual: bool, options: Options) -> Extracted:
    """The letter of one of ``options``. Strict: a letter alone in the ``<answer>`` block of a reply that keeps
    the form, or (``usual``) "the answer is X" or nothing but a letter. Flexible: see :func:`letter`."""
    if usual:
        text = readable(without_thoughts(reply))
        strict = _alone(text, options) or _stated(text, options)
    else:
        block = strict_text(reply, think)
        strict = _alone(readable(block), options) if block is not None else None
    return Extracted(strict or None, *letter(reply, options))


def letter(reply: str, options: Options) -> tuple[str | None, str]:
    """Flexible: (letter, rule) by the first of :data:`RULES` that finds something in the answer block and, where there
    is none or it holds no answer, in the text around it."""
    text = without_thoughts(reply)
    block = answer_block(text)
    rules = [(name, lambda t, rule=rule: rule(t, options)) for name, rule in RULES.items()]
    found, rule = None, ""
    for part in (text,) if block is None else (block, outside_blocks(text)):
        found, rule = first(rules, readable(part))
        if found:
            break
    return found, rule if found else ""


def readable(text: str) -> str:
    return squeezed(half_width(text)).strip()


def _bare(text: str) -> str:
    """Without Markdown, LaTeX wrappers and quotation marks."""
    return squeezed(_MARKUP.sub("", text)).strip()


def _plain(text: str) -> str:
    return _bare(readable(text)).strip(" .!()").casefold()


# -- rules: (text, options) -> letter, "" for no single answer, None for nothing found -----------


def _alone(text: str, options: Options) -> str | None:
    """Nothing but a letter: ``B``, ``(b).``, ``**B**``."""
    m = re.fullmatch(r"[(\[<]?\s?([A-Za-z])\s?[)\]>]?[.:]?", _bare(text))
    return _offered(m[1], options) if m else None


def _option_text(text: str, options: Options) -> str | None:
    """Nothing but an option's text."""
    said = _plain(text)
    places = [i for i, option in enumerate(options) if said and _plain(option) == said]
    return LETTERS[places[0]] if len(places) == 1 else None


def _box(text: str, options: Options) -> str | None:
    r"""``\boxed{B}``, ``\boxed{\text{B. London}}``, ``\boxed{\text{London}}``."""
    inside = boxed(text)
    if inside is None:
        return None
    found = _option_text(inside, options)
    return found or _claim_or_none(_bare(inside), options)


def _stated(text: str, options: Options) -> str | None:
    """ "The answer is B", "**Answer:** B", ``{"answer": "B"}``, "the answer is London". The last one counts, unless more
    than three letters are claimed in turn. A letter that is not on offer ("the answer is (X)") takes back what was
    claimed before it, and is no claim itself."""
    text, found = _bare(text), []
    texts = [_plain(option) for option in options]
    for m in _CLAIM.finditer(text):
        tail = text[m.end() : m.end() + 2 * _REACH]
        claim = _claim(tail, options, listed="\n" in m[0])
        claim = _claimed_text(tail, texts) if claim is None else claim
        if claim is not None and (m["direct"] or _follows_key(_sentence_before(text, m.start()))):
            found.append(claim)
    letters = set(found) - {"", _NOT_OFFERED}
    if not found or set(found) == {_NOT_OFFERED}:
        return None
    return found[-1] if found[-1] in letters and len(letters) <= 3 else ""


def _correct(text: str, options: Options) -> str | None:
    """ "Option B is correct", "so D must be right", "B. Correct, ..." in a list of verdicts. All such claims agree."""
    text, found = _bare(text), set()
    for m in _CORRECT.finditer(text):
        bare_word = m["letter"] in "AI" and not m["word"] and text[m.start()] not in "([" and text[m.end("letter")] == " "
        if not (bare_word and m["letter"] == "I") and not _NO_CORRECT.search(text[max(0, m.start() - 20) : m.start()]):
            found.add(m["letter"])
    found |= set(_MARKED.findall(text))
    return None if not found else _offered(found.pop(), options) if len(found) == 1 else ""


def _chosen(text: str, options: Options) -> str | None:
    """ "I would go with B", "that leaves C", "hence D.", "... is (E)."."""
    text, found = _bare(text), None
    for m in _CHOSEN.finditer(text):
        if _NO_CHOICE.search(_sentence_before(text, m.start()).rpartition(",")[2]):
            continue
        tail = text[m.end() : m.end() + _REACH]
        at = _LETTER.match(tail)
        if not at or not _ENDS.match(tail[at.end() :]) or (m[0].strip() == "is" and tail[0] not in "(["):
            continue
        claim = _claim_or_none(tail, options)
        found = claim if claim is not None else found
    return found


def _bold(text: str, options: Options) -> str | None:
    """A letter, with or without text, in bold. All such letters agree."""
    found = {_label(_bare(asterisks or underscores), options) for asterisks, underscores in _BOLD.findall(text)} - {""}
    return None if not found else _offered(found.pop(), options) if len(found) == 1 else ""


def _line(text: str, options: Options) -> str | None:
    """The reply begins or ends with a line such as ``B. London``, ``(B)`` or ``B``, and has no other letter in such a
    place or in such a line."""
    text = _bare(text)
    lines = text.split("\n")
    ends = {line: label for line in (lines[0], lines[-1]) if (label := _label(line, options))}
    if not ends:
        return None
    found = set(ends.values()) | set(_INNER_LABEL.findall(text)) | {more for line in ends if (more := _second_label(line))}
    found |= {label for label in _LINE_STARTS.findall(text) if label in LETTERS[: len(options)]}
    return _offered(found.pop(), options) if len(found) == 1 else ""


def _with_option(text: str, options: Options) -> str | None:
    """One option, letter and text, anywhere ("use the 'B. London' option")."""
    said = _bare(text).casefold()
    found = [
        name for name, option in zip(LETTERS, options, strict=False)
        if any(f"{name.casefold()}{mark} {_plain(option)}" in said for mark in (".", ")", ":"))
    ]  # fmt: skip
    return None if not found else found[0] if len(found) == 1 else ""


def _named(text: str, options: Options) -> str | None:
    """The reply is one sentence that ends with the text (two words or more) of one option and of no other."""
    said = _plain(text)
    if "\n" in said or re.search(r"[.!?] ", said):
        return None
    wanted = [(name, _plain(option)) for name, option in zip(LETTERS, options, strict=False)]
    held = [name for name, option in wanted if option and option in said]
    ends = [name for name, option in wanted if " " in option and said.endswith(" " + option)]
    return ends[0] if len(held) == 1 and ends == held else None


#: in the order in which they are tried
RULES: dict[str, Callable[[str, Options], str | None]] = {
    "letter alone": _alone,
    "option text": _option_text,
    "boxed letter": _box,
    "stated": _stated,
    "called correct": _correct,
    "chosen": _chosen,
    "bold": _bold,
    "letter and text": _line,
    "letter with option": _with_option,
    "option named": _named,
}


# -- parts of claims -------------------------------------------------------------------------------


def _offered(name: str, options: Options) -> str:
    return name.upper() if name.upper() in LETTERS[: len(options)] else ""


def _sentence_before(text: str, place: int) -> str:
    """The sentence that leads up to ``place``, up to 200 characters of it."""
    part = text[max(0, place - _REACH) : place]
    return _SENTENCE_START.split(part)[-1]


def _follows_key(before: str) -> bool:
    """Whether ``before``, a sentence up to its verb, speaks of the answer: "so the correct choice", not "the other answer",
    and no option by its letter ("choice D is London")."""
    ends = [m.end() for m in _KEY_BEFORE.finditer(before)]
    return bool(ends) and not re.search(r"\b[A-Z]\b", before[ends[-1] :]) and not _NO_CLAIM.search(before)


def _label(line: str, options: Options) -> str:
    """The letter that labels ``line``, "" for none. A lower-case one counts before its option's text alone, as
    "a)" and "b)" number the parts of a solution."""
    m = _LINE.match(line)
    name = (m[1] or m[2] or m[3]) if m else ""
    if not name.islower():
        return name
    place = LETTERS.index(name.upper())
    rest = line[m.end() :]
    return name.upper() if not rest or place < len(options) and _plain(rest).startswith(_plain(options[place])) else ""


def _second_label(line: str) -> str:
    """``C`` of "B, C" and "B. C."."""
    end = _LINE.match(line).end()
    more = _ONE_MORE.match(line, end) or _ONE_MORE_SENTENCE.fullmatch(line, end)
    return more[1] if more else ""


def _claim(tail: str, options: Options, listed: bool = False) -> str | None:
    """The letter that ``tail`` begins with, if it stands for an option there. ``listed``: the tail begins on a line of
    its own, and may begin a list of all options."""
    m = _LETTER.match(tail)
    if not m:
        return None
    name, enclosed, after = m[2] or m[3] or m[4], bool(m[2] or m[3]), tail[m.end() :]
    if after[:1] == "?" or after[:2] == ")?":
        return None
    if not enclosed and name.islower():
        return (_offered(name, options) or None) if re.match(r" ?(?:[.,;:!\n]|$)", after) else None
    if not enclosed and name in "AI" and not _GOES_ON.match(after):  # the article, the pronoun
        return None
    if m[0].endswith(","):
        after = "," + after
    names = {name.upper()}
    while more := _ONE_MORE.match(after):
        names.add(more[1])
        after = after[more.end() :]
    for pattern in (_ONE_MORE_SENTENCE, _EACH_FOR):
        more = pattern.match(after)
        names |= {more[1]} if more else set()
    if listed and (more := _NEXT_LABEL.match(after)):
        names.add(more[1])
    return (_offered(name, options) or _NOT_OFFERED) if len(names) == 1 else ""


def _claim_or_none(tail: str, options: Options) -> str | None:
    """:func:`_claim`, and ``None`` for a letter that is not on offer."""
    found = _claim(tail, options)
    return None if found == _NOT_OFFERED else found


def _claimed_text(tail: str, texts: Sequence[str]) -> str | None:
    """The option of whose ``texts`` ``tail`` begins with one, the longest if several."""
    said = tail.lstrip("( ").casefold()
    held = [(len(text), name) for name, text in zip(LETTERS, texts, strict=False) if text and _says(said, text)]
    longest = [name for length, name in held if length == max(held)[0]]
    return None if not held else longest[0] if len(longest) == 1 else ""


def _says(said: str, text: str) -> bool:
    """Whether ``said`` begins with ``text`` and ends there, or goes on as a sentence does that has named its answer."""
    rest = said[len(text) :]
    if not said.startswith(text) or not re.match(r"[).,;:!]*(?:\s|$)", rest) or re.match(r",? (?:and|or)\b", rest):
        return False
    return rest[:1] != " " or bool(_GOES_ON.match(rest))
