"""Check plain values against a tree of dataclasses, so that wrong keys and values are reported before anything runs."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType
from typing import Any, NoReturn, cast, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kg4d.errors import InputError

_TOO_MANY = 2**32  # of anything; seeds lie below it
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class CommandLineText(str):
    """A value from the command line: parsed as YAML, unless the schema wants text (`name=007`, `mode=off`)."""


@dataclass(frozen=True)
class Checker:
    """Checks values from one source against a schema, and converts them for OmegaConf.

    Attributes:
        schema: Dataclass at the root.
        source: Where the values come from, for error messages.
    """

    schema: type
    source: str

    def check(self, value: Any, hint: Any = None, key: str = "") -> Any:
        """Check names and types below `key`, and turn enum values into members.

        Args:
            value: Plain containers and scalars. Text with `${` is an interpolation and is not checked.
            hint: Type of `key` in the schema; the schema itself when None.
            key: Dotted key of `value`.

        Returns:
            The converted value.

        Raises:
            InputError: A key is unknown or a value is of the wrong kind.
        """
        hint = hint or self.schema
        if NoneType in get_args(hint):
            hint = next(option for option in get_args(hint) if option is not NoneType)
            if value is None or (isinstance(value, CommandLineText) and value in ("null", "~")):
                return None
        if isinstance(value, CommandLineText):
            value = self._parsed(value, hint, key)
        if isinstance(value, str) and "${" in value:
            return self._interpolation(value, key)
        return value if hint is Any else self._of_type(value, hint, key)

    def _of_type(self, value: Any, hint: Any, key: str) -> Any:
        if is_dataclass(hint) or get_origin(hint) is dict:
            return self._block(value, hint, key)
        if isinstance(value, Mapping) and value:
            self._unknown(f"{key}.{next(iter(value))}")
        if get_origin(hint) is list:
            if not isinstance(value, list):
                self._fail(key, f"{value!r} is not a list", f"write [{value}]")
            return [self.check(item, get_args(hint)[0], f"{key}[{i}]") for i, item in enumerate(value)]
        if issubclass(hint, Enum):
            return self._member(value, hint, key)
        return self._scalar(value, hint, key)

    def _block(self, value: Any, hint: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            self._fail(key, f"{value!r} is not a block of settings", f"set what is in it, `{key}.<name>`")
        types = get_type_hints(hint) if is_dataclass(hint) else dict.fromkeys(value, get_args(hint)[1])
        checked = {}
        for name, item in value.items():
            full = f"{key}.{name}".lstrip(".")
            if name not in types:
                if full in getattr(self.schema, "ELSEWHERE", {}):
                    self._fail(full, self.schema.ELSEWHERE[full], "take the file that it extends")  # type: ignore[attr-defined]
                self._unknown(full)
            pair = name in getattr(hint, "PAIRS", ())
            found = self._number_or_pair(item, full) if pair else self.check(item, types[name], full)
            checked[str(name)] = found
            self._within_range(found, full, signed=name in getattr(hint, "SIGNED", ()))
        return checked

    def _number_or_pair(self, value: Any, key: str) -> Any:
        """A whole number, or two in a list, for `PAIRS` of a dataclass: OmegaConf knows no such union."""
        if isinstance(value, CommandLineText) and "${" not in value:
            value = self._parsed(value, list, key)
        if isinstance(value, list) and len(value) != 2:
            self._fail(key, f"has {len(value)} numbers", "give one, or two: [width, height]")
        return self.check(value, list[int] if isinstance(value, list) else int, key)

    def _within_range(self, value: Any, key: str, signed: bool) -> None:
        """Weights, rates, counts and lengths are not negative; what may be stands in its dataclass's `SIGNED`."""
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._within_range(item, f"{key}[{index}]", signed=True)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                self._fail(key, f"{value} is not a finite number", "give one")
            if value < 0 and not signed:
                self._fail(key, f"must not be negative, not {value:g}", "give 0 or more")
            if isinstance(value, int) and abs(value) >= _TOO_MANY:
                self._fail(key, f"{value:.3g} is too large", f"give less than {_TOO_MANY}")

    def _interpolation(self, text: str, key: str) -> str:
        """Only between settings: what is in the environment would be copied into files and W&B."""
        if re.search(r"\$\{\s*oc\.", text):
            self._fail(key, f"{text!r} reads what is outside of the settings", "write the value itself")
        return text

    def _member(self, value: Any, hint: type[Enum], key: str) -> Enum:
        """The member written by its value, or by its name in lower case where that is another word."""
        members = {str(member.value): member for member in hint}
        members |= {member.name.lower(): member for member in hint if member.name.lower() not in members}
        if str(value) not in members:
            self._fail(key, f"{value!r} is not one of {', '.join(members)}", suggestion(str(value), members))
        return members[str(value)]

    def _scalar(self, value: Any, hint: Any, key: str) -> Any:
        if hint is float and type(value) is int:
            return float(value)
        if hint is int and type(value) is float and value.is_integer():  # 5e3
            return int(value)
        if hint in _KINDS and type(value) is not hint:
            remedy = "put it in quotes" if hint is str else f"give {_KINDS[hint]}"
            self._fail(key, f"{value!r} is not {_KINDS[hint]}", remedy)
        return value

    def _parsed(self, text: CommandLineText, hint: Any, key: str) -> Any:
        wants_text = isinstance(hint, type) and issubclass(hint, str | Enum)
        try:
            value = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])))["value"]
        except (YAMLError, OmegaConfBaseException):
            if not wants_text:
                self._fail(key, f"{str(text)!r} is not valid YAML", "check brackets and quotes")
            return str(text)
        return str(text) if wants_text and not isinstance(value, str) else value

    def _unknown(self, key: str) -> NoReturn:
        close = get_close_matches(key, list(dotted_keys(self.schema)), n=1)
        blocks = [field.name for field in fields(self.schema)]
        self._fail(key, "unknown key", suggestion(key, close or blocks))

    def _fail(self, key: str, what: str, remedy: str) -> NoReturn:
        raise InputError(f"{self.source}: {key if len(key) <= 80 else key[:80] + '...'}", what, remedy)


def dotted_keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """All keys of a dataclass and of the dataclasses in it, dotted."""
    types = get_type_hints(schema)
    for field in fields(schema):
        key = f"{prefix}.{field.name}".lstrip(".")
        yield key
        if is_dataclass(types[field.name]):
            yield from dotted_keys(types[field.name], key)


def suggestion(wrong: str, valid: Iterable[str]) -> str:
    """The remedy for a wrong name: the closest valid name, or the list of all valid ones.

    >>> suggestion("wieght", ["weight", "mode"])
    'did you mean `weight`?'
    >>> suggestion("x", ["weight", "mode"])
    'choose from weight, mode'
    """
    names = list(valid)
    close = get_close_matches(wrong, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(names)}"
