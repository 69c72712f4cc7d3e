"""What collections have taught about sellers: each by itself, in a category, and for a book.

Prices are learned as the logarithm of a total over its book's level. A seller stands at ``m`` above the level, and
``d`` more in one category, both normal around nothing, and a price scatters around that with a variance that is
learned too; an answer moves both by the gain of a Kalman filter in which they are taken as independent:

    e = log(total) - level - m - d,    S = P_m + P_d + v,    m += e P_m / S,    d += e P_d / S

``P = v / (w + k)`` after observations of weight ``w``; ``k`` is the prior's weight. Weights are bounded and fade with
time, so that a seller that changes, in a price war or for good, is believed after a few answers.

Stock is counted, a seller's rate shrunk to that of all sellers. Each further answer of a category says less about the
seller as a whole, since who is asked where it is good would seem good everywhere. In a category there are two
explanations of what a seller has: that it sells books of some kinds (topics.py), and that it is something of its own
there, as the shop of one publisher. The logarithm of the ratio of their likelihoods, each answer foretold from those
before, says which to believe; an average of both would make of a publisher of two kinds one kind that nobody sells.

How long to believe what was said about a book is learned as well: how often a second answer was like the first, by the
time between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    Floats,
    GeneralColumns,
    Rows,
    SellerColumns,
    State,
    TopicColumns,
)
from aggregator.selection.topics import WHOLE, Topics

AGE_BOUNDS_S = np.array([60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 4 * 86400.0, 16 * 86400.0])
"""Answers that are about as old as each other are believed alike."""

AGES = len(AGE_BOUNDS_S) + 1
SELLER_PRICE_PRIOR = 0.25
"""What the prior of a seller's prices weighs, in observations: they scatter twice as much as one seller's do."""

CATEGORY_PRICE_PRIOR = 2.0
SELLER_STOCK_PRIOR = 1.0
"""Likewise of its stock."""

CATEGORY_STOCK_PRIOR = 2.0
TRUST = 0.5
"""A seller that refuses more of the purchases than this part is not asked."""

MOST_RATE = np.float32(0.98)
_CARRIED_PRIOR = 4.0
_MOST_APART = np.float32(8.0)
_LEAST_VARIANCE = 1e-4
_OUTLIER = 3.0
_UNCHANGED = 0.004
_MOST_STOCKED = 2000.0
"""As so many answers of those who sell a book the earlier ones count at most."""

_MUCH_MORE = 1.5
"""A book is settled anew at once when there are so many times the answers by which its kind was found."""

_ANEW = 400
"""With each collection so many answers about other books are counted anew by what kind these are now taken for."""

_MOST_ANEW = 500
"""As so many the answers about one book count at most, that those of which all is known have their turn as well."""

_ANEW_AT_LEAST = 50
"""Likewise at least: books have their own cost."""

_TRUST_PRIOR = 2.0
_AGING_S = 600.0
_FIRST_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsSettings:
    """How much is kept, and for how long.

    Attributes:
        half_life_s: after so many seconds the weight of an observation is half.
        most_stock: the most that all answers about stock together weigh, in observations.
        most_price: likewise for prices.
        most_calls: likewise for calls, which tell of outages.
        categories: how many categories are held; the one not used for longest is let go.
        books: likewise for books.
        sellers_a_book: of how many sellers the answer is kept for a book. Those of a book in much demand are asked one
            after the other, and who has said no is not to be asked again and again for having been forgotten.
        answers: how many answers about books are held in all; books are let go for them, too.

    """

    half_life_s: float = 3 * 86400.0
    most_stock: float = 200.0
    most_price: float = 30.0
    most_calls: float = 12.0
    categories: int = 512
    books: int = 20_000
    sellers_a_book: int = 4_000
    answers: int = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What sellers answered about one book.

    Attributes:
        rows: the sellers, none twice.
        state: a ``State`` each.
        total_minor: their totals, in minor units of the one currency; 0 where there is none.
        latency_s: how long each took; nan where that is not known.

    """

    rows: Rows
    state: NDArray[np.uint8]
    total_minor: NDArray[np.int32]
    latency_s: Floats


@dataclass(slots=True)
class Category:
    """What is known of all sellers in one category. Columns as in ``CategoryColumns``, each row its own place."""

    aged_at_s: float
    asked: Floats
    had: Floats
    price_weight: Floats
    price_mean: Floats
    apart: Floats
    best_weight: float = 0.0
    best_mean: float = 0.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What a book is taken for.

    Attributes:
        category: whose; None until something new is learned of a book that was recalled.
        fit: the likelihood of its answers under each topic, as ``Topics.fit`` gives it.
        posterior: the chance of each topic by which its answers are counted.
        counted_at_s: when they were.
        answers: how many they were; what it is taken for is settled anew when they are more by half.
        whole: which part of a book of its category it counts as.

    """

    category: str | None
    fit: NDArray[np.float64]
    posterior: Floats
    counted_at_s: float
    answers: int
    whole: float


@dataclass(slots=True)
class Book:
    """What sellers last said about one book. Columns as in ``BookColumns``."""

    rows: Rows
    state: NDArray[np.uint8]
    total_minor: NDArray[np.int32]
    at_s: NDArray[np.float64]
    kind: Kind
    """As what its answers are counted among the topics."""

    told: int
    """How many first answers there were about it, those included that are not kept."""


class Statistics:
    """All that was learned.

    Columns by row, to be read only: ``asked``, ``had``, ``price_weight``, ``price_mean``, ``price_square``, ``calls``,
    ``failed``, ``latency_s``, ``bought``, ``refused``, as in ``SellerColumns``.

    Attributes:
        capacity: how many rows there are.
        variance: of a price around what is expected of its seller.
        rate: the part of the answers of an unknown seller that are a price.
        stocked: the part of those who sell a book that has it.
        still: by what was said and how long ago: weight of the second answers, and of those with a price.
        changed: by how long ago a price was said: weight of the second prices, of those that differ, and the sum of the
            squares by which these do.

    """

    def __init__(self, settings: StatisticsSettings, sellers: int = _FIRST_ROWS) -> None:
        self._settings = settings
        self.capacity = 0
        self._columns: dict[str, Floats] = {}
        self._since_s = np.empty(0)
        self.topics = Topics(0)
        self.variance = 0.01
        self.rate = 0.05
        self.stocked = 0.9
        self._stock_said = 10.0
        self._grow(sellers)
        self.best_mean = -0.1
        # Before anything is known: what was there is there, what was not is not, and a third of prices change in a day.
        self.still = np.zeros((len(State) - 1, AGES, 2))
        self.still[:, :, 0] = 4.0
        self.still[State.NO_STOCK, :, 1] = np.linspace(0.05, 2.0, AGES)
        self.still[State.IN_STOCK, :, 1] = np.linspace(3.9, 2.5, AGES)
        self.still[State.NOT_CARRIED, :, 1] = np.linspace(0.002, 0.02, AGES)
        self.changed = np.zeros((AGES, 3))
        self.changed[:, 0] = 4.0
        self.changed[:, 1] = np.linspace(0.1, 3.0, AGES)
        self.changed[:, 2] = self.changed[:, 1] * 0.01
        self._categories: OrderedDict[str, Category] = OrderedDict()
        self._books: OrderedDict[str, Book] = OrderedDict()
        self._held_answers = 0
        self._to_count: list[str] = []
        self._may_count = 0
        self._aged_at_s = -np.inf
        self._changed_categories: set[str] = set()
        self._changed_books: set[str] = set()

    @property
    def asked(self) -> Floats:
        return self._columns["asked"]

    @property
    def had(self) -> Floats:
        return self._columns["had"]

    @property
    def price_weight(self) -> Floats:
        return self._columns["price_weight"]

    @property
    def price_mean(self) -> Floats:
        return self._columns["price_mean"]

    @property
    def price_square(self) -> Floats:
        return self._columns["price_square"]

    @property
    def calls(self) -> Floats:
        return self._columns["calls"]

    @property
    def failed(self) -> Floats:
        return self._columns["failed"]

    @property
    def latency_s(self) -> Floats:
        return self._columns["latency_s"]

    @property
    def bought(self) -> Floats:
        return self._columns["bought"]

    @property
    def refused(self) -> Floats:
        return self._columns["refused"]

    def category(self, name: str) -> Category | None:
        """Give what is known of a category; None for one that is not held."""
        return self._categories.get(name)

    def book(self, book_id: str) -> Book | None:
        """Give what is known of a book, removed sellers left out; None for one that is not held."""
        book = self._books.get(book_id)
        if book is None:
            return None
        alive = book.at_s > self._since_s[book.rows]
        return book if alive.all() else _only(book, alive)

    def categories(self) -> Collection[str]:
        """Give the categories that are held."""
        return self._categories.keys()

    def books(self) -> Collection[str]:
        """Give the books that are held."""
        return self._books.keys()

    def trusted(self) -> NDArray[np.bool_]:
        """Say of each seller whether it sells what it quotes, as far as that is known."""
        return (self.bought - self.refused + _TRUST_PRIOR) > TRUST * (self.bought + _TRUST_PRIOR)

    def reach(self, rows: int) -> None:
        """Make room for so many sellers."""
        if rows > self.capacity:
            self._grow(max(rows, 2 * self.capacity))

    def learn(self, book_id: str, category: str, now_s: float, answers: Answers) -> None:
        """Take note of one collection, or of one phase of it.

        Times, in seconds since 1970, do not go back by more than it matters.
        """
        if len(answers.rows):
            self.reach(int(answers.rows.max()) + 1)
        self._age(now_s)
        self._learn_calls(answers)
        valid = answers.state != State.FAILED
        rows, state = answers.rows[valid], answers.state[valid]
        if not len(rows):
            return
        totals = answers.total_minor[valid]
        cells = self._cells(category, now_s)
        known = self.book(book_id)
        if known is not None:
            self._learn_lasting(known, rows, state, totals, now_s)
        had = state == State.IN_STOCK
        logs = np.log(totals[had]).astype(np.float32)
        # To say the same of the same book again is nothing new about the seller.
        new = np.ones(len(rows), np.bool_)
        if known is not None:
            new[places(known.rows, rows)[1]] = False
        self._learn_prices(cells, rows[had], logs, new[had])
        kind = self._kind_of(known, category, now_s, rows, state)
        self._learn_stocked(state[new])
        self._learn_stock(cells, kind.posterior, rows[new], had[new])
        told = int(np.count_nonzero(new)) + (0 if known is None else known.told)
        at_s = np.full(len(rows), now_s)
        book = Book(rows, state, totals, at_s, kind, told)
        self._learn_topics(known, book, new)
        self._keep(book_id, known, book)
        self._count_some_anew(book_id, now_s)
        self._changed_categories.add(category)
        self._changed_books.add(book_id)

    def learn_purchase(self, row: int, *, refused: bool) -> None:
        """Take note that a seller was asked to sell what it had quoted, and whether it refused."""
        self.bought[row] += 1.0
        self.refused[row] += float(refused)

    def forget(self, row: int, now_s: float) -> None:
        """Forget a seller that was removed; its row may be used again."""
        self.reach(row + 1)
        for column in self._columns.values():
            column[row] = 0.0
        # What it said of books is left out when these are read.
        self._since_s[row] = now_s
        self.topics.forget(row)
        for name, cells in self._categories.items():
            if cells.asked[row]:
                self._changed_categories.add(name)
                for column in (
                    cells.asked,
                    cells.had,
                    cells.price_weight,
                    cells.price_mean,
                    cells.apart,
                ):
                    column[row] = 0.0

    def take_changed(self) -> tuple[set[str], set[str]]:
        """Give the categories and the books that have changed since the last call."""
        changed = (self._changed_categories, self._changed_books)
        self._changed_categories, self._changed_books = set(), set()
        return changed

    def prior_mean(self, cells: Category | None, rows: Rows) -> Floats:
        """Give what the logarithm of these sellers' totals is expected to be above the level of a book."""
        mean = self.price_mean[rows]
        return mean if cells is None else mean + cells.price_mean[rows]

    def level(self, category: str, rows: Rows, log_totals: Floats) -> float | None:
        """Give the logarithm of a book's level: the median of what each total says of it; None without any."""
        if not len(rows):
            return None
        return float(np.median(log_totals - self.prior_mean(self.category(category), rows)))

    def dump_sellers(self) -> SellerColumns:
        """Give what is known of the sellers of which anything is."""
        rows = np.flatnonzero(self.calls + self.asked + self.bought).astype(np.int32)
        return SellerColumns(
            rows=rows, **{name: column[rows] for name, column in self._columns.items()}
        )

    def load_sellers(self, columns: SellerColumns) -> None:
        """Take over what was known of sellers; of others nothing changes."""
        if len(columns.rows):
            self.reach(int(columns.rows.max()) + 1)
        for name, column in self._columns.items():
            column[columns.rows] = getattr(columns, name)

    def dump_category(self, name: str) -> CategoryColumns | None:
        """Give what is known of a category; None for one that is not held."""
        cells = self._categories.get(name)
        if cells is None:
            return None
        rows = np.flatnonzero(cells.asked).astype(np.int32)
        return CategoryColumns(
            category=name,
            at_s=cells.aged_at_s,
            best_weight=cells.best_weight,
            best_mean=cells.best_mean,
            rows=rows,
            asked=cells.asked[rows],
            had=cells.had[rows],
            price_weight=cells.price_weight[rows],
            price_mean=cells.price_mean[rows],
            apart=cells.apart[rows],
        )

    def load_category(self, columns: CategoryColumns) -> None:
        """Take over what was known of a category, in place of what is."""
        if len(columns.rows):
            self.reach(int(columns.rows.max()) + 1)
        cells = self._blank(columns.at_s)
        for name in ("asked", "had", "price_weight", "price_mean", "apart"):
            getattr(cells, name)[columns.rows] = getattr(columns, name)
        cells.best_weight, cells.best_mean = columns.best_weight, columns.best_mean
        self._hold_category(columns.category, cells)

    def dump_book(self, book_id: str) -> BookColumns | None:
        """Give what is known of a book; None for one that is not held."""
        book = self.book(book_id)
        if book is None:
            return None
        return BookColumns(
            book_id=book_id,
            rows=book.rows,
            state=book.state,
            total_minor=book.total_minor,
            at_s=book.at_s,
        )

    def load_book(self, columns: BookColumns) -> None:
        """Take over what was known of a book, in place of what is."""
        if len(columns.rows):
            self.reach(int(columns.rows.max()) + 1)
        count = len(columns.rows)
        fit = self.topics.fit(columns.rows, sells(columns.state))
        # Its answers are among those of the topics already, most likely as of the kind that they speak for.
        kind = Kind(
            category=None,
            fit=fit,
            posterior=self.topics.posterior("", fit),
            counted_at_s=float(np.mean(columns.at_s)) if count else 0.0,
            answers=count,
            whole=min(count / WHOLE, 1.0),
        )
        book = Book(columns.rows, columns.state, columns.total_minor, columns.at_s, kind, count)
        self._hold_book(columns.book_id, book)

    def dump_topics(self) -> TopicColumns:
        """Give what is known of kinds of books."""
        return self.topics.dump()

    def load_topics(self, columns: TopicColumns) -> None:
        """Take over what was known of kinds of books; after sellers, before books, which are read by it."""
        if len(columns.rows):
            self.reach(int(columns.rows.max()) + 1)
        self.topics.load(columns)

    def dump_general(self) -> GeneralColumns:
        """Give what holds for all sellers together."""
        scalars = np.array([self.variance, self.best_mean, self.rate])
        return GeneralColumns(
            at_s=float(self._aged_at_s),
            arrays={
                "scalars": scalars,
                "stocked": np.array([self.stocked, self._stock_said]),
                "still": self.still.copy(),
                "changed": self.changed.copy(),
            },
        )

    def load_general(self, columns: GeneralColumns) -> None:
        """Take over what held for all sellers together."""
        self._aged_at_s = columns.at_s
        arrays = _known(columns.arrays, {"scalars": (3,), "still": self.still.shape})
        if "scalars" in arrays:
            self.variance, self.best_mean, self.rate = map(float, arrays["scalars"])
        if "still" in arrays:
            self.still = arrays["still"].copy()
        if "stocked" in _known(columns.arrays, {"stocked": (2,)}):
            self.stocked, self._stock_said = map(float, columns.arrays["stocked"])
        if "changed" in _known(columns.arrays, {"changed": self.changed.shape}):
            self.changed = columns.arrays["changed"].copy()

    def _learn_calls(self, answers: Answers) -> None:
        rows = answers.rows
        fade = np.float32(1.0 - 1.0 / self._settings.most_calls)
        failed = answers.state == State.FAILED
        self.calls[rows] = self.calls[rows] * fade + 1.0
        self.failed[rows] = self.failed[rows] * fade + failed
        timed = ~failed & np.isfinite(answers.latency_s)
        rows = rows[timed]
        answered = np.maximum(self.calls[rows] - self.failed[rows], 1.0)
        self.latency_s[rows] += (answers.latency_s[timed] - self.latency_s[rows]) / answered

    def _learn_stocked(self, state: NDArray[np.uint8]) -> None:
        sold = np.count_nonzero(sells(state))
        had = np.count_nonzero(state == State.IN_STOCK)
        self._stock_said = min(self._stock_said + float(sold), _MOST_STOCKED)
        self.stocked += (had - self.stocked * sold) / max(self._stock_said, float(sold))

    def _learn_stock(
        self, cells: Category, posterior: Floats, rows: Rows, had: NDArray[np.bool_]
    ) -> None:
        if not len(rows):
            return
        fade = np.float32(1.0 - 1.0 / self._settings.most_stock)
        by_kind = self.topics.rates_of(posterior, rows) * np.float32(self.stocked)
        by_category = own_rates(cells.asked[rows], cells.had[rows], by_kind)
        common = commonness(had, by_kind)
        by_kind = np.minimum(by_kind * common, MOST_RATE)
        by_category = np.minimum(by_category * common, MOST_RATE)
        one = np.float32(1.0)
        told = np.where(
            had, np.log(by_category / by_kind), np.log((one - by_category) / (one - by_kind))
        )
        cells.apart[rows] = np.clip(cells.apart[rows] * fade + told, -_MOST_APART, _MOST_APART)
        news = CATEGORY_STOCK_PRIOR / (CATEGORY_STOCK_PRIOR + cells.asked[rows])
        self.asked[rows] = self.asked[rows] * fade + news
        self.had[rows] = self.had[rows] * fade + had * news
        cells.asked[rows] = cells.asked[rows] * fade + 1.0
        cells.had[rows] = cells.had[rows] * fade + had

    def _learn_prices(
        self, cells: Category, rows: Rows, logs: Floats, new: NDArray[np.bool_]
    ) -> None:
        count = len(rows)
        if count < 2:  # noqa: PLR2004  one price alone says nothing about how its seller stands to others
            return
        expected = self.price_mean[rows] + cells.price_mean[rows]
        level = np.median(logs - expected)
        best = float(np.min(logs) - level)
        cells.best_weight = min(cells.best_weight + 1.0, self._settings.most_price)
        cells.best_mean += (best - cells.best_mean) / (cells.best_weight + 1.0)
        self.best_mean += (best - self.best_mean) / 100.0
        rows, error = rows[new], (logs - level - expected)[new]
        if not len(rows):
            return
        # The level is made of the same prices: the fewer there are, the less they say.
        says = np.float32(1.0 - 1.0 / count)
        variance = np.float32(self.variance)
        doubt = variance / (self.price_weight[rows] + SELLER_PRICE_PRIOR)
        category_doubt = variance / (cells.price_weight[rows] + CATEGORY_PRICE_PRIOR)
        spread = doubt + category_doubt + variance
        bound = _OUTLIER * np.sqrt(spread)
        error = np.clip(error, -bound, bound)
        self.price_mean[rows] += says * error * doubt / spread
        cells.price_mean[rows] += says * error * category_doubt / spread
        fade = np.float32(1.0 - 1.0 / self._settings.most_price)
        self.price_weight[rows] = self.price_weight[rows] * fade + says
        cells.price_weight[rows] = cells.price_weight[rows] * fade + says
        scatter = error**2 * variance / spread
        self.price_square[rows] += (scatter - self.price_square[rows]) / (
            self.price_weight[rows] + 1.0
        )
        share = len(rows) / (len(rows) + 5_000.0)
        self.variance += share * (max(float(np.mean(scatter)), _LEAST_VARIANCE) - self.variance)

    def _learn_lasting(
        self,
        known: Book,
        rows: Rows,
        state: NDArray[np.uint8],
        totals: NDArray[np.int32],
        now_s: float,
    ) -> None:
        """Compare answers with the last ones about the same book."""
        kept, again = places(known.rows, rows)
        before, now = known.state[kept], state[again]
        ages = np.searchsorted(AGE_BOUNDS_S, now_s - known.at_s[kept])
        cell = before.astype(np.intp) * AGES + ages
        shape = self.still.shape[:2]
        counted = np.bincount(cell, minlength=shape[0] * AGES)[: shape[0] * AGES].reshape(shape)
        had = now == State.IN_STOCK
        with_price = np.bincount(cell[had], minlength=shape[0] * AGES).reshape(shape)
        # So many observations come in that only a bounded number of the last may count.
        fade = 1.0 / (1.0 + counted / 20_000.0)
        self.still[:, :, 0] = self.still[:, :, 0] * fade + counted
        self.still[:, :, 1] = self.still[:, :, 1] * fade + with_price
        both = had & (before == State.IN_STOCK)
        by = np.log(totals[again][both] / known.total_minor[kept][both])
        age = ages[both]
        differs = np.abs(by) > _UNCHANGED
        count = np.bincount(age, minlength=AGES)
        fade = 1.0 / (1.0 + count / 20_000.0)
        self.changed *= fade[:, None]
        self.changed[:, 0] += count
        self.changed[:, 1] += np.bincount(age[differs], minlength=AGES)
        self.changed[:, 2] += np.bincount(age[differs], weights=by[differs] ** 2, minlength=AGES)

    def _kind_of(
        self,
        known: Book | None,
        category: str,
        now_s: float,
        rows: Rows,
        state: NDArray[np.uint8],
    ) -> Kind:
        if known is not None:
            return replace(known.kind, category=category)
        fit = self.topics.fit(rows, sells(state))
        posterior = self.topics.posterior(category, fit)
        return Kind(category, fit, posterior, now_s, answers=len(rows), whole=0.0)

    def _learn_topics(self, known: Book | None, book: Book, new: NDArray[np.bool_]) -> None:
        """Count answers about a book as of the kind that it is taken for; ``new`` are first ones."""
        kind, rows, sold = book.kind, book.rows, sells(book.state)
        self.topics.count(kind.posterior, rows[new], sold[new])
        if known is not None:
            kept, again = places(known.rows, rows)
            again = again[sold[again] != sells(known.state[kept])]
            self.topics.change(kind.posterior, rows[again], sold[again])
        whole = min(book.told / WHOLE, 1.0)
        if kind.category is not None:
            self.topics.weigh(kind.category, kind.posterior, whole - kind.whole)
        part = np.count_nonzero(new) / max(book.told, 1)
        since_s = (float(book.at_s[0]) - kind.counted_at_s) * part
        book.kind = replace(kind, whole=whole, counted_at_s=kind.counted_at_s + since_s)

    def _count_some_anew(self, book_id: str, now_s: float) -> None:
        """Settle of what kind this book is if much more is known of it, and of some others, each in its turn."""
        book = self._books[book_id]
        if book.told > _MUCH_MORE * book.kind.answers:
            self._count_anew(book_id, now_s)
        self._may_count = min(self._may_count, 0) + _ANEW
        while self._may_count > 0:
            if not self._to_count:
                self._to_count = list(self._books)
            other = self._to_count.pop()
            if other in self._books:
                self._may_count -= min(len(self._books[other].rows), _MOST_ANEW) + _ANEW_AT_LEAST
                self._count_anew(other, now_s)

    def _count_anew(self, book_id: str, now_s: float) -> None:
        """Take the answers about a book out of the topics, and put them back by what all others say of its kind."""
        book = self.book(book_id)
        if book is None or book.kind.category is None:
            return
        kind, sold = book.kind, sells(book.state)
        # So much of them has not faded.
        left = 0.5 ** (max(now_s - kind.counted_at_s, 0.0) / self._settings.half_life_s)
        self.topics.count(kind.posterior, book.rows, sold, -left)
        self.topics.weigh(book.kind.category, kind.posterior, -left * kind.whole)
        fit = self.topics.fit(book.rows, sold)
        posterior = self.topics.posterior(book.kind.category, fit)
        self.topics.count(posterior, book.rows, sold, left)
        self.topics.weigh(book.kind.category, posterior, left * kind.whole)
        self._books[book_id].kind = replace(
            kind, fit=fit, posterior=posterior, answers=max(book.told, kind.answers)
        )

    def _keep(self, book_id: str, known: Book | None, new: Book) -> None:
        rows, state, totals, at_s = new.rows, new.state, new.total_minor, new.at_s
        if known is not None:
            old = np.ones(len(known.rows), np.bool_)
            old[places(known.rows, rows)[0]] = False
            rows = np.concatenate([known.rows[old], rows])
            state = np.concatenate([known.state[old], state])
            totals = np.concatenate([known.total_minor[old], totals])
            at_s = np.concatenate([known.at_s[old], at_s])
        most = self._settings.sellers_a_book
        if len(rows) > most:
            kept = self._most_telling(rows, state, totals)[:most]
            rows, state, totals, at_s = rows[kept], state[kept], totals[kept], at_s[kept]
        order = np.argsort(rows)
        self._hold_book(
            book_id,
            Book(rows[order], state[order], totals[order], at_s[order], new.kind, new.told),
        )

    def rates(self, rows: Rows) -> Floats:
        """Give the part of the answers of these sellers that are a price."""
        prior = np.float32(SELLER_STOCK_PRIOR)
        rates: Floats = (self.had[rows] + prior * np.float32(self.rate)) / (
            self.asked[rows] + prior
        )
        return rates

    def _most_telling(
        self, rows: Rows, state: NDArray[np.uint8], totals: NDArray[np.int32]
    ) -> NDArray[np.intp]:
        """Order answers: the cheapest first, then who has no stock, then the "no" of who has most books."""
        rates = self.had[rows] / (self.asked[rows] + SELLER_STOCK_PRIOR)
        return np.lexsort((-rates, totals, -state.astype(np.int8)))

    def _hold_book(self, book_id: str, book: Book) -> None:
        old = self._books.pop(book_id, None)
        self._held_answers += len(book.rows) - (0 if old is None else len(old.rows))
        self._books[book_id] = book
        while len(self._books) > self._settings.books or (
            self._held_answers > self._settings.answers and len(self._books) > 1
        ):
            self._held_answers -= len(self._books.popitem(last=False)[1].rows)

    def _hold_category(self, name: str, cells: Category) -> None:
        self._categories[name] = cells
        self._categories.move_to_end(name)
        while len(self._categories) > self._settings.categories:
            self._categories.popitem(last=False)

    def _cells(self, name: str, now_s: float) -> Category:
        """Give a category to write to."""
        cells = self._categories.get(name)
        if cells is None:
            cells = self._blank(now_s)
        elif now_s - cells.aged_at_s > _AGING_S:
            fade = np.float32(0.5 ** ((now_s - cells.aged_at_s) / self._settings.half_life_s))
            cells.asked *= fade
            cells.had *= fade
            cells.price_weight *= fade
            cells.aged_at_s = now_s
        self._hold_category(name, cells)
        return cells

    def _blank(self, now_s: float) -> Category:
        return Category(
            now_s,
            asked=np.zeros(self.capacity, np.float32),
            had=np.zeros(self.capacity, np.float32),
            price_weight=np.zeros(self.capacity, np.float32),
            price_mean=np.zeros(self.capacity, np.float32),
            apart=np.zeros(self.capacity, np.float32),
        )

    def _age(self, now_s: float) -> None:
        """Let the weights of sellers fade, now and then."""
        if now_s - self._aged_at_s <= _AGING_S:
            return
        if np.isfinite(self._aged_at_s):
            fade = np.float32(0.5 ** ((now_s - self._aged_at_s) / self._settings.half_life_s))
            for name in ("asked", "had", "price_weight", "calls", "failed", "bought", "refused"):
                self._columns[name] *= fade
            self.topics.fade(float(fade))
        self._aged_at_s = now_s
        self._find_rate()

    def _find_rate(self) -> None:
        """Find the rate of a seller of which nothing is known: the mean of those of which something is."""
        known = self.asked > 0
        if np.any(known):
            had = self.had[known] + SELLER_STOCK_PRIOR * np.float32(self.rate)
            self.rate = float(np.mean(had / (self.asked[known] + SELLER_STOCK_PRIOR)))

    def _grow(self, rows: int) -> None:
        since_s = np.full(rows, -np.inf)
        since_s[: self.capacity] = self._since_s
        self._since_s = since_s
        self.topics.grow(rows)
        for name in SellerColumns.__slots__:
            if name != "rows":
                column = np.zeros(rows, np.float32)
                if self.capacity:
                    column[: self.capacity] = self._columns[name]
                self._columns[name] = column
        if self.capacity:
            for cells in self._categories.values():
                for name in ("asked", "had", "price_weight", "price_mean", "apart"):
                    column = np.zeros(rows, np.float32)
                    column[: self.capacity] = getattr(cells, name)
                    setattr(cells, name, column)
        self.capacity = rows


def sells(state: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say of each answer whether the seller sells the book, be it that it has none now: that tells of its kind, too."""
    said: NDArray[np.bool_] = state != State.NOT_CARRIED
    return said


def own_rates(asked: Floats, had: Floats, by_kind: Floats) -> Floats:
    """Give the rates of sellers in a category by what they said there alone, shrunk to those by kinds of books."""
    prior = np.float32(CATEGORY_STOCK_PRIOR)
    rates: Floats = (had + prior * by_kind) / (asked + prior)
    return rates


def commonness(carried: NDArray[np.bool_], expected: Floats) -> np.float32:
    """Give how many times as many sellers have this book as have others: a gamma posterior around 1."""
    had = np.float32(np.count_nonzero(carried) + _CARRIED_PRIOR)
    return had / (np.sum(expected) + np.float32(_CARRIED_PRIOR))


def places(known: Rows, rows: Rows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give the places among known rows, ascending, and among rows, of the sellers that are in both."""
    at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    again = np.flatnonzero(known[at] == rows) if len(known) else np.empty(0, np.intp)
    return at[again], again


def _only(book: Book, which: NDArray[np.bool_]) -> Book:
    return Book(
        book.rows[which],
        book.state[which],
        book.total_minor[which],
        book.at_s[which],
        book.kind,
        book.told,
    )


def _known(
    arrays: Mapping[str, NDArray[np.float64]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float64]]:
    """Give the arrays that have the shape that is known."""
    return {
        name: arrays[name]
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape == shape
    }
