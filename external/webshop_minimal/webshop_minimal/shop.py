"""The site: which page the shopper is on, what it shows, and where a click leads.

Actions are WebShop's: ``search[words]`` on the front page, ``click[button]`` elsewhere.
"""

from __future__ import annotations

import re

from webshop_minimal.catalogue import Product
from webshop_minimal.goals import Goal
from webshop_minimal.score import score
from webshop_minimal.search import SearchEngine

BACK, NEXT, PREVIOUS, BUY = "back to search", "next >", "< prev", "buy now"
DESCRIPTION, FEATURES = "description", "features"
_ACTION = re.compile(r"\s*(search|click)\s*\[(.*)\]\s*", re.IGNORECASE | re.DOTALL)


class Shop:
    """One visit. ``begin(goal)`` opens the front page; ``act`` returns whether the action was
    possible there; after a purchase ``reward`` is its score and ``done`` is True."""

    def __init__(self, catalogue: tuple[Product, ...], engine: SearchEngine | None = None, page_size: int = 10):
        self.engine = engine or SearchEngine(catalogue)
        self.page_size = page_size

    def begin(self, goal: Goal) -> None:
        self.goal = goal
        self.place = "search"  # search, results, item, or a sub-page of an item
        self.query, self.results, self.number = "", [], 0
        self.item: Product | None = None
        self.chosen: dict[str, str] = {}
        self.reward, self.done = 0.0, False

    # -- what is shown --------------------------------------------------------------------------

    def page(self) -> str:
        """The page as text, buttons in brackets."""
        if self.done:
            return "Thank you for shopping with us."
        if self.place == "search":
            return "Front page. [search]"
        buttons = " ".join(f"[{button}]" for button in self._buttons())
        if self.place == "results":
            return f"{buttons}\nPage {self.number + 1} of {self._pages()}, {len(self.results)} found for: {self.query}\n{self._listing()}".rstrip()
        if self.place == DESCRIPTION:
            return f"{buttons}\n{self.item.description}"
        if self.place == FEATURES:
            return f"{buttons}\n" + "\n".join(f"- {feature}" for feature in self.item.features)
        return f"{buttons}\n{self._item_text()}"

    def _listing(self) -> str:
        start = self.number * self.page_size
        return "\n".join(f"[{p.asin}] {p.title} ${p.price:.2f}" for p in self.results[start : start + self.page_size])

    def _item_text(self) -> str:
        lines = [self.item.title, f"Price: ${self.item.price:.2f}"]
        for name, values in self.item.options.items():
            picked = f" (chosen: {self.chosen[name]})" if name in self.chosen else ""
            lines.append(f"{name}: {' '.join(f'[{value}]' for value in values)}{picked}")
        return "\n".join(lines)

    def _pages(self) -> int:
        return max(-(-len(self.results) // self.page_size), 1)

    def _buttons(self) -> list[str]:
        if self.place == "results":
            return [BACK] + [PREVIOUS] * (self.number > 0) + [NEXT] * (self.number + 1 < self._pages())
        if self.place == "item":
            return [BACK, PREVIOUS, DESCRIPTION, FEATURES, BUY]
        return [BACK, PREVIOUS]

    def clicks(self) -> list[str]:
        """Everything that can be clicked now; empty on the front page, where one searches."""
        if self.done or self.place == "search":
            return []
        clicks = self._buttons()
        if self.place == "results":
            start = self.number * self.page_size
            clicks += [product.asin for product in self.results[start : start + self.page_size]]
        if self.place == "item":
            clicks += [value for values in self.item.options.values() for value in values]
        return clicks

    # -- what is done ---------------------------------------------------------------------------

    def act(self, action: str) -> bool:
        """``False``, and nothing changes, if the action is none or not possible on this page."""
        match = _ACTION.fullmatch(action)
        if not match or self.done:
            return False
        verb, argument = match[1].lower(), " ".join(match[2].split())
        if verb == "search":
            if self.place != "search" or not argument:
                return False
            self.query, self.results, self.number = argument, self.engine.search(argument), 0
            self.place = "results"
            return True
        button = argument.lower()
        if button not in self.clicks():
            return False
        self._click(button)
        return True

    def _click(self, button: str) -> None:
        if button == BACK:
            self.place, self.item, self.chosen = "search", None, {}
        elif button in (NEXT, PREVIOUS) and self.place == "results":
            self.number += 1 if button == NEXT else -1
        elif button == PREVIOUS:
            self.place = "results" if self.place == "item" else "item"
        elif button in (DESCRIPTION, FEATURES):
            self.place = button
        elif button == BUY:
            self.reward, self.done = score(self.item, self.chosen, self.goal), True
        elif self.place == "results":
            self.item = next(product for product in self.results if product.asin == button)
            self.place, self.chosen = "item", {}
        else:
            name = next(name for name, values in self.item.options.items() if button in values)
            self.chosen[name] = button
