"""Policies by name: those of the aggregator, and any class of yours as ``module:Class``."""

from __future__ import annotations

from importlib import import_module

from aggregator.selection.policy import Policy, RandomChoice, Thompson, WeightedScore

POLICIES: dict[str, type[Policy]] = {
    "thompson": Thompson,
    "weighted": WeightedScore,
    "random": RandomChoice,
}


def policy(name: str) -> Policy:
    """Make a policy.

    Raises:
        SystemExit: if there is none of that name.

    """
    if name in POLICIES:
        return POLICIES[name]()
    module, _, attribute = name.partition(":")
    try:
        made: Policy = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(
            f"--policy {name}: {error}; it must be one of {', '.join(POLICIES)}, or module:Class of a class that needs"
            " no arguments, as bench.fleet.example_policy:KnownFirst"
        ) from error
    return made
