"""Where the final answer is in a text: the last box, what follows "final answer is", else the whole text.

One text gives one answer, whatever else it mentions: several candidates must not be several guesses. Every function
takes time linear in the text (each regular expression is anchored or has one unbounded part).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_SAID = re.compile(r"final answer(?: is)?[ \t]*:?|<\|", re.IGNORECASE)
_DELIMITED = re.compile(r"(?<!\\)\$\$?|\\[(\[)\]]")
_CLOSER = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}
#: what may be between two boxes or formulas that belong to one listing
_JOINER = re.compile(r"(?:\s|[$,;.]|\\[()\[\],;: ]|\\q?quad|and|or|\\text\s*\{\s*,?\s*(?:and|or)\s*\})*")
_COPULA = re.compile(r"[:=]|\b(?:is|are|was|were|be|equals)\b|'s\b")
_CLAUSE = re.compile(r",?\s(?:that|which|who|where|when|such|because|since)\s")
_NEGATED = re.compile(r"\b(?:not|never|except|unless|neither|nor|cannot)\b|n't\b", re.IGNORECASE)


def final_statements(text: str) -> Iterator[str]:
    """Texts to read, best first; only the first that can be read as an answer counts. A box or a sentence with
    "final answer" settles it; else the whole text, its last formula, and what its last sentence with a digit states."""
    for start in reversed([m.start() for m in re.finditer(r"(?<!\\)\\\\(?=boxed|fbox)", text)][:1]):
        text = text[:start] + text[start:].replace("\\\\", "\\")  # written with doubled backslashes
    boxes = _boxes(text)
    said = [m for m in _SAID.finditer(text) if m[0] != "<|"]
    if said and said[-1].end() > (boxes[-1][1] if boxes else -1):
        line = text[said[-1].end() :].lstrip().split("\n", 1)[0]
        yield from _of_sentence(line.split("<|")[0].split(". I hope")[0])
    elif boxes:
        yield _last_group(text, boxes)
    else:
        text = text.split("<|")[0].strip()
        if text.startswith("**") and text.endswith("**"):
            text = text.strip("*")
        lines = [line for line in text.splitlines() if line.strip()]
        listed = len(lines) > 1 and "\\begin" not in text and all(re.search(r"\d", line) for line in lines)
        yield " , ".join(lines) if listed else text
        if re.search(r"[A-Za-z]{2}", text):  # a listing of bare numbers is no sentence about the last
            yield from _of_sentence(text)


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every outermost box with balanced braces, in order."""
    found, after = [], 0
    closing = _closing_braces(text) if "\\boxed" in text or "\\fbox" in text else {}
    for match in _BOX.finditer(text):
        end = closing.get(match.end())
        if match.start() >= after and end is not None:
            found.append((match.start(), end + 1, text[match.end() + 1 : end].strip()))
            after = end + 1
    return found


def _closing_braces(text: str) -> dict[int, int]:
    closing, opened = {}, []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def _last_group(text: str, spans: list[tuple[int, int, str]]) -> str:
    """The last of ``spans`` and those before it with nothing but joiners between, as a listing."""
    parts = [spans[-1][2]]
    for (_, end, content), (start, _, _) in zip(spans[-2::-1], spans[:0:-1], strict=True):
        if not _JOINER.fullmatch(text, end, start):
            break
        if content != parts[-1]:
            parts.append(content)
    return " , ".join(reversed(parts))


def _formulas(text: str) -> list[tuple[int, int, str]]:
    found, opened = [], None
    for match in _DELIMITED.finditer(text):
        if opened is None:
            opened = match if match[0] in _CLOSER else None
        elif match[0] == _CLOSER[opened[0]]:
            if content := text[opened.end() : match.start()].strip():
                found.append((opened.start(), match.end(), content))
            opened = None
    return found


def _of_sentence(text: str) -> Iterator[str]:
    """The last formula or, where digits follow it, what the last sentence with a digit states."""
    text = text.replace('\\"', " ").strip().strip('"* ')
    formulas = _formulas(text)
    rest = text[formulas[-1][1] :] if formulas else text
    if not re.search(r"\d", rest):
        if formulas and not _negated(text[: formulas[-1][0]]):
            yield _last_group(text, formulas)
        return
    for sentence in reversed(re.split(r"\.(?=\s)|\n", rest.removesuffix("."))):
        if re.search(r"\d", sentence):
            yield sentence
            copulas = list(_COPULA.finditer(sentence))
            if copulas and not _negated(sentence[: copulas[-1].end()]):
                yield _CLAUSE.split(sentence[copulas[-1].end() :])[0]
            return


def _negated(before: str) -> bool:
    """Whether the sentence up to an answer says that it is none ("the answer is not"; "not 10, it is" does not)."""
    return bool(_NEGATED.search(re.split(r"\d|\.\s|\n", before)[-1]))
