"""`python -m kg4d.flows`: gradient flows whose answers are known, as runs with a table and pictures."""

import argparse
import json
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run

EXAMPLES = ("ou_1d", "fokker_planck_10d", "fokker_planck_30d", "porous_medium", "aggregation_ring", "drifting_2d")


def main(arguments: argparse.Namespace) -> None:
    """Run one example, print its table, write the table and the pictures."""
    if arguments.example not in EXAMPLES:
        raise InputError("--example", f"no example {arguments.example!r}", f"choose from {', '.join(EXAMPLES)}")
    if arguments.threads < 1:
        raise InputError("--threads", f"{arguments.threads} is no number of threads", "give 1 or more")
    import importlib

    import torch

    from kg4d.flows.examples import plots
    from kg4d.flows.examples.outcome import Outcome

    plots.require()
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.out or Path("runs/flows") / arguments.example
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be made: {error.strerror}", "give another folder with --out") from error
    outcome: Outcome = importlib.import_module(f"kg4d.flows.examples.{arguments.example}").run(seed=arguments.seed)
    width = max(len(row.name) for row in outcome.rows)
    for row in outcome.rows:
        print(f"{row.name:{width}}  {row.value:>10.4g} {row.unit:10} {row.verdict}".rstrip())
    table = folder / "table.json"
    table.write_text(json.dumps([row._asdict() for row in outcome.rows], indent=1) + "\n")
    print(*outcome.draw(folder), table, sep="\n")


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.flows",
        "Run a gradient flow whose answer is known; print its errors and draw it.",
        [
            "--example ou_1d",
            "--example drifting_2d --seed 1 --out flows",
        ],
    )
    options.add_argument("--example", required=True, metavar="NAME", help=f"one of {', '.join(EXAMPLES)}")
    options.add_argument("--out", type=Path, help="folder for the table and the pictures; runs/flows/NAME by default")
    options.add_argument("--seed", type=int, default=0, help="of all random numbers")
    options.add_argument("--threads", type=int, default=1, help="of torch; these problems are small")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
