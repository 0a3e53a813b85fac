"""One page that compares finished runs: static HTML in one file, which asks nothing of any network."""

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import kg4d
from kg4d.comparison import figures
from kg4d.comparison.arms import Comparison
from kg4d.comparison.charts import HEIGHT, WIDTH
from kg4d.comparison.films import films
from kg4d.comparison.finished import FinishedRun
from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder
from kg4d.tracking.tables import Results, table_note
from kg4d.utils.files import replacing


def write_page(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Args:
        path: The `.html` file.
        comparison: The runs.
    """
    table = comparison.table
    environment = Environment(
        loader=PackageLoader("kg4d.comparison", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        version=kg4d.__version__,
        comparison=comparison,
        arms=list(comparison.arms),
        metrics=figures.metric_rows(table),
        note=table_note(table),
        by_place=figures.by_place(comparison, table.metrics),
        by_view=figures.by_view(comparison),
        blindness=figures.blindness(table.metrics),
        skipped=figures.skipped(comparison),
        costs=figures.costs(comparison),
        charts=figures.charts(comparison),
        films=films(comparison),
        chart_size=(WIDTH, HEIGHT),
    )
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_experiment_page(path: Path, runs: Iterable[Run[ExperimentConfig]], results: Results) -> None:
    """Write the page of what is done of an experiment, by this call or others; the rest is named on it.

    Args:
        path: The `.html` file.
        runs: All runs of the experiment, in its order.
        results: The metrics of those that are done, at least one.
    """
    done, left_out = [], []
    for one in runs:
        folder = RunFolder.of(one.config)
        if one.seed not in results.get(one.variant, {}).get(one.scene, {}):
            left_out.append(f"{folder.path}: not finished, or fitted under other settings")
            continue
        try:
            done.append(FinishedRun.of(folder, one.config))
        except InputError as error:
            left_out.append(str(error))
    if done:
        write_page(path, Comparison.of(done, left_out))
