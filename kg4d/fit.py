"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kg4d.cli import Parser, run

if TYPE_CHECKING:
    from kg4d.config.schema import ExperimentConfig

_log = logging.getLogger("kg4d.fit")  # its own name is __main__


def main(arguments: argparse.Namespace) -> None:
    """Fit every variant and seed that the file names, one after the other, then compare them."""
    from kg4d.config.load import expand  # here, so that --help and a wrong command line take no time
    from kg4d.config.schema import ExperimentConfig

    everything = expand(ExperimentConfig, arguments.config, arguments.overrides)
    runs = expand(ExperimentConfig, arguments.config, arguments.overrides, variant=arguments.variant)
    from kg4d.pipeline import fit
    from kg4d.runs import RunFolder

    folders = [fit(one.config, resume=arguments.resume) for one in runs]
    # the comparison takes in what other calls have finished, such as other variants on other machines
    results: dict[str, dict[int, dict[str, float]]] = {}
    for one in everything:
        folder = RunFolder.of(one.config)
        if folder.metrics.is_file() and not folder.matches(one.config):
            _log.warning("%s: left out of the table, it was made with other settings", folder.path)
        elif (metrics := folder.metrics).is_file():
            results.setdefault(one.variant, {})[one.seed] = json.loads(metrics.read_text(encoding="utf-8"))["metrics"]
    _compare(folders[0].parents[1], results, runs[0].config)
    _show(folders)


def _compare(above: Path, results: dict[str, dict[int, dict[str, float]]], config: "ExperimentConfig") -> None:
    """Write the table of the experiment next to its variants, log it and print it."""
    from kg4d.report import print_table, write_tables
    from kg4d.tracking import log_table

    table = write_tables(above, results)
    log_table(config.tracking, above, config.name, table)
    print_table(table)
    print(f"table    {above / 'table.md'}")


def _show(folders: list[Path]) -> None:
    """Say where a person finds what."""
    for folder in folders:
        print(f"run      {folder}")
        for label, name in (("video", "export/video/orbit.mp4"), ("viewer", "export/viewer.html")):
            if (folder / name).is_file():
                print(f"{label:8} {folder / name}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.fit", "Fit a moving 3D model under one experiment file, measure it and export it.")
    options.add_argument("--config", required=True, help="experiment file (YAML)")
    options.add_argument("--variant", help="only this variant of the file")
    options.add_argument(
        "--resume", action="store_true", help="finish runs that were cut short, skip those that are done"
    )
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
