"""A small text WebShop (after Yao et al. 2022, arXiv 2207.01206) over a generated catalogue."""

from webshop_minimal.catalogue import Product, make_catalogue
from webshop_minimal.goals import Goal, make_goals
from webshop_minimal.score import score
from webshop_minimal.search import SearchEngine
from webshop_minimal.shop import Shop

__all__ = ["Goal", "Product", "SearchEngine", "Shop", "make_catalogue", "make_goals", "score"]
