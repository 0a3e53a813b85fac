"""Tables of metrics: the comparison of an experiment's variants, and the results of one evaluation."""

import csv
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kg4d.metrics.intervals import LEAST, Difference, Ends, mean_and_ends, paired_difference, sample_of
from kg4d.metrics.keys import METRIC_KEYS
from kg4d.utils.console import console, table
from kg4d.utils.files import replacing

_MISSING = "–"

Results = Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]]
"""variant -> scene -> seed -> metric -> value"""


class Cell(NamedTuple):
    """One metric of one variant."""

    mean: float
    std: float | None  # over seeds, of several scenes over their means; n - 1 in the denominator; None with one value
    scenes: int
    seeds: int  # of the scene that has most
    spread: Difference | None  # the mean with its interval over scenes; None with one scene
    difference: Difference | None  # None for the first variant, and if no scene and seed has the metric in both


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
        own = ["metric", "better", "variant", "mean", "std", "scenes", "seeds", "mean_low", "mean_high", "mean_ends"]
        return [*own, "difference", "low", "high", "ends"]

    @property
    def rows(self) -> list[list[Any]]:
        """One row per metric and variant, for machine-readable files; None where there is no value."""
        return [
            [metric, _better(metric), variant, *cell[:4], *_ends(cell.spread), *(cell.difference or (None,) * 4)]
            for metric in self.metrics
            for variant in self.variants
            if (cell := self.cells.get((metric, variant))) is not None
        ]


def _ends(spread: Difference | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if spread is None else spread[1:]


_UNSEEN = "There are no held-out views: the sides are a guess, and no number here tells how right they are."


def ablation_table(results: Results) -> AblationTable:
    """Compare variants over scenes and seeds.

    Args:
        results: Metrics by variant, scene and seed; the first variant is what the others are compared to.

    Raises:
        ValueError: There is no variant.
    """
    if not results:
        raise ValueError("need at least one variant")
    first, *_ = variants = tuple(results)
    found = {key for scenes in results.values() for seeds in scenes.values() for run in seeds.values() for key in run}
    metrics = (*(key for key in METRIC_KEYS if key in found), *sorted(found - set(METRIC_KEYS)))
    cells = {}
    for metric in metrics:
        base = _having(results[first], metric)
        for variant in variants:
            values = _having(results[variant], metric)
            if values:
                cells[metric, variant] = _cell(values, None if variant == first else base)
    return AblationTable(variants, metrics, cells)


def _having(scenes: Mapping[str, Mapping[int, Mapping[str, float]]], metric: str) -> dict[str, dict[int, float]]:
    """Values of one metric by scene and seed, without scenes that have none."""
    values = {
        scene: {seed: run[metric] for seed, run in seeds.items() if metric in run} for scene, seeds in scenes.items()
    }
    return {scene: seeds for scene, seeds in values.items() if seeds}


def _cell(values: Mapping[str, Mapping[int, float]], base: Mapping[str, Mapping[int, float]] | None) -> Cell:
    sample = sample_of(values)
    return Cell(
        statistics.fmean(sample),
        statistics.stdev(sample) if len(sample) > 1 else None,
        len(values),
        max(map(len, values.values())),
        mean_and_ends(sample) if len(values) > 1 else None,
        None if base is None else paired_difference(values, base),
    )


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


def print_table(compared: AblationTable) -> None:
    """Print the comparison on the terminal."""
    shown, out = table("", *compared.variants), console()
    for metric in compared.metrics:
        shown.add_row(_heading(metric), *("\n".join(lines) for lines in _texts(compared, metric)))
    out.print(shown)
    out.print(table_note(compared), markup=False)


def print_metrics(metrics: Mapping[str, float], skipped: Mapping[str, str]) -> None:
    """Print the metrics of one evaluation, and the reasons why others are missing."""
    shown = table("", "", "")
    for metric, value in metrics.items():
        shown.add_row(
            _heading(metric), number_text(value), METRIC_KEYS[metric].meaning if metric in METRIC_KEYS else ""
        )
    for metric, reason in skipped.items():
        shown.add_row(_heading(metric), _MISSING, reason)
    console().print(shown)


def _markdown(table: AblationTable) -> str:
    lines = ["| metric | " + " | ".join(table.variants) + " |", "|---|" + "---|" * len(table.variants)]
    for metric in table.metrics:
        cells = ("<br>".join(texts) for texts in _texts(table, metric))
        lines.append(f"| {_heading(metric)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", table_note(table), ""])


def _texts(table: AblationTable, metric: str) -> list[list[str]]:
    """For each variant the lines of its cell: mean ± std, then the difference and how far it can be trusted."""
    texts = []
    for variant in table.variants:
        cell = table.cells.get((metric, variant))
        if cell is None:
            texts.append([_MISSING])
            continue
        lines = [mean_text(cell)]
        if cell.difference is not None:
            lines.append(difference_text(cell.difference, "{:+.3g}"))
        texts.append(lines)
    return texts


def mean_text(cell: Cell) -> str:
    """Mean ± std over seeds; over scenes with the interval of the mean, where there are enough for one."""
    text = number_text(cell.mean) + ("" if cell.std is None else f" ± {cell.std:.2g}")
    if cell.spread is None or cell.spread.ends is not Ends.INTERVAL:
        return text
    return f"{text} [{cell.spread.low:.4g}, {cell.spread.high:.4g}]"


def table_note(table: AblationTable) -> str:
    """How to read the numbers of a comparison."""
    several = any(cell.scenes > 1 for cell in table.cells.values())
    seeds = _count([cell.seeds for cell in table.cells.values()], "seed")
    scenes = _count([cell.scenes for cell in table.cells.values()], "scene")
    text = f"Mean ± standard deviation over {seeds}"
    if several:
        text = f"Mean ± standard deviation over {scenes} (each the mean of {seeds})"
        if any(cell.scenes >= LEAST for cell in table.cells.values()):
            text += ", with the 95 % interval of the mean over scenes (Student's t) in brackets"
    unseen = "" if any(key.startswith("test/") for key in table.metrics) else f" {_UNSEEN}"
    if len(table.variants) == 1:
        return f"{text}.{unseen}"
    return (
        f"{text}; below it the difference to {table.variants[0]}, paired by {'scene and ' if several else ''}seed: "
        f"from three {'scenes' if several else 'pairs'} on with the 95 % interval of its mean (Student's t) in "
        "brackets, with two with their range in parentheses." + unseen
    )


def _count(counts: list[int], what: str) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low if low == high else f'{low} to {high}'} {what}{'s' if high != 1 else ''}"


def _heading(metric: str) -> str:
    entry = METRIC_KEYS.get(metric)
    if entry is None:
        return metric
    return f"{metric} {entry.arrow}" + (f" ({entry.unit})" if entry.unit else "")


def _better(metric: str) -> str | None:
    entry = METRIC_KEYS.get(metric)
    return None if entry is None else "higher" if entry.higher_is_better else "lower"


def number_text(value: float) -> str:
    """Format with four significant digits, or more if the integer part is longer: 24.31, 0.9123, 1234.

    >>> number_text(24.3149), number_text(1234.4), number_text(0.01)
    ('24.31', '1234', '0.01')
    """
    digits = max(4, math.floor(math.log10(abs(value))) + 1) if value and math.isfinite(value) else 4
    return f"{value:.{digits}g}"
