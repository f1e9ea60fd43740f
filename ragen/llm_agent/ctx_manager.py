"""Text to tokens: a conversation kept as token ids, never as text to be tokenized again.

What the policy sampled is appended as the ids the engine returned. What the environment says is
appended as the *difference* the chat template makes: the template is rendered around sentinels, and
only the text it puts between the sampled reply and the next generation prompt is tokenized. So the
sampled tokens stay bit for bit what they were, for any tokenizer and any content, and the mask is
provenance, not a search for markers.

Where a context cannot only grow (a template that strips earlier thoughts, a window of turns), each
turn is a sample of its own: its prompt is rendered from the messages, its reply is what was sampled.
"""

from __future__ import annotations

from ragen.llm_agent.trajectory import Sample, Turn

# Letters only, so that no tokenizer or template treats them specially; checked to be absent from texts.
_USER, _ASSISTANT = "QZXUSERXZQ", "QZXASSISTANTXZQ"


class ChatTokens:
    """Token ids of prompts and continuations under one tokenizer's chat template.

    Raises ``ValueError`` if the tokenizer has no chat template, or no token that ends a reply.
    """

    def __init__(self, tokenizer, *, system_prompt: str | None = None):
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "the tokenizer has no chat template: use an instruct model, or put a chat_template.jinja into its folder"
            )
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.special = tuple(sorted(set(tokenizer.all_special_tokens), key=len, reverse=True))
        self._tail = self._find_tail()
        self.stop_ids = self._find_stop_ids()
        self.append_only = self._is_append_only()

    # -- the template, by rendering it --------------------------------------------------------

    def messages(self, turns: list[dict]) -> list[dict]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return system + turns

    def _render(self, turns: list[dict], generate: bool) -> str:
        return self.tokenizer.apply_chat_template(self.messages(turns), tokenize=False, add_generation_prompt=generate)

    def _find_tail(self) -> tuple[str, str]:
        """What the template writes after a reply and around the next user message:
        ``(text before the message, text after it)``."""
        text = self._render(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": _ASSISTANT}, {"role": "user", "content": _USER}],
            generate=True,
        )
        after_reply = text.split(_ASSISTANT, 1)[1]
        before, after = after_reply.split(_USER, 1)
        return before, after

    def _find_stop_ids(self) -> tuple[int, ...]:
        """The token that the template writes right after a reply, and the tokenizer's own end."""
        ids = self._encode_template(self._tail[0])
        stops = [i for i in (ids[:1] + [self.tokenizer.eos_token_id]) if i is not None and i in set(self.tokenizer.all_special_ids)]
        if not stops:
            raise ValueError("no token ends a reply: the chat template closes it with plain text and the tokenizer has no eos_token")
        return tuple(dict.fromkeys(stops))

    def _is_append_only(self) -> bool:
        """Whether an earlier reply, thoughts included, is kept word for word by the template."""
        reply = f"<think>{_ASSISTANT}</think><answer>1</answer>"
        first = [{"role": "user", "content": "x"}]
        text = self._render(first + [{"role": "assistant", "content": reply}, {"role": "user", "content": "y"}], generate=True)
        return text.startswith(self._render(first, generate=True) + reply)

    # -- ids ----------------------------------------------------------------------------------

    def _encode_template(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encode_content(self, text: str) -> list[int]:
        """Text of the environment: look-alikes of special tokens are read as plain characters."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if set(ids) & set(self.tokenizer.all_special_ids):
            raise ValueError(f"the tokenizer turns plain text into special tokens: {text[:80]!r}")
        return ids

    def _encode(self, before: str, content: str, after: str) -> list[int]:
        # one piece where nothing looks like a special token, so that ids equal apply_chat_template's
        if not any(token in content for token in self.special):
            return self._encode_template(before + content + after)
        return self._encode_template(before) + self._encode_content(content) + self._encode_template(after)

    def prompt(self, turns: list[dict]) -> list[int]:
        """Ids of a whole conversation, ending in the generation prompt."""
        texts = [t["content"] for t in turns]
        if not any(token in text for text in texts for token in self.special):
            return self._encode_template(self._render(turns, generate=True))
        marked = [dict(t, content=f"{_USER}{i}E") for i, t in enumerate(turns)]
        rest, ids = self._render(marked, generate=True), []
        for i, text in enumerate(texts):
            before, found, rest = rest.partition(f"{_USER}{i}E")
            if not found:  # the template left this message out
                rest = before
                continue
            ids += self._encode_template(before) + self._encode_content(text)
        return ids + self._encode_template(rest)

    def continuation(self, content: str, last_id: int) -> list[int]:
        """Ids between a sampled reply that ended in ``last_id`` and the next generation prompt, the
        user message ``content`` within."""
        before, after = self._tail
        ids = self._encode(before, content, after)
        return ids[1:] if ids and ids[0] == last_id else ids

    def decode_reply(self, ids: list[int]) -> str:
        """Text of a sampled reply without its end token (other special tokens stay visible)."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class Conversation:
    """One agent's context. ``window``: how many earlier turns a prompt shows (0: all of them, -1: none)."""

    def __init__(self, chat: ChatTokens, *, window: int = 0):
        self.chat = chat
        self.window = window
        self.append_only = chat.append_only and not window
        self.turns: list[dict] = []
        self.samples: list[Sample] = []
        self._rules = ""

    def prompt_for(self, user_text: str, rules: str = "") -> list[int]:
        """Add a user message and return the ids to sample from. ``rules`` (empty: none shown yet or
        unchanged) are repeated at the head of a window that no longer shows them."""
        self._rules = rules or self._rules
        self.turns.append({"role": "user", "content": user_text})
        if self.append_only and self.samples:
            sample = self.samples[-1]
            new = self.chat.continuation(user_text, sample.ids[-1])
            self._append(sample, new)
        else:
            self.samples.append(Sample())
            self._append(self.samples[-1], self.chat.prompt(self.visible()))
        return self.samples[-1].ids

    def visible(self) -> list[dict]:
        """The messages that the next reply may see: the window, the rules at its head."""
        count = 2 * max(self.window, 0) + 1
        if not self.window or len(self.turns) <= count:
            return self.turns
        shown = self.turns[-count:]
        if self._rules and not any(self._rules in t["content"] for t in shown):
            shown = [dict(shown[0], content=self._rules + shown[0]["content"])] + shown[1:]
        return shown

    @staticmethod
    def _append(sample: Sample, ids: list[int]) -> None:
        sample.ids.extend(ids)
        sample.mask.extend([False] * len(ids))
        sample.logprobs.extend([0.0] * len(ids))

    def sampled(self, ids: list[int], logprobs: list[float], *, cut: bool) -> Turn:
        """Append what the engine returned; ``cut``: it ran into the token limit."""
        sample = self.samples[-1]
        start = len(sample.ids)
        sample.ids.extend(ids)
        sample.mask.extend([True] * len(ids))
        sample.logprobs.extend(logprobs)
        text = self.chat.decode_reply(ids)
        turn = Turn(start, len(sample.ids), text, prompt=self.turns[-1]["content"], cut_at_limit=cut)
        sample.turns.append(turn)
        self.turns.append({"role": "assistant", "content": text})
        return turn
