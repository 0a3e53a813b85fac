"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import sys
from typing import TYPE_CHECKING

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kg4d.runs.folder import RunFolder


def main(arguments: argparse.Namespace) -> None:
    """Fit every scene, variant and seed that the file names, then compare them."""
    if arguments.resume and arguments.overwrite:
        raise InputError("command line", "--resume and --overwrite exclude each other", "give one of them")
    from kg4d.config.find import asked_for
    from kg4d.config.load import expand  # here, so that --help and a wrong command line take no time
    from kg4d.config.schema import ExperimentConfig
    from kg4d.config.shown import shown
    from kg4d.runs.folder import experiment_folder
    from kg4d.sweeps.jobs import jobs_of, listing

    file, words = asked_for(arguments.config, arguments.overrides)
    everything = expand(ExperimentConfig, file, words)
    runs = expand(ExperimentConfig, file, words, variant=arguments.variant)
    if arguments.show or arguments.list:
        print(*(shown(ExperimentConfig, file, words, runs[0]) if arguments.show else listing(runs)), sep="\n")
        return
    jobs = jobs_of(runs, arguments.resume, arguments.overwrite)
    from kg4d.sweeps.fits import fit_jobs, is_first  # from here on the request is known to be right
    from kg4d.sweeps.runner import raise_failures

    outcomes = fit_jobs(jobs, arguments.jobs)
    if not is_first():
        return
    from kg4d.comparison.page import write_experiment_page
    from kg4d.runs.results import compare, gather

    results = gather(everything)
    if results:
        compare(results, runs[0].config)
        page = experiment_folder(runs[0].config) / "report.html"
        write_experiment_page(page, everything, results)
        print(f"report   {page}")
    _show([job.folder for job in jobs if job.folder.metrics.is_file()])
    raise_failures(outcomes)


def _show(folders: "Sequence[RunFolder]") -> None:
    """Say where a person finds what."""
    for folder in folders:
        print(f"run      {folder.path}")
        for label, name in (("video", "export/video/orbit.mp4"), ("viewer", "export/viewer.html")):
            if (folder.path / name).is_file():
                print(f"{label:8} {folder.path / name}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.fit", "Fit a moving 3D model under one experiment file, measure it and export it.")
    options.add_argument("--config", help="experiment file (YAML); else the first word: its name, or a clip")
    options.add_argument("--variant", help="only this variant of the file")
    options.add_argument("--resume", action="store_true", help="finish runs that were cut short, skip finished ones")
    options.add_argument("--overwrite", action="store_true", help="replace finished runs")
    options.add_argument("--jobs", type=int, default=1, metavar="N", help="fits at a time, which share the cores out")
    options.add_argument("--list", "--dry-run", action="store_true", help="say what would be run, and do nothing")
    options.add_argument("--show", action="store_true", help="print every setting and where it was set, and do nothing")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
