"""Reads scenario files. ``seller_sim/scenarios/demo.yaml`` describes the format at its top."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mesh import book_id
from seller_sim.domain.behaviour import BehaviourError
from seller_sim.domain.catalogue import Book, FixedOffer
from seller_sim.domain.scenario import Group, NamedSeller, Scenario

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_MINOR_UNITS = 100

Setting = bool | int | float | str | list[int | float]
Settings = dict[str, Setting]
Amount = Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=2)]
Identifier = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,59}$")]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class ScenarioError(Exception):
    """A scenario that cannot be used; the message is one line with the file, the place and the reason."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Group(_Strict):
    name: Identifier
    display_name: Text
    count: Annotated[int, Field(ge=1, le=10_000)]
    behaviour: Settings = {}


class _Seller(_Strict):
    id: Identifier
    display_name: Text
    behaviour: Settings = {}


class _Offer(_Strict):
    seller: Identifier
    total: Annotated[Amount, Field(strict=False)]
    copies: Annotated[int, Field(ge=1, le=1_000_000)]


class _Book(_Strict):
    isbn: Text
    title: Text
    author: Text
    base_price: Annotated[Amount, Field(strict=False)] | None = None
    least_total: Annotated[Amount, Field(strict=False)] | None = None
    carried: Annotated[float, Field(ge=0, le=1)] | None = None
    copies: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    offers: list[_Offer] = []

    @field_validator("isbn")
    @classmethod
    def _normalised(cls, isbn: str) -> str:
        return book_id.normalise(isbn)


class _File(_Strict):
    seed: int
    defaults: Settings = {}
    groups: list[_Group] = []
    sellers: list[_Seller] = []
    books: list[_Book] = []

    @model_validator(mode="after")
    def _without_repetition(self) -> Self:
        for what, names in (
            ("groups", [group.name for group in self.groups]),
            ("sellers", [seller.id for seller in self.sellers]),
            ("books", [book.isbn for book in self.books]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: {min(twice)} is there more than once")
        return self


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: if it cannot be read, is not YAML, or breaks the format.

    """
    try:
        content = yaml.safe_load(path.read_text())
        return _scenario(_File.model_validate(content))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ScenarioError(f"{path}: {place}: {problem['msg']}") from None
    except (OSError, yaml.YAMLError, BehaviourError) as error:
        reason = " ".join(str(error).split())
        raise ScenarioError(f"{path}: {reason}") from None


def _scenario(file: _File) -> Scenario:
    scenario = Scenario(
        seed=file.seed,
        defaults=file.defaults,
        groups=[
            Group(group.name, group.display_name, group.count, group.behaviour)
            for group in file.groups
        ],
        named=[
            NamedSeller(seller.id, seller.display_name, seller.behaviour) for seller in file.sellers
        ],
        books={book.isbn: _book(book) for book in file.books},
    )
    scenario.sellers(None)  # refuses settings that are wrong before anything is started
    return scenario


def _book(book: _Book) -> Book:
    return Book(
        book_id=book.isbn,
        title=book.title,
        author=book.author,
        base_minor=_minor(book.base_price),
        carried=book.carried,
        least_total_minor=_minor(book.least_total) or 0,
        copies=book.copies,
        offers={
            offer.seller: FixedOffer(_minor(offer.total) or 0, offer.copies)
            for offer in book.offers
        },
    )


def _minor(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount * _MINOR_UNITS)
