"""Tokens that steer a chat model, and how the text of a message is kept from writing them.

Which they are is read from the whole tokenizer, not from its special-tokens map alone: Gemma and Phi keep the end of a
turn, Llama-3 its headers, as added tokens outside that map.

A look-alike in a message is cut after its first character by a mark. In a copy of the tokenizer the mark is an added
token, so the text is split there before anything else sees it, and its id is dropped afterwards. transformers' own
``split_special_tokens`` is not enough: it still matches added tokens that are not marked special, and a Unigram vocabulary
finds ``<s>`` again in plain text. The mark goes through the chat template with the message, so whatever the
template does to a message (trim it, leave its thoughts out) it does to one with look-alikes too.
"""

from __future__ import annotations

import copy
import re

from transformers import AddedToken

#: text that players and policies write (the form of a reply, a thinking model's own thoughts), whatever a tokenizer marks it
FORM_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
#: private-use characters: no tokenizer, template or normalizer treats them specially
_CUT = "\U000f6e31\U0010a2c7\U000f91d4"


class ControlTokens:
    """``scaffold``: text that the chat template writes around messages. ``ids``: of the control tokens: those of the
    special-tokens map, every added token marked special, and every other added token of the scaffold that is not
    plain text (a word, white space); never ``<think>``, ``<answer>`` and their ends."""

    def __init__(self, tokenizer, scaffold: str):
        self._tokenizer = tokenizer
        added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
        found = set(tokenizer.all_special_tokens)
        found |= {t.content for t in added if t.special or (t.content in scaffold and not _is_plain(t.content))}
        self.texts = tuple(sorted(found - set(FORM_TAGS) - {""}, key=lambda t: (-len(t), t)))
        self.ids = frozenset(tokenizer.convert_tokens_to_ids(list(self.texts))) - {None}
        # an unknown character is no control token, even where its id is in the special-tokens map
        self._steering = self.ids - {tokenizer.unk_token_id}
        # "＜s＞" or "<S>" may be matched too where a token is looked for in normalized text
        self._normalized = any(t.normalized and t.content in found for t in added)
        starts = "|".join(map(re.escape, self.texts))
        self._start = re.compile(rf"(?=(?:{starts}))(.)", re.DOTALL) if starts else None
        self._single = {t for t in self.texts if len(t) == 1}
        self._cutter = copy.deepcopy(tokenizer)
        self._cutter.add_tokens([AddedToken(_CUT, normalized=False, special=False)])
        self._cut_id = self._cutter.convert_tokens_to_ids(_CUT)

    def quote(self, text: str) -> str:
        """``text`` with a mark in every look-alike; without one, as it is. (A control token of one character
        cannot be cut: the character is replaced by U+FFFD.)"""
        if self._start is None:
            return text
        quoted = self._start.sub(self._cut, text)
        if self._normalized and self._steering & set(self.encode(quoted)):
            quoted = _CUT.join(text)
        return quoted

    def _cut(self, match: re.Match) -> str:
        return "\ufffd" if match[1] in self._single else match[1] + _CUT

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text: quoted look-alikes as plain characters, everything else as the tokenizer has it."""
        if _CUT not in text:
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [i for i in self._cutter(text, add_special_tokens=False)["input_ids"] if i != self._cut_id]

    def leading(self, text: str) -> str:
        """The control token that ``text`` begins with, white space aside, with that white space; else ""."""
        head = text[: len(text) - len(text.lstrip())]
        found = next((t for t in self.texts if text[len(head) :].startswith(t)), "")
        return head + found if found else ""


def _is_plain(text: str) -> bool:
    return not text.strip() or text.isalnum()
