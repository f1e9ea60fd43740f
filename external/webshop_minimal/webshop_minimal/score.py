"""The reward of a purchase (Yao et al. 2022, section 3 and appendix A.5).

    r = r_type * (|U_att & Y_att| + |U_opt & Y_opt| + [y_price <= u_price]) / (|U_att| + |U_opt| + 1)

``U``: what is asked for, ``Y``: what is bought. ``r_type`` lowers the reward of another kind of
product: 1 if the categories share two levels or more than a fifth of the wanted title's words
match, else 0.5; 0.1 if less than a tenth match; 0 if none does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from webshop_minimal.catalogue import Product
from webshop_minimal.goals import Goal


def score(bought: Product, chosen: Mapping[str, str], goal: Goal) -> float:
    """Reward in [0, 1] of buying ``bought`` with the options ``chosen`` (name -> value)."""
    attributes = sum(attribute in bought.attributes for attribute in goal.attributes)
    options = sum(chosen.get(name) == value for name, value in goal.options.items())
    price = bought.price <= goal.price
    return type_score(bought, goal.product) * (attributes + options + price) / (len(goal.attributes) + len(goal.options) + 1)


def type_score(bought: Product, wanted: Product) -> float:
    """``r_type``: 1, 0.5, 0.1 or 0."""
    ours, theirs = _words(bought.title), _words(wanted.title)
    title = len(ours & theirs) / len(theirs)
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    same_category = len(set(bought.category) & set(wanted.category)) >= 2
    return 1.0 if same_category or title > 0.2 else 0.5


def _words(title: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", title.lower())) - {"for", "and", "with", "to", "of", "the", "a"}
