"""The shop as a one-seat task. The shop itself is the package ``webshop_minimal``.

``python -m ragen.env.webshop.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from ragen.env.base import SoloEnv
from ragen.env.webshop.config import WebShopConfig

_RULES = (
    "You are shopping on a site. On the front page you search with search[words]; elsewhere you press one of the buttons in brackets "
    "with click[button]. Choose the options that are asked for on the product's page, then click[buy now]. You can buy once.\n"
)


@lru_cache(maxsize=2)
def _shop_parts(products: int, seed: int) -> tuple[Any, Any, Any]:
    """Catalogue, search index and goals, built once a process."""
    try:
        from webshop_minimal import SearchEngine, make_catalogue, make_goals
    except ImportError as error:
        raise ImportError(f"webshop needs the package webshop_minimal: pip install ./external/webshop_minimal ({error})") from error
    catalogue = make_catalogue(products, seed)
    return catalogue, SearchEngine(catalogue), make_goals(catalogue, seed)


class WebShopEnv(SoloEnv):
    """After a reset ``goal`` is what is asked for and ``shop`` the site."""

    def __init__(self, config: WebShopConfig | None = None):
        super().__init__()
        self.config = config or WebShopConfig()
        goals = self._parts()[2]
        chosen = {"test": goals[::10], "all": goals, "train": [g for i, g in enumerate(goals) if i % 10]}
        self._goals = chosen[self.config.split]

    def _parts(self) -> tuple[Any, Any, Any]:
        return _shop_parts(self.config.products, self.config.catalogue_seed)

    def start(self, rng: random.Random) -> str:
        from webshop_minimal import Shop

        catalogue, engine, _ = self._parts()
        self.goal = rng.choice(self._goals)
        self.shop = Shop(catalogue, engine, self.config.page_size)
        self.shop.begin(self.goal)
        return self._page()

    def _page(self) -> str:
        return f"Instruction: {self.goal.instruction}\n{self.shop.page()}"

    def rules(self, seat: int) -> str:
        return _RULES

    def legal(self, seat: int) -> tuple[str, ...] | None:
        if self._done:
            return ()
        return None if self.shop.place == "search" else tuple(f"click[{button}]" for button in self.shop.clicks())

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        if not self.shop.act(action):
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": "That is not possible on this page."}
        if not self.shop.done:
            return self._page(), 0.0, False, {}
        reward = self.shop.reward
        return self._page(), reward, True, {"success": reward >= self.config.success_at, "metrics": {"score": reward}}

    def __getstate__(self) -> dict[str, Any]:
        """Without catalogue and index, which every process builds for itself."""
        state = dict(self.__dict__, _goals=None)
        if "shop" in state:
            shop = state["shop"]
            state["shop"] = {key: value for key, value in vars(shop).items() if key != "engine"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        inside = state.pop("shop", None)
        fresh = WebShopEnv(state["config"])
        self.__dict__.update(state, _goals=fresh._goals)
        if inside is not None:
            from webshop_minimal import Shop

            catalogue, engine, _ = self._parts()
            self.shop = Shop(catalogue, engine)
            self.shop.__dict__.update(inside)


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("webshop")
