"""What the page of a comparison shows, as text and shapes; the template only places it."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kg4d.comparison.arms import Comparison
from kg4d.comparison.charts import Chart, Points, chart
from kg4d.comparison.finished import FinishedRun
from kg4d.metrics.intervals import Difference, Ends
from kg4d.metrics.keys import METRIC_KEYS
from kg4d.tracking.tables import AblationTable, difference_text, mean_text, number_text

_MISSING = "–"


class Shown(NamedTuple):
    """One metric of one arm.

    Attributes:
        value: Its mean, with the standard deviation.
        interval: Of the mean over scenes; empty where there is none.
        difference: To the first arm, with its interval or range; empty where there is none.
        verdict: `better` or `worse` where the interval of the difference leaves 0 out, else empty.
    """

    value: str
    interval: str = ""
    difference: str = ""
    verdict: str = ""


class MetricRow(NamedTuple):
    """One metric in all arms."""

    key: str
    arrow: str
    unit: str
    shown: list[Shown]


class Row(NamedTuple):
    """A line of a plain table."""

    head: str
    cells: list[str]


class Named(NamedTuple):
    """A table with a heading."""

    name: str
    heads: list[str]
    rows: list[Row]


class Blindness(NamedTuple):
    """What a metric is, and what it cannot see."""

    key: str
    meaning: str
    blind_spot: str


def metric_rows(table: AblationTable) -> list[MetricRow]:
    """The table of metrics."""
    rows = []
    for key in table.metrics:
        known = METRIC_KEYS.get(key)
        shown = []
        for arm in table.variants:
            cell = table.cells.get((key, arm))
            if cell is None:
                shown.append(Shown(_MISSING))
                continue
            difference = cell.difference
            text = "" if difference is None else difference_text(difference, "{:+.3g}")
            value, bracket, interval = mean_text(cell).partition("[")
            shown.append(
                Shown(value, bracket + interval, text, verdict(difference, known is None or known.higher_is_better))
            )
        rows.append(MetricRow(key, known.arrow if known else "", known.unit if known else "", shown))
    return rows


def verdict(difference: Difference | None, higher_is_better: bool) -> str:
    """`better` or `worse` where the 95 % interval of a difference leaves 0 out; else nothing is said.

    >>> verdict(Difference(1.0, 0.5, 1.5, Ends.INTERVAL), higher_is_better=False)
    'worse'
    >>> verdict(Difference(1.0, 0.5, 1.5, Ends.RANGE), higher_is_better=False)
    ''
    """
    if difference is None or difference.ends is not Ends.INTERVAL or difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def blindness(keys: Iterable[str]) -> list[Blindness]:
    """What each of some metrics is, and what it cannot see."""
    return [Blindness(key, METRIC_KEYS[key].meaning, METRIC_KEYS[key].blind_spot) for key in keys if key in METRIC_KEYS]


def skipped(comparison: Comparison) -> list[Row]:
    """Why metrics are absent, and from which arms."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for arm, runs in comparison.arms.items():
        for run in runs:
            for key, reason in run.provenance.get("skipped", {}).items():
                reasons.setdefault((key, reason), {})[arm] = None
    return [Row(key, [reason, ", ".join(arms)]) for (key, reason), arms in sorted(reasons.items())]


def by_place(comparison: Comparison, keys: Iterable[str]) -> list[Named]:
    """For each metric the mean over seeds of each scene, where there are several scenes."""
    places = list(dict.fromkeys(comparison.places.values()))
    if len(places) < 2:
        return []
    tables = []
    for key in keys:
        rows = [
            Row(place, [_mean_text(_of(seeds.get(place, {}).values(), key)) for seeds in comparison.results.values()])
            for place in places
        ]
        tables.append(Named(key, list(comparison.arms), rows))
    return tables


def by_view(comparison: Comparison) -> list[Named]:
    """For each metric that has them, and each scene, the means over seeds of each held-out view."""
    tables = []
    for key in dict.fromkeys(key for run in comparison.runs for key in run.per_view):
        for place in dict.fromkeys(comparison.places.values()):
            arms = {
                arm: [
                    run.per_view[key]
                    for run in runs
                    if comparison.places[run.folder.path] == place and key in run.per_view
                ]
                for arm, runs in comparison.arms.items()
            }
            views = max((len(values) for of_arm in arms.values() for values in of_arm), default=0)
            if views == 0:
                continue
            names = _view_names(
                next(run for run in comparison.runs if comparison.places[run.folder.path] == place), views
            )
            rows = [
                Row(name, [_mean_text([v[view] for v in of_arm if view < len(v)]) for of_arm in arms.values()])
                for view, name in enumerate(names)
            ]
            several = len(set(comparison.places.values())) > 1
            tables.append(Named(f"{key}, {place}" if several else key, list(comparison.arms), rows))
    return tables


def _view_names(run: FinishedRun, views: int) -> list[str]:
    azimuths = run.protocol.get("azimuths") or []
    known = len(azimuths) == views
    return [f"view {view}" + (f" ({azimuths[view]:g}°)" if known else "") for view in range(views)]


def costs(comparison: Comparison) -> list[Row]:
    """Seconds, steps, renders and memory: means over the runs of each arm that have them."""
    costs = {arm: [_costs(run) for run in runs] for arm, runs in comparison.arms.items()}
    heads = dict.fromkeys(head for of_arm in costs.values() for of_run in of_arm for head in of_run)
    return [
        Row(head, [_mean_cost([of_run[head] for of_run in of_arm if head in of_run]) for of_arm in costs.values()])
        for head in heads
    ]


def _costs(run: FinishedRun) -> dict[str, float]:
    """What a run cost, by what stands before it in the table."""
    record = run.record
    found = {"whole fit, s": record["seconds"]["total"]}
    for name, stage in record["stages"].items():
        found |= {f"{name}, s": stage["seconds"]["total"]}
        found |= {f"{name}, {what}": stage[what] for what in ("steps", "renders")}
    found |= {f"{part}, s": seconds for part, seconds in record["seconds"].items() if part != "total"}
    found |= {f"peak memory ({mark}), MB": size / 1e6 for mark, size in record["peak_memory_bytes"].items()}
    return {head: float(value) for head, value in found.items()}


def _mean_cost(values: Sequence[float]) -> str:
    if not values:
        return _MISSING
    mean = statistics.fmean(values)
    return f"{mean:,.0f}" if mean >= 100 or mean == round(mean) else f"{mean:.1f}"


def charts(comparison: Comparison) -> list[Chart]:
    """A chart for each column of the histories; losses and PSNR first."""
    columns: dict[str, dict[int, list[Points]]] = {}
    for index, runs in enumerate(comparison.arms.values()):
        for run in runs:
            for name, points in run.history().items():
                columns.setdefault(name, {}).setdefault(index, []).append(points)
    order = sorted(columns, key=lambda name: name.rpartition("/")[2] not in ("loss", "psnr"))
    return [drawn for name in order if (drawn := chart(name, columns[name])) is not None]


def _of(values: Iterable[Mapping[str, float]], key: str) -> list[float]:
    return [metrics[key] for metrics in values if key in metrics]


def _mean_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number_text(statistics.fmean(known)) if known else _MISSING
