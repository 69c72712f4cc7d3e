"""What the aggregator is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mesh.settings import SellerCallerSettings


class Settings(SellerCallerSettings):
    """The aggregator's settings, from the environment."""

    database_url: str
    """PostgreSQL with the schema ``aggregator``, ``postgresql://...``."""

    seller_timeout_s: float = Field(default=3.0, gt=0, le=4.5)
    """The most time that one seller gets for a quote, in seconds. Admission allows no longer calls."""

    merge_margin_s: float = Field(default=0.15, ge=0, le=5)
    """What a collection keeps of its caller's time to hand on the last answers, in seconds."""

    registry_poll_s: float = Field(default=0.25, gt=0, le=1)
    """How often to look for changes that other replicas made in the registry, in seconds."""

    browse_share: float = Field(default=0.2, ge=0, le=1)
    """Who only compares prices may ask a seller while no more than this share of what quotes may use is used up."""

    kept_share: float = Field(default=0.25, ge=0, lt=1)
    """How much of what quotes may use is kept for customers who want little, while others want much: more than 5
    collections in half a minute or so, and more than a fiftieth of all."""

    quote_good_s: float = Field(default=60.0, ge=1, le=3600)
    """The longest that a quote is shown again before its seller is asked anew, in seconds."""

    no_good_s: float = Field(default=60.0, ge=1, le=3600)
    """How long a seller that does not have a book is not asked for it again, in seconds."""

    failure_good_s: float = Field(default=1.0, ge=0.1, le=60)
    """How long a seller that failed is not asked the same again, in seconds."""

    quote_margin_s: float = Field(default=10.0, ge=0, le=600)
    """How long before it expires a quote is not shown any more, so that there is time to buy on it, in seconds."""

    linger_s: float = Field(default=0.003, ge=0, le=1)
    """How long a question waits for others to go with, while its seller allows plenty, in seconds."""

    longest_linger_s: float = Field(default=4.0, ge=0, le=5)
    """How long it waits at most, while calls are spread so that what the seller allows lasts, in seconds."""

    refresh_ahead_s: float = Field(default=10.0, ge=0, le=600)
    """How long before it runs out what is known of a book in demand is asked for again, in seconds. 0 for never."""

    refresh_demand: float = Field(default=3.0, ge=1, le=1000)
    """A book is in demand when it was asked for so many times lately; what is half a minute old counts half."""

    capabilities_every_s: float = Field(default=3600.0, ge=60, le=86_400)
    """How often sellers are asked what they can do, in seconds."""

    history_buffer_quotes: int = Field(default=100_000, ge=1)
    """Most quotes that wait in memory to be written to the history, 600 bytes each; then the oldest are dropped."""

    history_days: int = Field(default=30, ge=1, le=3650)
    """For how many days the history of quotes is kept."""

    select_above: int = Field(default=200, ge=0, le=1_000_000)
    """Up to so many active sellers all are asked about every book; of more, some are chosen."""

    select_policy: Literal["thompson", "weighted", "random"] = "thompson"
    """Whom to choose: those who can be expected to save most, some by a draw; by a sum of five weights; anyone."""

    select_first: int = Field(default=50, ge=1, le=10_000)
    """How many sellers are asked at first, for up to 4 s."""

    select_next: int = Field(default=100, ge=0, le=10_000)
    """How many are asked after them, for up to 8 s, if that can still matter."""

    select_last: int = Field(default=150, ge=0, le=10_000)
    """How many are asked as a last resort, for up to 13 s or as there is time, if nothing affordable was found."""

    select_most: int = Field(default=150, ge=1, le=10_000)
    """How many are asked in all."""

    select_checked_share: float = Field(default=0.01, ge=0, le=1)
    """For which part of collections all who were not chosen are asked afterwards, to know what was missed; five times
    that until it was so in 200."""

    market_currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    """The currency whose prices are learned."""

    market_books: int = Field(default=20_000, ge=100, le=1_000_000)
    """What sellers said of so many books is in memory, 2 to 4 KB each; that of all others in PostgreSQL."""

    market_days: int = Field(default=90, ge=1, le=3650)
    """For how many days it is remembered what sellers said of a book."""
