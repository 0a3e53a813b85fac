"""Settings as plain data, for YAML, JSON and W&B."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:
    """Convert dataclasses to dicts, tuples to lists and enum members to their values, at any depth.

    >>> from dataclasses import make_dataclass
    >>> plain(make_dataclass("Point", ["x", "y"])(1, (2, 3)))
    {'x': 1, 'y': [2, 3]}
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted keys; an empty dict is a leaf.

    >>> flat({"a": {"b": 1, "c": {}}, "d": [2]})
    {'a.b': 1, 'a.c': {}, 'd': [2]}
    """
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    return {
        key: leaf for name, item in tree.items() for key, leaf in flat(item, f"{prefix}.{name}".lstrip(".")).items()
    }
