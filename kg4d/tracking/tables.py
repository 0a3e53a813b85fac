"""Tables of metrics: the comparison of an experiment's variants, and the results of one evaluation."""

import csv
import json
import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from kg4d.metrics.intervals import Difference, Ends, paired_difference
from kg4d.metrics.keys import METRIC_KEYS
from kg4d.utils.files import replacing

_MISSING = "–"

Results = Mapping[str, Mapping[int, Mapping[str, float]]]  # variant -> seed -> metric -> value


class Cell(NamedTuple):
    """One metric of one variant."""

    mean: float
    std: float | None  # over seeds, with n - 1 in the denominator; None with one seed
    seeds: int
    difference: Difference | None  # None for the first variant, and if no seed has the metric in both


@dataclass(frozen=True)
class AblationTable:
    """Metrics of the variants of one experiment.

    Attributes:
        variants: Names of the variants; the others are compared to the first one.
        metrics: Keys of the metrics, in the order of `METRIC_KEYS`; others come last.
        cells: By metric and variant; there is no cell for a metric that a variant does not have.
    """

    variants: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]

    @property
    def columns(self) -> list[str]:
        """Names of what `rows` holds."""
        return ["metric", "better", "variant", "mean", "std", "seeds", "difference", "low", "high", "ends"]

    @property
    def rows(self) -> list[list[Any]]:
        """One row per metric and variant, for machine-readable files; None where there is no value."""
        return [
            [metric, _better(metric), variant, *cell[:3], *(cell.difference or (None, None, None, None))]
            for metric in self.metrics
            for variant in self.variants
            if (cell := self.cells.get((metric, variant))) is not None
        ]


_UNSEEN = "There are no held-out views: the sides are a guess, and no number here tells how right they are."


def ablation_table(results: Results) -> AblationTable:
    """Compare variants over seeds.

    Args:
        results: Metrics by variant and seed; the first variant is what the others are compared to.

    Raises:
        ValueError: There is no variant.
    """
    if not results:
        raise ValueError("need at least one variant")
    first, *_ = variants = tuple(results)
    found = {metric for seeds in results.values() for values in seeds.values() for metric in values}
    metrics = (*(key for key in METRIC_KEYS if key in found), *sorted(found - set(METRIC_KEYS)))
    cells = {}
    for metric in metrics:
        base = _by_seed(results[first], metric)
        for variant in variants:
            values = _by_seed(results[variant], metric)
            if values:
                difference = None if variant == first else paired_difference({"": values}, {"": base})
                cells[metric, variant] = Cell(*_mean_and_std(values.values()), len(values), difference)
    return AblationTable(variants, metrics, cells)


def _by_seed(seeds: Mapping[int, Mapping[str, float]], metric: str) -> dict[int, float]:
    return {seed: values[metric] for seed, values in seeds.items() if metric in values}


def _mean_and_std(values: Collection[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def difference_text(difference: Difference, number: str) -> str:
    """The mean with its interval in brackets, or its range in parentheses.

    Args:
        difference: From `paired_difference`.
        number: Format of a number, with its sign.

    >>> difference_text(Difference(1.0, 0.5, 1.5, Ends.INTERVAL), "{:+.1f}")
    '+1.0 [+0.5, +1.5]'
    >>> difference_text(Difference(1.0, 0.5, 1.5, Ends.RANGE), "{:+.1f}")
    '+1.0 (+0.5 to +1.5)'
    """
    mean, low, high, ends = difference
    text = number.format(mean)
    if low is None or high is None:
        return text
    low_text, high_text = number.format(low), number.format(high)
    return f"{text} [{low_text}, {high_text}]" if ends is Ends.INTERVAL else f"{text} ({low_text} to {high_text})"


def write_tables(folder: Path, results: Results) -> AblationTable:
    """Write `table.md`, `table.csv` and `table.json` (the same numbers in all) and return the table."""
    table = ablation_table(results)
    with replacing(folder / "table.md") as part:
        part.write_text(_markdown(table), encoding="utf-8")
    with replacing(folder / "table.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table.columns, *table.rows])
    records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    summary = {"compared_to": table.variants[0], "variants": table.variants, "rows": records}
    with replacing(folder / "table.json") as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return table


def print_table(table: AblationTable) -> None:
    """Print the comparison on the terminal."""
    shown = Table("", *table.variants)
    for metric in table.metrics:
        shown.add_row(_heading(metric), *("\n".join(lines) for lines in _texts(table, metric)))
    console = Console(highlight=False)
    console.print(shown)
    console.print(_note(table), markup=False)


def print_metrics(metrics: Mapping[str, float], skipped: Mapping[str, str]) -> None:
    """Print the metrics of one evaluation, and the reasons why others are missing."""
    shown = Table("", "", "")
    for metric, value in metrics.items():
        shown.add_row(_heading(metric), _number(value), METRIC_KEYS[metric].meaning if metric in METRIC_KEYS else "")
    for metric, reason in skipped.items():
        shown.add_row(_heading(metric), _MISSING, reason)
    Console(highlight=False).print(shown)


def _markdown(table: AblationTable) -> str:
    lines = ["| metric | " + " | ".join(table.variants) + " |", "|---|" + "---|" * len(table.variants)]
    for metric in table.metrics:
        cells = ("<br>".join(texts) for texts in _texts(table, metric))
        lines.append(f"| {_heading(metric)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _note(table), ""])


def _texts(table: AblationTable, metric: str) -> list[list[str]]:
    """For each variant the lines of its cell: mean ± std, then the difference and how far it can be trusted."""
    texts = []
    for variant in table.variants:
        cell = table.cells.get((metric, variant))
        if cell is None:
            texts.append([_MISSING])
            continue
        lines = [_number(cell.mean) + ("" if cell.std is None else f" ± {cell.std:.2g}")]
        if cell.difference is not None:
            lines.append(difference_text(cell.difference, "{:+.3g}"))
        texts.append(lines)
    return texts


def _note(table: AblationTable) -> str:
    counts = [cell.seeds for cell in table.cells.values()] or [0]
    low, high = min(counts), max(counts)
    text = f"Mean ± standard deviation over {low if low == high else f'{low} to {high}'} seed{'s' if high != 1 else ''}"
    unseen = "" if any(key.startswith("test/") for key in table.metrics) else f" {_UNSEEN}"
    if len(table.variants) == 1:
        return f"{text}.{unseen}"
    return (
        f"{text}; below it the difference to {table.variants[0]}, paired by seed: from three pairs on with the 95 % "
        "interval of its mean (Student's t) in brackets, with two with their range in parentheses." + unseen
    )


def _heading(metric: str) -> str:
    entry = METRIC_KEYS.get(metric)
    if entry is None:
        return metric
    return f"{metric} {entry.arrow}" + (f" ({entry.unit})" if entry.unit else "")


def _better(metric: str) -> str | None:
    entry = METRIC_KEYS.get(metric)
    return None if entry is None else "higher" if entry.higher_is_better else "lower"


def _number(value: float) -> str:
    """Format with four significant digits, or more if the integer part is longer: 24.31, 0.9123, 1234.

    >>> _number(24.3149), _number(1234.4), _number(0.01)
    ('24.31', '1234', '0.01')
    """
    digits = max(4, math.floor(math.log10(abs(value))) + 1) if value and math.isfinite(value) else 4
    return f"{value:.{digits}g}"
