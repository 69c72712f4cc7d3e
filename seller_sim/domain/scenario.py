"""Which sellers a scenario makes: groups are repeated until there are as many as were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seller_sim.domain.behaviour import Behaviour, BehaviourError, is_whole, range_of
from seller_sim.domain.draws import between, draws

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seller_sim.domain.catalogue import Book


@dataclass(frozen=True, slots=True)
class Group:
    """Sellers of one kind: ``count`` of them in every ``sum of all counts``.

    ``settings`` override the scenario's defaults. A pair of numbers instead of a number gives each seller its own
    number between the two.
    """

    name: str
    display_name: str
    count: int
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NamedSeller:
    """A seller that the scenario describes on its own."""

    seller_id: str
    display_name: str
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SellerSpec:
    """A seller to be simulated."""

    seller_id: str
    display_name: str
    behaviour: Behaviour


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a scenario file says."""

    seed: int
    defaults: Mapping[str, object]
    groups: Sequence[Group]
    named: Sequence[NamedSeller]
    books: Mapping[str, Book]

    def sellers(self, count: int | None) -> list[SellerSpec]:
        """Give ``count`` sellers, or as many as the scenario describes; fewer are the first of more.

        The named ones come first. Then the groups take turns by their counts, so that any number has the same mix.

        Raises:
            BehaviourError: if a setting is unknown or out of its range, or there are no groups to take more from.

        """
        described = len(self.named) + sum(group.count for group in self.groups)
        wanted = described if count is None else count
        if wanted > len(self.named) and not self.groups:
            raise BehaviourError(
                f"sellers: {wanted} are wanted, {len(self.named)} are described, and there are no groups to take more"
                " from: describe more, or want fewer"
            )
        specs = [
            self._spec(named.seller_id, named.display_name, named.settings)
            for named in self.named[:wanted]
        ]
        made = [0] * len(self.groups)
        while len(specs) < wanted:
            turn = min(range(len(made)), key=lambda i: ((made[i] + 0.5) / self.groups[i].count, i))
            made[turn] += 1
            group = self.groups[turn]
            specs.append(
                self._spec(
                    f"{group.name}-{made[turn]:03d}",
                    f"{group.display_name} {made[turn]}",
                    group.settings,
                )
            )
        return specs

    def _spec(
        self, seller_id: str, display_name: str, settings: Mapping[str, object]
    ) -> SellerSpec:
        try:
            chosen = {
                name: _chosen(self.seed, seller_id, name, value)
                for name, value in {**self.defaults, **settings}.items()
            }
            return SellerSpec(seller_id, display_name, Behaviour().changed(chosen))
        except BehaviourError as error:
            raise BehaviourError(f"{seller_id}: {error}") from None


def _chosen(seed: int, seller_id: str, name: str, value: object) -> object:
    if not isinstance(value, list) or range_of(name) is None:
        return value
    match value:
        case [int() | float() as low, int() | float() as high] if low <= high:
            number = between(low, high, draws(seed, seller_id, "setting", name)[0])
            return round(number) if is_whole(name) else number
        case _:
            raise BehaviourError(f"{name}: must be a number or a pair [low, high], is {value!r}")
