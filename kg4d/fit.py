"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kg4d.runs.folder import RunFolder


def main(arguments: argparse.Namespace) -> None:
    """Fit every scene, variant and seed that the file names, then compare them."""
    if arguments.resume and arguments.overwrite:
        raise InputError("command line", "--resume and --overwrite exclude each other", "give one of them")
    from kg4d.comparison.page import write_experiment_page
    from kg4d.config.load import expand  # here, so that --help and a wrong command line take no time
    from kg4d.config.schema import ExperimentConfig
    from kg4d.runs.folder import experiment_folder
    from kg4d.runs.launch import is_first
    from kg4d.runs.results import compare, gather
    from kg4d.sweeps.fits import fit_jobs
    from kg4d.sweeps.jobs import jobs_of, listing
    from kg4d.sweeps.runner import raise_failures

    everything = expand(ExperimentConfig, arguments.config, arguments.overrides)
    runs = expand(ExperimentConfig, arguments.config, arguments.overrides, variant=arguments.variant)
    if arguments.list:
        print(*listing(runs), sep="\n")
        return
    jobs = jobs_of(runs, arguments.resume, arguments.overwrite)
    with _live_page(arguments) if arguments.view and is_first() else nullcontext() as film:
        outcomes = fit_jobs([replace(job, film=film) for job in jobs], arguments.jobs)
    if not is_first():
        return
    results = gather(everything)
    if results:
        compare(results, runs[0].config)
        page = experiment_folder(runs[0].config) / "report.html"
        write_experiment_page(page, everything, results)
        print(f"report   {page}")
    _show([job.folder for job in jobs if job.folder.metrics.is_file()])
    raise_failures(outcomes)


@contextmanager
def _live_page(arguments: argparse.Namespace) -> "Iterator[Path]":
    """Serve a page of what is fitted now; yields the file that it shows."""
    if arguments.jobs > 1:
        raise InputError("command line", "--view shows one fit at a time", "leave --jobs away")
    from kg4d.formats.page.live import Watched, serve_page

    with tempfile.TemporaryDirectory(prefix="kg4d-view-") as folder:
        film = Path(folder) / "film"
        with serve_page("A fit", [Watched(film)], arguments.port) as address:
            print(f"live     {address}", flush=True)
            yield film


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
    options.add_argument("--config", required=True, help="experiment file (YAML)")
    options.add_argument("--variant", help="only this variant of the file")
    options.add_argument(
        "--resume", action="store_true", help="finish runs that were cut short, skip those that are done"
    )
    options.add_argument("--overwrite", action="store_true", help="replace finished runs")
    options.add_argument("--view", action="store_true", help="serve a page that shows the newest state while it fits")
    options.add_argument("--port", type=int, default=8080, help="of that page, on 127.0.0.1; 0 for any free one")
    options.add_argument("--jobs", type=int, default=1, metavar="N", help="fits at a time, which share the cores out")
    options.add_argument(
        "--list", "--dry-run", action="store_true", help="say what would be run, and how far it is, and do nothing"
    )
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
