"""Knobs of the shop."""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "test", "all")


@dataclass(frozen=True)
class WebShopConfig:
    """``products``, ``catalogue_seed``: the generated catalogue. ``split``: whose instructions are
    given; every tenth product is of ``test``. ``page_size``: products a result page.
    ``success_at``: the reward of a purchase (0 to 1) from which on it succeeds.
    ``invalid_penalty``: for an action that the page does not offer."""

    products: int = 1000
    catalogue_seed: int = 0
    split: str = "train"
    page_size: int = 10
    success_at: float = 1.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"webshop: split must be one of {SPLITS}, got {self.split!r}")
        if self.products < 10 or self.page_size < 1:
            raise ValueError(f"webshop: products must be at least 10 and page_size at least 1, got {self.products} and {self.page_size}")
        if not 0 < self.success_at <= 1:
            raise ValueError(f"webshop: success_at must be above 0 and at most 1, got {self.success_at}")
