"""What a comparison reads of a finished run; models, scenes and checkpoints are left alone."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder, fit_settings, variant_of
from kg4d.utils.names import name_of_scene
from kg4d.utils.reading import is_finite, read_json, read_table

_CONFIG = "config.yaml"
_INDEX_COLUMNS = ("step", "stage", "stage_step")  # of metrics.csv


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as its own files describe it, wherever its folder lies.

    Attributes:
        folder: Its folder.
        name: Of its experiment.
        variant: Its variant.
        seed: Its seed.
        scene: The scene that it was fitted to.
        scene_name: Short name of that scene.
        settings: By dotted key, but for those that say where the run lies and who watches it.
        measured: What its `metrics.json` holds.
        record: What its `run.json` holds.
    """

    folder: RunFolder
    name: str
    variant: str
    seed: int
    scene: str
    scene_name: str
    settings: Mapping[str, Any]
    measured: Mapping[str, Any]
    record: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "FinishedRun":
        """Read a run folder.

        Raises:
            InputError: It is no run folder, the run is not finished, or a file of it is damaged.
        """
        folder = RunFolder(path)
        return cls.of(folder, folder.read_config())

    @classmethod
    def of(cls, folder: RunFolder, config: ExperimentConfig) -> "FinishedRun":
        """Read what a run of a known configuration has left.

        Raises:
            InputError: The run is not finished, or a file of it is damaged.
        """
        measured = folder.read_metrics()
        if measured is None:
            remedy = "finish it with kg4d.fit --resume, or leave it out"
            raise InputError(folder.path, "is a run that is not finished: it has no metrics.json", remedy)
        try:
            record = read_json(folder.record)
            _check_costs(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(folder.record, "is missing or damaged", "restore it, or leave this run out") from error
        named = name_of_scene(next(iter(config.scenes), config.scene))
        who = config.name, variant_of(config), config.seed, config.scene, named
        return cls(folder, *who, fit_settings(config), measured, record)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Its metrics by key."""
        values: Mapping[str, float] = self.measured["metrics"]
        return values

    @property
    def per_view(self) -> Mapping[str, Sequence[float | None]]:
        """The metrics of each held-out view, by key."""
        values: Mapping[str, Sequence[float | None]] = self.measured.get("per_view", {})
        return values

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What was measured, and how."""
        values: Mapping[str, Any] = self.measured.get("protocol", {})
        return values

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the metrics were measured with, and what was left out."""
        values: Mapping[str, Any] = self.measured.get("provenance", {})
        return values

    @cached_property
    def videos(self) -> Mapping[str, Path]:
        """Its exported videos by name: first the reference view, then the held-out ones, then the orbit."""
        folder = self.folder.export / "video"
        found = {path.stem: path for path in folder.glob("*.mp4")}
        tests = sorted((name for name in found if name.startswith("test_")), key=lambda name: (len(name), name))
        return {name: found[name] for name in ("reference", *tests, "orbit") if name in found}

    @cached_property
    def preview(self) -> Path | None:
        """The last picture that was drawn while it was fitted: frames of the reference view above what was made."""
        drawn = list(self.folder.previews.glob("*.png"))
        return max(drawn, key=lambda path: (path.stat().st_mtime, path.name), default=None)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """The columns of `metrics.csv`: steps over all stages, and values; nothing where it is missing."""
        path = self.folder.path / "metrics.csv"
        if not path.is_file():
            return {}
        columns: dict[str, list[tuple[int, float]]] = {}
        for row in csv.DictReader(read_table(path).splitlines()):
            for name, text in row.items():
                point = _point(row.get("step"), text)
                if name not in _INDEX_COLUMNS and name is not None and point is not None:
                    columns.setdefault(name, []).append(point)
        return columns


class Found(NamedTuple):
    """Runs below the folders that were given, and what was left out there."""

    runs: list[FinishedRun]
    left_out: list[str]


def find_runs(paths: Sequence[Path]) -> Found:
    """Read run folders, and the finished runs below folders that are none.

    Args:
        paths: Run folders, or folders above them, such as that of an experiment.

    Raises:
        InputError: A path is neither, or a run that is named itself is not finished.
    """
    runs: dict[str, FinishedRun] = {}  # by real path: a run counts once
    left_out = []
    for given in paths:
        inside = [given] if (given / _CONFIG).exists() else _run_folders(given)
        finished = [path for path in inside if path == given or RunFolder(path).metrics.exists()]
        left_out += [f"{path}: left out, the run is not finished" for path in inside if path not in finished]
        if not finished:
            what = "holds no finished run" if inside else "is not a run folder, and has none below"
            raise InputError(given, what, "give a folder that kg4d.fit made")
        for path in finished:
            runs.setdefault(os.path.realpath(path), FinishedRun.read(path))
    return Found(list(runs.values()), left_out)


def _run_folders(above: Path) -> list[Path]:
    """Folders with a configuration, in the order of their names; nothing below them is looked at."""
    found = []
    for path, folders, files in os.walk(above):
        if _CONFIG in files:
            found.append(Path(path))
            folders.clear()
        folders.sort()
    return found


def _check_costs(record: Any) -> None:
    """See that everything a comparison takes from a record is there, and is a number where it must be."""
    numbers = [*record["seconds"].values(), *record["peak_memory_bytes"].values()]
    for stage in record["stages"].values():
        numbers += [stage["steps"], stage["renders"], stage["seconds"]["total"]]
    if not all(is_finite(number) for number in numbers):
        raise ValueError("not a number")


def _point(step: str | None, text: Any) -> tuple[int, float] | None:
    try:
        step_number, value = int(step or ""), float(text)
    except (TypeError, ValueError):
        return None
    return (step_number, value) if is_finite(value) else None
