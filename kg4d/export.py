"""`python -m kg4d.export`: files of a run for other programs."""

import argparse
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Write the formats asked for and print where they are."""
    from kg4d.config.schema import ExportFormat
    from kg4d.runs.outputs import export_run

    known = [kind.value for kind in ExportFormat]
    names = [name.strip() for name in arguments.format.split(",")]
    for name in names:
        if name not in known:
            raise InputError("--format", f"no format {name!r}", f"choose from {', '.join(known)}")
    written = export_run(arguments.run, [ExportFormat(name) for name in names], arguments.out)
    for name, paths in written.items():
        print(*(f"{name:8} {path}" for path in paths), sep="\n")


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.export", "Write files of a finished run for other programs.")
    options.add_argument("--run", type=Path, required=True, help="run folder")
    options.add_argument("--format", required=True, help="one or several of ply,spz,mp4,viewer")
    options.add_argument("--out", type=Path, help="folder to write to; the run's export folder by default")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
