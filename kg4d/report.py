"""`python -m kg4d.report --runs DIR ...`: compare finished runs on one page."""

import argparse
import os
import sys
from pathlib import Path

from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Write the page, the tables and the videos side by side; print the table and where everything is."""
    from kg4d.comparison.arms import Comparison
    from kg4d.comparison.films import write_side_by_side
    from kg4d.comparison.finished import find_runs
    from kg4d.comparison.page import write_page
    from kg4d.runs.mirror import local_copies
    from kg4d.tracking.tables import print_table, write_tables

    found = find_runs([local_copies(place) for place in arguments.runs])
    comparison = Comparison.of(found.runs, found.left_out, arguments.against)
    folder = arguments.out or Path(os.path.commonpath([run.folder.path.absolute() for run in found.runs])) / "report"
    table = write_tables(folder, comparison.results)
    write_page(folder / "report.html", comparison)
    videos = write_side_by_side(comparison, folder / "video")
    print_table(table)
    for warning in comparison.warnings:
        print(f"warning  {warning}")
    print(f"table    {folder / 'table.md'}")
    if videos:
        print(f"videos   {folder / 'video'}")
    print(f"report   {folder / 'report.html'}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.report",
        "Compare finished runs: tables, videos side by side, and one HTML page.",
        [
            "--runs runs/quickstart runs/quickstart_kg4d  # all finished runs below these folders",
            "--runs runs/ablation_wgf --against no_wgf --out report  # differences to another arm than the first",
        ],
    )
    options.add_argument(
        "--runs", required=True, nargs="+", metavar="DIR", help="run folders, or folders above them; or their URLs"
    )
    options.add_argument("--out", type=Path, metavar="DIR", help="where to; report/ beside the runs by default")
    options.add_argument("--against", metavar="ARM", help="what the others are compared with; the first one by default")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
