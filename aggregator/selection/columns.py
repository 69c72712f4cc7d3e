"""The plain form of what was learned, for whoever keeps it: arrays of equal length, a seller's row in each place.

All of it can be lost: it is learned again. Weights are counts of observations in which old ones fade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
"""Rows of sellers: dense indices from 0, used again only after a seller was removed."""

Floats = NDArray[np.float32]


class State(IntEnum):
    """What a seller's last answer about a book was."""

    NOT_CARRIED = 0
    """It does not sell the book."""
    NO_STOCK = 1
    """It sells it, but has none now."""
    IN_STOCK = 2
    """It quoted a price."""
    FAILED = 3
    """It gave no valid answer: nothing was learned about the book. Never kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerColumns:
    """What is known of sellers, all books together.

    Attributes:
        rows: the sellers.
        asked: weight of the answers, "no" among them.
        had: weight of those with a price.
        price_weight: weight of the prices that the next two are of.
        price_mean: mean of the logarithm of a total over its book's level.
        price_square: mean square of what a price is off that.
        calls: weight of the calls.
        failed: weight of those without a valid answer.
        latency_s: mean time of an answer.
        bought: weight of attempts to buy.
        refused: weight of those that the seller refused although it had quoted.

    """

    rows: Rows
    asked: Floats
    had: Floats
    price_weight: Floats
    price_mean: Floats
    price_square: Floats
    calls: Floats
    failed: Floats
    latency_s: Floats
    bought: Floats
    refused: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryColumns:
    """What is known of the sellers that were ever asked for books of one category.

    Attributes:
        category: which.
        at_s: the time at which the weights are these, in seconds since 1970; they fade from then on.
        best_weight: weight of the collections that ``best_mean`` is of.
        best_mean: mean of the logarithm of the lowest total over its book's level.
        rows: the sellers.
        asked: weight of the answers.
        had: weight of those with a price.
        price_weight: weight of the prices that the next one is of.
        price_mean: mean of what the logarithm of a total is above what the seller usually asks.
        apart: how much better a rate of the seller's own in this category explains its answers about stock than that by
            kinds of books: the logarithm of the ratio of the likelihoods.

    """

    category: str
    at_s: float
    best_weight: float
    best_mean: float
    rows: Rows
    asked: Floats
    had: Floats
    price_weight: Floats
    price_mean: Floats
    apart: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicColumns:
    """What is known of sellers in the kinds of books that were told apart by who has them.

    Attributes:
        rows: the sellers of which anything is known.
        asked: weight of the answers, a column for each topic.
        had: weight of those who sell the book, whether they have it or not, likewise.
        mixtures: by category, the weight of its books in each topic.

    """

    rows: Rows
    asked: Floats
    had: Floats
    mixtures: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookColumns:
    """What sellers last answered about one book.

    Attributes:
        book_id: which.
        rows: the sellers, ascending.
        state: a ``State`` each; never FAILED.
        total_minor: the last total, 0 where there was none; all of one currency.
        at_s: when they answered, in seconds since 1970.

    """

    book_id: str
    rows: Rows
    state: NDArray[np.uint8]
    total_minor: NDArray[np.int32]
    at_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralColumns:
    """What holds for all sellers together: small arrays, to be kept as they are.

    Attributes:
        at_s: the time at which the weights, those of ``SellerColumns`` among them, are these, in seconds since 1970.
        arrays: by name. Names or shapes that a later version does not know are ignored by it.

    """

    at_s: float
    arrays: Mapping[str, NDArray[np.float64]]
