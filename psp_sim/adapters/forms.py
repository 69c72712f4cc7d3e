"""Parameters in Stripe's form: ``metadata[request_id]=x&expand[0]=latest_charge``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias, cast

from psp_sim.domain.model import wrong

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Form: TypeAlias = dict[str, "str | Form"]

_PART = re.compile(r"[^\[\]]+")


def decoded(pairs: Iterable[tuple[str, str]], known: Collection[str]) -> Form:
    """Make a tree of parameters.

    Raises:
        ApiError: if one is not known.

    """
    form: Form = {}
    for name, value in pairs:
        parts = _PART.findall(name)
        if not parts or parts[0] not in known:
            raise wrong(f"Received unknown parameter: {name}", name, "parameter_unknown")
        branch = form
        for part in parts[:-1]:
            inner = branch.setdefault(part, {})
            if isinstance(inner, str):
                raise wrong(f"Invalid object: {name}", name)
            branch = inner
        branch[parts[-1]] = value
    return form


def text(form: Form, name: str) -> str | None:
    """Give a parameter that is a text.

    Raises:
        ApiError: if it is a tree.

    """
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(f"Invalid string: {name}", name)
    return value


def whole(form: Form, name: str) -> int | None:
    """Give a parameter that is a whole number of 0 or more.

    Raises:
        ApiError: if it is something else.

    """
    value = text(form, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()):
        raise wrong(f"Invalid integer: {name}", name, "parameter_invalid_integer")
    return int(value)


def tree(form: Form, name: str) -> Form:
    """Give a parameter that has parts; empty when it is not there.

    Raises:
        ApiError: if it has none.

    """
    value = form.get(name, {})
    if isinstance(value, str):
        raise wrong(f"Invalid object: {name}", name)
    return value


def texts(form: Form, name: str) -> dict[str, str]:
    """Give a parameter whose parts are texts.

    Raises:
        ApiError: if they are not.

    """
    value = tree(form, name)
    if not all(isinstance(part, str) for part in value.values()):
        raise wrong(f"Invalid object: {name}", name)
    return cast("dict[str, str]", value)
