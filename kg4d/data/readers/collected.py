"""Errors of one scene raised together, so that a person need not meet them one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kg4d.errors import InputError

_SHOWN = 3  # places of each kind


class Collected:
    """Errors of the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._errors: list[InputError] = []

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Keep an `InputError` that is raised inside, and go on."""
        try:
            yield
        except InputError as error:
            self._errors.append(error)

    def raise_any(self) -> None:
        """Raise the first error, which then names the places of the others.

        Raises:
            InputError: There is an error.
        """
        if not self._errors:
            return
        first = self._errors[0]
        places: dict[str, list[str]] = {first.what: []}
        seen = {(str(first.where), first.what)}
        for error in self._errors[1:]:
            key = (str(error.where), error.what)
            if key not in seen:
                seen.add(key)
                places.setdefault(error.what, []).append(str(error.where).removeprefix(f"{self._folder}/"))
        alike = places.pop(first.what)
        what = first.what + (f"; likewise {_some(alike)}" if alike else "")
        others = [f"{_some(where)}: {fault}" for fault, where in places.items()]
        what += "".join(f"; {other}" for other in others[:_SHOWN])
        if len(others) > _SHOWN:
            what += f"; and {len(others) - _SHOWN} more kinds of fault"
        raise InputError(first.where, what, first.remedy) from first


def _some(places: list[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
