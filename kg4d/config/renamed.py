"""Renamed keys: files written with the old ones still load."""

import logging
from collections.abc import Mapping
from typing import Any

from kg4d.errors import InputError

_log = logging.getLogger(__name__)


def with_new_names(values: dict[Any, Any], renamed: Mapping[str, str], source: str) -> dict[Any, Any]:
    """Move the values of old keys to their new keys.

    Args:
        values: Contents of a file or of one override; not modified.
        renamed: New dotted key by old dotted key.
        source: Where the values come from, for error messages.

    Returns:
        The values under the new keys.

    Raises:
        InputError: An old key and its new key are both there.
    """
    for old, new in renamed.items():
        found, rest = _taken(values, old.split("."))
        if found is None:
            continue
        if _taken(rest, new.split("."))[0] is not None:
            raise InputError(f"{source}: {old}", f"is now called {new}, which is given too", f"remove {old}")
        _log.debug("%s: %s is now called %s", source, old, new)
        values = _put(rest, new.split("."), found[0])
    return values


def _taken(values: dict[Any, Any], path: list[str]) -> tuple[list[Any] | None, dict[Any, Any]]:
    """The value at `path`, in a list of one (None if there is no such key), and the remaining values."""
    head, *below = path
    if not isinstance(values, dict) or head not in values:
        return None, values
    if not below:
        return [values[head]], {key: value for key, value in values.items() if key != head}
    found, rest = _taken(values[head], below)
    return found, values if found is None else {**values, head: rest}


def _put(values: dict[Any, Any], path: list[str], value: Any) -> dict[Any, Any]:
    head, *below = path
    if not below:
        return {**values, head: value}
    inside = values.get(head, {})
    return {**values, head: _put(inside if isinstance(inside, dict) else {}, below, value)}
