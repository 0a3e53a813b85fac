"""`python -m kg4d.fit --config F`: the whole pipeline for one experiment file."""

import argparse
import sys
from dataclasses import replace

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Fit every scene, variant and seed that the file names, then compare them."""
    if arguments.resume and arguments.overwrite:
        raise InputError("command line", "--resume and --overwrite exclude each other", "give one of them")
    if arguments.view and arguments.jobs > 1:
        raise InputError("command line", "--view shows one fit at a time", "leave --jobs away")
    from kg4d.config.find import asked_for
    from kg4d.config.load import expand  # here, so that --help and a wrong command line take no time
    from kg4d.config.schema import ExperimentConfig
    from kg4d.config.shown import shown
    from kg4d.runs.folder import experiment_folder, for_people
    from kg4d.sweeps.jobs import jobs_of, listing

    file, words = asked_for(arguments.config, arguments.overrides)
    everything = expand(ExperimentConfig, file, words)
    runs = expand(ExperimentConfig, file, words, variant=arguments.variant)
    if arguments.show or arguments.list:
        print(*(shown(ExperimentConfig, file, words, runs[0]) if arguments.show else listing(runs)), sep="\n")
        return
    jobs = jobs_of(runs, arguments.resume, arguments.overwrite)
    from kg4d.formats.page.live import shown_live  # from here on the request is known to be right
    from kg4d.sweeps.fits import fit_jobs, is_first
    from kg4d.sweeps.runner import raise_failures

    with shown_live(arguments.port if arguments.view and is_first() else None) as film:
        outcomes = fit_jobs([replace(job, film=film) for job in jobs], arguments.jobs)
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
    for line in for_people([job.folder for job in jobs]):
        print(line)
    raise_failures(outcomes)


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.fit",
        "Fit a moving 3D model under one experiment file, measure it and export it.",
        [
            "my.mp4  # your own clip, a single image, or a folder of frames",
            "--config experiments/quickstart.yaml --view  # a procedural character, shown while it is fitted",
            "recommended scene=path/to/scene gaussians.count=2000  # a preset, and settings that win over it",
            "--config experiments/ablation_wgf.yaml --jobs 2 --resume  # all variants and seeds, two at a time",
        ],
    )
    options.add_argument("--config", help="experiment file (YAML); else the first word: its name, or a clip")
    options.add_argument("--variant", help="only this variant of the file")
    options.add_argument("--resume", action="store_true", help="finish runs that were cut short, skip finished ones")
    options.add_argument("--overwrite", action="store_true", help="replace finished runs")
    options.add_argument("--view", action="store_true", help="serve a page that shows the newest state while it fits")
    options.add_argument("--port", type=int, default=8080, help="of that page, on 127.0.0.1; 0 for any free one")
    options.add_argument("--jobs", type=int, default=1, metavar="N", help="fits at a time, which share the cores out")
    options.add_argument("--list", "--dry-run", action="store_true", help="say what would be run, and do nothing")
    options.add_argument("--show", action="store_true", help="print every setting and where it was set, and do nothing")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
