"""`python -m kg4d.sweep --config F`: many fits side by side, on this machine or on Ray."""

import argparse
import sys

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Fit every point of a sweep with every scene and seed, as far as that is not done, then compare them."""
    from kg4d.sweeps.sweep import Places, Sweep  # here, so that --help and a wrong command line take no time

    places = Places(arguments.jobs, arguments.gpus, arguments.per_gpu)
    sweep = Sweep(arguments.config, arguments.overrides, places)
    if arguments.list:
        print(*sweep.listing(), sep="\n")
    else:
        sweep.carry_out(print)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError("--gpus", f"{text!r} are no numbers", "write for example --gpus 0,1") from error


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.sweep",
        "Fit the points of a sweep side by side, as far as they are not done; compare them.",
        [
            "--config experiments/sweep_points.yaml --list  # what would be run",
            "--config experiments/sweep_points.yaml --jobs 4  # four at a time, which share the cores out",
            "--config experiments/sweep_search.yaml --gpus 0,1 --per-gpu 2  # a search, on two GPUs",
        ],
    )
    options.add_argument("--config", required=True, help="experiment file with a block `sweep:` (YAML)")
    options.add_argument("--list", "--dry-run", action="store_true", help="say what would be run, and do nothing")
    options.add_argument("--jobs", type=int, metavar="N", help="fits at a time, which share the cores out")
    options.add_argument("--gpus", type=_numbers, metavar="0,1", help="fit on these GPUs, as nvidia-smi numbers them")
    options.add_argument("--per-gpu", type=int, default=1, metavar="K", help="fits at a time on each GPU")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
