"""What the points of a sweep reach and what they cost, as a table and a picture."""

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.flows.examples.plots import canvas
from kg4d.runs.folder import RunFolder
from kg4d.sweeps.board import QUALITIES
from kg4d.utils.files import replacing


@dataclass(frozen=True)
class Reached:
    """Means over the fits of one point.

    Attributes:
        point: Its name.
        fits: How many are done.
        quality: In dB, by the first of `QUALITIES` that all have.
        seconds: Wall seconds of the stages, those that were taken over from another fit included.
        gaussians: How many there are at the end.
    """

    point: str
    fits: int
    quality: float
    seconds: float
    gaussians: float


def reached(runs: Iterable[Run[ExperimentConfig]]) -> tuple[str, list[Reached]]:
    """What quality is measured by, and what each point has reached of whose fits some are done."""
    found: dict[str, list[tuple[dict[str, float], float, int]]] = {}
    for one in runs:
        folder = RunFolder.of(one.config)
        metrics = folder.read_metrics()
        if metrics is not None and folder.record.is_file():
            record = json.loads(folder.record.read_text(encoding="utf-8"))
            row = (metrics["metrics"], float(record["training"]["wall"]), int(record["gaussians"]))
            found.setdefault(one.variant, []).append(row)
    rows = [row for fits in found.values() for row in fits]
    key = next((key for key in QUALITIES if rows and all(key in metrics for metrics, *_ in rows)), QUALITIES[-1])
    return key, [
        Reached(
            point,
            len(fits),
            statistics.fmean(metrics[key] for metrics, *_ in fits),
            statistics.fmean(seconds for _, seconds, _ in fits),
            statistics.fmean(count for *_, count in fits),
        )
        for point, fits in found.items()
    ]


def front(points: Sequence[Reached]) -> list[Reached]:
    """The points that no other one beats: at least as good, as fast and as small, and better in one of the three.

    >>> reached = {"a": (20.0, 9.0), "b": (21.0, 9.0), "c": (19.0, 8.0)}
    >>> [point.point for point in front([Reached(name, 1, *values, 5.0) for name, values in reached.items()])]
    ['b', 'c']
    """

    def beats(one: Reached, other: Reached) -> bool:
        as_good = one.quality >= other.quality and one.seconds <= other.seconds and one.gaussians <= other.gaussians
        return as_good and (one.quality, one.seconds, one.gaussians) != (other.quality, other.seconds, other.gaussians)

    return [point for point in points if not any(beats(other, point) for other in points)]


def write_pareto(folder: Path, quality: str, points: Sequence[Reached]) -> list[Path]:
    """Write `pareto.csv` and `pareto.png`: quality against seconds and against the number of Gaussians."""
    best = front(points)
    with replacing(folder / "pareto.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        names = [field.name if field.name != "quality" else quality for field in fields(Reached)]
        rows = [[*astuple(point), point in best] for point in sorted(points, key=lambda one: -one.quality)]
        csv.writer(file).writerows([[*names, "on_front"], *rows])
    with canvas(folder / "pareto.png", columns=2, width=4.0) as axes:
        for axis, cost, label in zip(axes, ("seconds", "gaussians"), ("training, s", "Gaussians"), strict=True):
            costs, values = [getattr(point, cost) for point in points], [point.quality for point in points]
            axis.scatter(costs, values, s=14, color="lightgray")
            axis.scatter([getattr(point, cost) for point in best], [point.quality for point in best], s=18)
            for point in best:
                axis.annotate(point.point, (getattr(point, cost), point.quality), fontsize=5)
            axis.set_xlabel(label)
            axis.set_ylabel(f"{quality}, dB")
    return [folder / "pareto.csv", folder / "pareto.png"]
