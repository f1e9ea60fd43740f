"""What a shopper is asked to buy."""

from __future__ import annotations

import random
from dataclasses import dataclass

from webshop_minimal.catalogue import Product

_PRICES = (10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300)
_TELLINGS = (
    "Find me {attributes} {kind}{options}, and price lower than {price} dollars.",
    "I need {kind} that is {attributes}{options}. It must cost less than {price} dollars.",
    "I am looking for {kind}{options}; it should be {attributes} and under {price} dollars.",
    "Please buy {attributes} {kind}{options} for no more than {price} dollars.",
)


@dataclass(frozen=True)
class Goal:
    """``product``: one that fits fully. ``attributes``, ``options`` and ``price`` (at most): what is
    asked for. ``instruction``: the same in words."""

    product: Product
    attributes: tuple[str, ...]
    options: dict[str, str]
    price: float
    instruction: str


def make_goals(catalogue: tuple[Product, ...], seed: int = 0) -> tuple[Goal, ...]:
    """One goal a product, in the catalogue's order."""
    return tuple(_goal(random.Random(f"goal {seed} {product.asin}"), product) for product in catalogue)


def _goal(rng: random.Random, product: Product) -> Goal:
    attributes = tuple(rng.sample(product.attributes, rng.randint(1, min(3, len(product.attributes)))))
    options = {name: rng.choice(values) for name, values in product.options.items()}
    limits = [price for price in _PRICES if price >= product.price]
    price = float(rng.choice(limits[:3]) if limits else round(product.price + 50, -1))
    chosen = " and ".join(f"{name} {value}" if not value.startswith(name) else value for name, value in options.items())
    text = rng.choice(_TELLINGS).format(
        attributes=", ".join(attributes), kind=product.kind, options=f" with {chosen}" if chosen else "", price=f"{price:g}"
    )
    return Goal(product, attributes, options, price, text)
