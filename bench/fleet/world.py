"""The world that policies are tried in: books, sellers, and what each seller would say of each book at any moment.

Nothing is stored by book and seller: who has what, and at which price, comes from hashes, so that the same seed gives
the same world to every policy, whatever it asks. What a policy may know of it is what it is answered, and each book's
publisher.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Keys = NDArray[np.uint32]
Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]

DAY_S = 86_400.0
TIMEOUT_S = 3.0
_TABLE = 2**16
_COMMON = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the world is like. ``docs/selection.md`` says why.

    Spreads are of logarithms; those with heavy tails are Student's t, bounded at ``bound``.

    Attributes:
        books: how many there are; demand is by Zipf's law over them.
        publishers: how many; their numbers of books follow Zipf's law with 0.7. A policy sees which one a book is of.
        subjects: what sellers specialise in. A policy never sees them.
        focus: the part of a publisher's books that is of its main subject; half of the others is of a second one, the
            rest of any.
        level_spread: of the levels of books' prices.
        generalists: the part of sellers that have books of all subjects; ``niche`` that have books of one publisher
            only; all others have books of one to three subjects.
        niche: see above.
        general_share: the median part of all books that a generalist has, and its spread.
        special_share: likewise of the books of a specialist's subjects.
        general_spread: see above.
        special_spread: see above.
        stray_share: the part of other books that a specialist has.
        popularity: a book of rank r is had by ``(50 r / books) ** -popularity`` times as many sellers as shares say.
        bias_spread: how sellers' prices differ from each other, everywhere.
        subject_spread: how, besides, in each subject.
        noise_spread: how, besides, for each book, until the seller prices it anew.
        tail: degrees of freedom of all three.
        bound: of all three, in spreads.
        reprice_s: the median time after which a seller prices a book anew.
        stock: the part of the time that a seller has what it sells, evenly between these.
        restock_s: for how long a book is or is not in stock.
        wars: price wars a day. In each some sellers of a subject, 5 to 40, take 5 to 25 % off for 2 to 8 hours.
        churn: the part of sellers that is replaced by new ones in a day.
        brownouts: how often a day 0.5 to 5 % of all sellers stop to answer for 10 to 60 minutes.
        error: the part of calls that fail anyhow.
        slow_spread: of the sellers' median latencies, around 0.35 s; ``jitter`` is that of each call around its
            seller's.
        jitter: see above.
        liars: the part of sellers that quote 15 to 40 % less than they would, and refuse to sell.
        scarce: the part of sellers with a limit of 60 to 1,200 quotes a minute; others have 3,000 to 10,000.

    """

    books: int = 1_000_000
    publishers: int = 400
    subjects: int = 60
    focus: float = 0.7
    level_spread: float = 0.6
    generalists: float = 0.2
    niche: float = 0.1
    general_share: float = 0.015
    general_spread: float = 1.3
    special_share: float = 0.06
    special_spread: float = 1.0
    stray_share: float = 0.0005
    popularity: float = 0.2
    bias_spread: float = 0.10
    subject_spread: float = 0.05
    noise_spread: float = 0.05
    tail: float = 5.0
    bound: float = 6.0
    reprice_s: float = 2 * DAY_S
    stock: tuple[float, float] = (0.70, 0.98)
    restock_s: float = DAY_S / 2
    wars: float = 24.0
    churn: float = 0.02
    brownouts: float = 6.0
    error: float = 0.01
    slow_spread: float = 0.7
    jitter: float = 0.4
    liars: float = 0.01
    scarce: float = 0.05


USUAL = Assumptions()
HARD = replace(
    USUAL,
    focus=0.4,
    noise_spread=0.10,
    tail=4.0,
    bound=8.0,
    reprice_s=DAY_S / 2,
    wars=72.0,
    churn=0.06,
    brownouts=18.0,
    liars=0.03,
    scarce=0.15,
)
"""Prices differ as much by book as by seller, publishers say little about subjects, and all that changes does so three
times as often."""

WORLDS = {"usual": USUAL, "hard": HARD}


@dataclass(frozen=True, slots=True)
class Offers:
    """What all sellers would say of a book at one moment.

    Attributes:
        carried: whether each sells it.
        in_stock: whether it has it.
        total_minor: its total, where it has it; else 0.
        honest: whether it would sell at that.

    """

    carried: Mask
    in_stock: Mask
    total_minor: NDArray[np.int32]
    honest: Mask


@dataclass(frozen=True, slots=True)
class _War:
    start_s: float
    end_s: float
    subject: int
    rows: Rows
    by: float


@dataclass(frozen=True, slots=True)
class _Outage:
    start_s: float
    end_s: float
    rows: Rows


@dataclass(frozen=True, slots=True)
class Arrival:
    """A seller takes the place of one that leaves.

    Attributes:
        at_s: when.
        row: whose place.
        niche: the publisher whose books it sells cheapest of all; None for a usual seller.

    """

    at_s: float
    row: int
    niche: int | None


class World:
    """All of it, from one seed, for so many seconds.

    Attributes:
        assumptions: what it is like.
        publisher: of each book.
        arrivals: of sellers, in order of time.
        limit_a_minute: quotes that each seller gives a minute.

    """

    def __init__(
        self,
        assumptions: Assumptions,
        *,
        seed: int,
        sellers: int,
        span_s: float,
        niches: Sequence[tuple[float, int]] = (),
    ) -> None:
        self.assumptions = assumptions
        self.sellers = sellers
        self._rng = rng = np.random.default_rng([seed, 1])
        self._tails = self._tail_table()
        self._make_books()
        self._make_sellers()
        self._wars = self._make_wars(span_s)
        self._outages = self._make_outages(span_s)
        self.arrivals = self._make_arrivals(span_s, niches)
        self._seed = np.uint32(rng.integers(2**32))
        self._arrived = 0

    def category(self, book: int) -> int:
        """Give what may be known of a book: its publisher."""
        return int(self.publisher[book])

    def arrive(self, now_s: float) -> list[Arrival]:
        """Let the sellers arrive that have until now; give these."""
        end = bisect_right(self.arrivals, now_s, key=lambda arrival: arrival.at_s)
        arrived = self.arrivals[self._arrived : end]
        self._arrived = end
        for arrival in arrived:
            self._replace(arrival)
        return arrived

    def down(self, now_s: float) -> Mask:
        """Say which sellers answer nothing now."""
        down = np.zeros(self.sellers, np.bool_)
        for outage in self._outages:
            if outage.start_s <= now_s < outage.end_s:
                down[outage.rows] = True
        return down

    def offers(self, book: int, now_s: float) -> Offers:
        """Give what all sellers would say of a book now."""
        subject = int(self._subject[book])
        share = self._share[subject] * self._popularity[book]
        own = self._niche == self.publisher[book]
        share[own] = self._niche_share[own]
        carried = _parts(self._hashes(self._keys, book)) < share
        rows = np.flatnonzero(carried)
        keys = self._hashes(self._keys[rows], book)
        epoch = ((now_s + self._phase_s[rows]) / self.assumptions.restock_s).astype(np.uint32)
        stocked = _parts(_mixed(keys ^ (epoch * np.uint32(0x9E3779B1)))) < self._stock[rows]
        rows, keys = rows[stocked], keys[stocked]
        logs = self._level[book] + self._bias[rows] + self._subject_bias[subject, rows]
        logs += self._noise(rows, keys, now_s)
        logs += np.where(own[rows], self._niche_bias[rows], np.float32(0.0))
        for war in self._wars:
            if war.subject == subject and war.start_s <= now_s < war.end_s:
                logs[np.isin(rows, war.rows)] -= war.by
        lies = self._lies[rows]
        logs -= lies
        total = np.zeros(self.sellers, np.int32)
        total[rows] = np.maximum(np.exp(logs), 50.0).astype(np.int32)
        in_stock = total > 0
        return Offers(carried, in_stock, total, self._lies == 0.0)

    def latencies(self, rows: Rows, rng: np.random.Generator) -> Floats:
        """Draw how long calls to these sellers take."""
        jitter = rng.standard_normal(len(rows), np.float32) * self.assumptions.jitter
        times: Floats = self._latency_s[rows] * np.exp(jitter)
        return times

    def usual_level(self, book: int) -> float:
        """Give the level of a book's prices in minor units."""
        return math.exp(float(self._level[book]))

    def _hashes(self, keys: Keys, book: int) -> Keys:
        return _mixed(keys ^ np.uint32((book * 0x85EBCA6B) & 0xFFFFFFFF) ^ self._seed)

    def _noise(self, rows: NDArray[np.intp], keys: Keys, now_s: float) -> Floats:
        period = self._reprice_s[rows]
        # Each book of a seller has its own day for it.
        offset = _parts(_mixed(keys ^ np.uint32(0x27D4EB2F)))
        epoch = (now_s / period + offset).astype(np.uint32)
        drawn = _mixed(keys ^ (epoch * np.uint32(0xC2B2AE35)) ^ np.uint32(0x165667B1))
        noise: Floats = self._tails[drawn >> np.uint32(16)] * np.float32(
            self.assumptions.noise_spread
        )
        return noise

    def _tail_table(self) -> Floats:
        """Give Student's t as a table of draws of variance 1."""
        has = self.assumptions
        drawn = np.random.default_rng(7).standard_t(has.tail, _TABLE) / math.sqrt(
            has.tail / (has.tail - 2.0)
        )
        return np.clip(drawn, -has.bound, has.bound).astype(np.float32)

    def _tailed(self, spread: float, shape: tuple[int, ...]) -> Floats:
        return self._tails[self._rng.integers(_TABLE, size=shape)] * np.float32(spread)

    def _make_books(self) -> None:
        has, rng = self.assumptions, self._rng
        sizes = 1.0 / np.arange(1, has.publishers + 1) ** 0.7
        self.publisher = rng.choice(has.publishers, has.books, p=sizes / sizes.sum()).astype(
            np.uint16
        )
        main = rng.integers(has.subjects, size=has.publishers)
        second = rng.integers(has.subjects, size=has.publishers)
        which = rng.random(has.books)
        other = has.focus + (1.0 - has.focus) / 2
        self._subject = np.where(
            which < has.focus,
            main[self.publisher],
            np.where(
                which < other,
                second[self.publisher],
                rng.integers(has.subjects, size=has.books),
            ),
        ).astype(np.uint8)
        self._level = (math.log(2000.0) + has.level_spread * rng.standard_normal(has.books)).astype(
            np.float32
        )
        rank = np.arange(1, has.books + 1)
        self._popularity = ((rank / (_COMMON * has.books)) ** -has.popularity).astype(np.float32)

    def _make_sellers(self) -> None:
        sellers, subjects = self.sellers, self.assumptions.subjects
        self._share = np.zeros((subjects, sellers), np.float32)
        self._subject_bias = np.zeros((subjects, sellers), np.float32)
        for name in (
            *("_bias", "_niche_share", "_niche_bias", "_stock", "_reprice_s", "_phase_s"),
            *("_lies", "_latency_s", "limit_a_minute"),
        ):
            setattr(self, name, np.zeros(sellers, np.float32))
        self._niche = np.full(sellers, -1, np.int32)
        self._keys = np.zeros(sellers, np.uint32)
        for row in range(sellers):
            self._make_seller(row)

    _bias: Floats
    _niche_share: Floats
    _niche_bias: Floats
    _stock: Floats
    _reprice_s: Floats
    _phase_s: Floats
    _lies: Floats
    _latency_s: Floats
    limit_a_minute: Floats

    def _make_seller(self, row: int) -> None:
        has, rng = self.assumptions, self._rng
        kind = rng.random()
        self._keys[row] = rng.integers(2**32)
        self._niche[row] = -1
        self._share[:, row] = 0.0
        if kind < has.generalists:
            self._share[:, row] = has.general_share * math.exp(
                has.general_spread * rng.standard_normal()
            )
        elif kind < has.generalists + has.niche:
            self._niche[row] = int(self.publisher[rng.integers(has.books)])
            self._niche_share[row] = rng.uniform(0.2, 0.8)
            self._niche_bias[row] = 0.0
        else:
            self._share[:, row] = has.stray_share
            subjects = rng.choice(has.subjects, rng.integers(1, 4), replace=False)
            self._share[subjects, row] = has.special_share * math.exp(
                has.special_spread * rng.standard_normal()
            )
        self._bias[row] = self._tailed(has.bias_spread, (1,))[0]
        self._subject_bias[:, row] = self._tailed(has.subject_spread, (has.subjects,))
        self._stock[row] = rng.uniform(*has.stock)
        self._reprice_s[row] = has.reprice_s * math.exp(0.7 * rng.standard_normal())
        self._phase_s[row] = rng.uniform(0.0, has.restock_s)
        self._lies[row] = -math.log(1.0 - rng.uniform(0.15, 0.4)) if rng.random() < has.liars else 0
        self._latency_s[row] = 0.35 * math.exp(has.slow_spread * rng.standard_normal())
        scarce = rng.random() < has.scarce
        low, high = (60.0, 1200.0) if scarce else (3_000.0, 10_000.0)
        self.limit_a_minute[row] = math.exp(rng.uniform(math.log(low), math.log(high)))

    def _replace(self, arrival: Arrival) -> None:
        row = arrival.row
        self._make_seller(row)
        if arrival.niche is None:
            return
        self._share[:, row] = 0.0
        self._niche[row] = arrival.niche
        self._niche_share[row] = 0.6
        self._lies[row] = 0.0
        self._stock[row] = 0.95
        self._bias[row] = 0.0
        self._subject_bias[:, row] = 0.0
        self._niche_bias[row] = -0.5 - 0.02 * self.assumptions.bound
        self.limit_a_minute[row] = 10_000.0

    def _make_wars(self, span_s: float) -> list[_War]:
        has, rng = self.assumptions, self._rng
        return [
            _War(
                start := rng.uniform(-8 * 3600.0, span_s),
                start + rng.uniform(2 * 3600.0, 8 * 3600.0),
                subject := int(rng.integers(has.subjects)),
                self._sellers_of(subject, int(rng.integers(5, 41))),
                rng.uniform(0.05, 0.25),
            )
            for _ in range(rng.poisson(has.wars * (span_s / DAY_S + 1 / 3)))
        ]

    def _sellers_of(self, subject: int, count: int) -> Rows:
        share = self._share[subject] / self._share[subject].sum()
        count = min(count, int(np.count_nonzero(share)))
        return self._rng.choice(self.sellers, count, replace=False, p=share).astype(np.int32)

    def _make_outages(self, span_s: float) -> list[_Outage]:
        rng = self._rng
        return [
            _Outage(
                start := rng.uniform(-3600.0, span_s),
                start + rng.uniform(600.0, 3600.0),
                rng.choice(
                    self.sellers, int(self.sellers * rng.uniform(0.005, 0.05)), replace=False
                ).astype(np.int32),
            )
            for _ in range(rng.poisson(self.assumptions.brownouts * (span_s / DAY_S + 1 / 24)))
        ]

    def _make_arrivals(self, span_s: float, niches: Sequence[tuple[float, int]]) -> list[Arrival]:
        rng = self._rng
        count = rng.poisson(self.sellers * self.assumptions.churn * span_s / DAY_S)
        usual = [
            Arrival(rng.uniform(0.0, span_s), int(row), None)
            for row in rng.choice(self.sellers, count)
        ]
        # A seller of a niche stays: usual ones come in the places of others.
        places = rng.choice(self.sellers, len(niches), replace=False)
        special = [
            Arrival(at_s, int(row), niche)
            for (at_s, niche), row in zip(niches, places, strict=True)
        ]
        taken = set(places.tolist())
        return sorted(
            [*special, *(arrival for arrival in usual if arrival.row not in taken)],
            key=lambda arrival: arrival.at_s,
        )


def _mixed(keys: Keys) -> Keys:
    """Mix bits: the finaliser of MurmurHash3."""
    keys = (keys ^ (keys >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    keys = (keys ^ (keys >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return keys ^ (keys >> np.uint32(16))


def _parts(hashes: Keys) -> Floats:
    """Give hashes as parts of 1."""
    return hashes.astype(np.float32) * np.float32(2.0**-32)
