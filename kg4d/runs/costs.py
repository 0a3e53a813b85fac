"""What a run costs: seconds of its parts, and the records of its stages."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kg4d.stages.runner import StageRecord


class Costs:
    """Kept while a run goes on.

    Attributes:
        seconds: Wall seconds by part.
        stages: What each stage took, by name.
    """

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.stages: dict[str, StageRecord] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Book what runs inside under `name`, if it ends well."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    def rounded(self) -> dict[str, float]:
        """Seconds of each part, and `total` up to now, to a millisecond."""
        total = time.perf_counter() - self._begin
        return {name: round(value, 3) for name, value in {**self.seconds, "total": total}.items()}
