"""The history of a run as a CSV file: one row per logged step, over all stages."""

import csv
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kg4d.errors import InputError
from kg4d.utils.files import flush_to_disk, replacing
from kg4d.utils.reading import is_there, regular

_log = logging.getLogger(__name__)

_INDEX_COLUMNS = ("step", "stage", "stage_step")  # the first columns; `step` counts over all stages


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a row has all its cells and its steps are numbers; a power cut or a full disk leaves others."""
    numbers = (row.get("step") or "", row.get("stage_step") or "")
    return None not in row and None not in row.values() and all(number.isdigit() for number in numbers)


class History:
    """A CSV file with one row per logged step. A column may appear at any time; earlier rows are empty there.

    A row is on disk as soon as a later one is added, or after `flush`. An existing file is continued.

    Args:
        path: The file; created when the first row is complete.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: dict[str, Any] = {}
        self._saved: dict[str, Any] = {}  # what of it is on disk
        rows = self._read()
        self._columns = list(rows[0]) if rows else list(_INDEX_COLUMNS)
        self._starts = {row["stage"]: int(row["step"]) - int(row["stage_step"]) for row in rows}
        self._next = int(rows[-1]["step"]) + 1 if rows else 0
        self._earlier = set(self._starts)

    def step_of(self, stage: str, stage_step: int) -> int:
        """Convert a stage's own step to the step over all stages; a new stage begins after all rows so far."""
        return self._starts.setdefault(stage, self._next) + stage_step

    def add(self, stage: str, stage_step: int, values: Mapping[str, float]) -> int:
        """Add values to the row of a step.

        When a resumed stage adds its first row, rows of the existing file from this step on are dropped: the stage was
        interrupted there and repeats them.

        Args:
            stage: Name of the stage.
            stage_step: Step of the stage, from 0.
            values: Numbers by column.

        Returns:
            The step over all stages.

        Raises:
            ValueError: The step lies before the last one.
        """
        step = self.step_of(stage, stage_step)
        if stage in self._earlier:
            self._drop_from(step)
        if self._pending and step != self._pending["step"]:
            self.flush()
        if step < self._next - bool(self._pending):
            raise ValueError(
                f"steps must not go back: {stage} {stage_step} after step {self._next - 1} over all stages"
            )
        self._pending |= dict(zip(_INDEX_COLUMNS, (step, stage, stage_step), strict=True)) | dict(values)
        self._next = step + 1
        return step

    def flush(self) -> None:
        """Write the last row, and end it: a later `add` begins another one."""
        self.save()
        self._pending, self._saved = {}, {}

    def save(self) -> None:
        """Write the last row as it stands; `add` may still add to it."""
        if self._pending == self._saved:
            return
        fresh = [name for name in self._pending if name not in self._columns]
        if fresh or self._saved or not self._path.exists():
            self._columns += fresh
            rows = self._read()
            self._rewrite([*(rows[:-1] if self._saved else rows), self._pending])
        else:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(self._pending)
            flush_to_disk(self._path)
        self._saved = dict(self._pending)

    def _drop_from(self, step: int) -> None:
        rows = self._read()
        kept = [row for row in rows if int(row["step"]) < step]
        if len(kept) < len(rows):
            self._rewrite(kept)
        self._next = int(kept[-1]["step"]) + 1 if kept else 0
        self._starts = {stage: start for stage, start in self._starts.items() if start <= step}
        self._earlier = set()

    def _read(self) -> list[dict[str, Any]]:
        if not is_there(self._path):
            return []
        try:
            regular(self._path)
        except OSError as error:
            raise InputError(self._path, (error.strerror or str(error)).lower(), "remove it") from error
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if "\0" not in line and line.endswith("\n")]
        rows = list(csv.DictReader(whole))
        good = list(itertools.takewhile(_is_whole, rows))
        if len(good) + 1 < len(lines):
            lost = len(lines) - 1 - len(good)
            _log.warning("%s: %d torn row(s) at the end are dropped", self._path, lost)
            self._columns = list(good[0]) if good else list(_INDEX_COLUMNS)
            self._rewrite(good)
        return good

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with replacing(self._path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
