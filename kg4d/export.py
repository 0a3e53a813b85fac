"""`python -m kg4d.export`: files of a run for other programs."""

import argparse
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.formats.settings import ExportFormat, Orbit
from kg4d.utils.cli import Parser, run

_FORMATS = ", ".join(ExportFormat)


def main(arguments: argparse.Namespace) -> None:
    """Write the formats asked for and print where they are."""
    formats = [_format(name.strip()) for name in arguments.format.split(",")]
    from kg4d.runs.outputs import export_run

    for kind, made in export_run(arguments.run, formats, arguments.out, arguments.orbit).items():
        print(*(f"{kind:8} {path}" for path in made.paths), sep="\n")


def _format(name: str) -> ExportFormat:
    if name not in list(ExportFormat):
        raise InputError("--format", f"no format {name!r}", f"choose from {_FORMATS}")
    return ExportFormat(name)


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.export",
        "Write files of a finished run for other programs.",
        [
            "--run runs/quickstart/full/seed0 --format viewer,gltf  # a page of its own; an animated mesh of points",
            "--run runs/quickstart/full/seed0 --format mp4 --orbit full --out videos  # once around the object",
        ],
    )
    options.add_argument("--run", type=Path, required=True, help="run folder")
    options.add_argument("--format", required=True, help=f"one or several of {_FORMATS}, with commas between")
    options.add_argument("--out", type=Path, help="folder to write to; the run's export folder by default")
    options.add_argument("--orbit", type=Orbit, choices=list(Orbit), help="how far the orbit goes around (format mp4)")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
