"""Every setting as a page: its type, its default, and what its dataclass says of it.

`python -m kg4d.config.reference` prints docs/settings.md, which a test holds to what the code says.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from kg4d.config.schema import ExperimentConfig
from kg4d.utils.plain import plain

_TITLE = """# Every setting

Keys of an experiment file, and of `key=value` on the command line, as in `kg4d.fit --config F gaussians.count=2000`.
`python -m kg4d.fit --config F --show` prints what a file comes to, and where each value was set. The defaults here are
those of the code; presets in `configs/` change some. `make docs` writes this page from the dataclasses themselves.
"""


def settings_page(schema: type = ExperimentConfig) -> str:
    """The page, as Markdown; a section for each block of settings.

    Args:
        schema: A dataclass whose docstring has a section `Attributes:`.
    """
    return "\n".join([_TITLE, *_section(schema, "", "The experiment")])


def _section(schema: type, prefix: str, summary: str) -> Iterator[str]:
    """A table of the settings of a block, then the blocks in it."""
    hints, told = get_type_hints(schema), described(schema)
    blocks = [field.name for field in fields(schema) if is_dataclass(hints[field.name])]
    yield f"## {f'`{prefix}`' if prefix else summary}\n"
    if prefix:
        yield f"{_cell(summary)}\n"
    rows = [field for field in fields(schema) if field.name not in blocks]
    if rows:
        yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
        for field in rows:
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            name = f"{prefix}.{field.name}".lstrip(".")
            kind = f"`{_typed(hints[field.name])}`"
            yield f"| `{name}` | {_cell(kind)} | {_default(made)} | {_cell(told.get(field.name, ''))} |"
        yield ""
    for name in blocks:
        yield from _section(hints[name], f"{prefix}.{name}".lstrip("."), told.get(name, ""))


def described(schema: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those that it extends say of each attribute."""
    found: dict[str, str] = {}
    for one in reversed(schema.__mro__):
        text = inspect.cleandoc(one.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        for name, told in re.findall(r"^    (\w+): (.+(?:\n {8}.*)*)", text, re.MULTILINE):
            found[name] = " ".join(told.split())
    return found


def _typed(hint: Any) -> str:
    """A type as a person writes its values."""
    if NoneType in get_args(hint):
        return " or ".join("null" if option is NoneType else _typed(option) for option in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {_typed(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"name: {_typed(get_args(hint)[1])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(str(member.value) for member in hint)
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return words.get(hint, "number, or [width, height]")


def _default(value: Any) -> str:
    value = plain(value)
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(settings_page())
