"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Fit every variant and seed that the file names, one after the other, then compare them."""
    from kg4d.config.load import expand  # here, so that --help and a wrong command line take no time
    from kg4d.config.schema import ExperimentConfig

    everything = expand(ExperimentConfig, arguments.config, arguments.overrides)
    runs = expand(ExperimentConfig, arguments.config, arguments.overrides, variant=arguments.variant)
    from kg4d.pipeline import fit
    from kg4d.runs.results import compare, gather

    if arguments.resume and arguments.overwrite:
        raise InputError("command line", "--resume and --overwrite exclude each other", "give one of them")
    from kg4d.runs.launch import is_first

    folders = [fit(one.config, resume=arguments.resume, overwrite=arguments.overwrite) for one in runs]
    if not is_first():
        return
    compare(folders[0].parents[1], gather(everything), runs[0].config)
    _show(folders)


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
    options.add_argument("--overwrite", action="store_true", help="replace finished runs")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
