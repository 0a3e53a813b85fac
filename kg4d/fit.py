"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import json
import sys
from pathlib import Path

from kg4d.cli import Parser, run
from kg4d.config.load import Run, expand
from kg4d.config.schema import ExperimentConfig


def main(arguments: argparse.Namespace) -> None:
    """Fit every variant and seed that the file names, one after the other, then compare them."""
    runs = expand(ExperimentConfig, arguments.config, arguments.overrides, variant=arguments.variant)
    from kg4d.pipeline import fit  # after the request is known to be sound: this is where the seconds go

    folders = {(one.variant, one.seed): fit(one.config, resume=arguments.resume) for one in runs}
    _report(runs, folders)


def _report(runs: list[Run[ExperimentConfig]], folders: dict[tuple[str, int], Path]) -> None:
    """Write and print the table of the experiment, then say where a person finds what."""
    from kg4d.report import print_table, write_tables
    from kg4d.tracking import log_table

    results: dict[str, dict[int, dict[str, float]]] = {}
    for (variant, seed), folder in folders.items():
        results.setdefault(variant, {})[seed] = json.loads((folder / "metrics.json").read_text())["metrics"]
    above = next(iter(folders.values())).parents[1]
    table = write_tables(above, results)
    log_table(runs[0].config.tracking, above, runs[0].config.name, table)
    print_table(table)
    for folder in folders.values():
        print(f"run      {folder}")
        for label, pattern in (("video", "export/video/orbit.mp4"), ("viewer", "export/viewer.html")):
            if (folder / pattern).is_file():
                print(f"{label:8} {folder / pattern}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.fit", "Fit a moving 3D model under one experiment file, measure it and export it.")
    options.add_argument("--config", required=True, help="experiment file (YAML)")
    options.add_argument("--variant", help="only this variant of the file")
    options.add_argument(
        "--resume", action="store_true", help="go on with runs that were cut short; skip those that are done"
    )
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
