"""Finding products by words: BM25 (rank-bm25) over titles, attributes, options and descriptions."""

from __future__ import annotations

import re

import numpy as np
from rank_bm25 import BM25Okapi

from webshop_minimal.catalogue import Product


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


class SearchEngine:
    """``search(query)`` over a catalogue."""

    def __init__(self, catalogue: tuple[Product, ...]):
        self.catalogue = catalogue
        self._index = BM25Okapi([words(_document(product)) for product in catalogue])

    def search(self, query: str, limit: int = 50) -> list[Product]:
        """The best ``limit`` products, best first, equal ones in catalogue order; those that share
        no word with the query are left out."""
        terms = words(query)
        scores = self._index.get_scores(terms) if terms else np.zeros(len(self.catalogue))
        order = np.argsort(-scores, kind="stable")[:limit]
        return [self.catalogue[i] for i in order if scores[i] > 0]


def _document(product: Product) -> str:
    offered = " ".join(value for values in product.options.values() for value in values)
    return " ".join((product.title, *product.category, *product.attributes, offered, product.description))
