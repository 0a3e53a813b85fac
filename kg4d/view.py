"""`python -m kg4d.view`: interactive page of a run, with a time slider and the keypoints."""

import argparse
import sys
import threading
from pathlib import Path

from kg4d.formats.page.live import Loaded, Shown, serve_page
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Serve the page until ctrl-C; it is there at once, and what it shows comes when it is read."""
    folders = [folder for folder in (arguments.run, arguments.compare) if folder is not None]
    films = [Loaded() for _ in folders]
    with serve_page(str(arguments.run), films, arguments.port) as address:
        print(f"{address} (ctrl-C ends it)", flush=True)
        from kg4d.formats.page.film import film_of
        from kg4d.formats.page.packing import pack
        from kg4d.runs.outputs import export_source
        from kg4d.runs.read_back import load_run

        for film, folder in zip(films, folders, strict=True):
            film.film = Shown(pack(film_of(export_source(load_run(folder)), errors=True)), "1")
        threading.Event().wait()


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.view",
        "Show a finished run in the browser.",
        [
            "--run runs/quickstart/full/seed0",
            "--run runs/quickstart/full/seed0 --compare runs/quickstart_kg4d/full/seed0   # side by side",
        ],
    )
    options.add_argument("--run", type=Path, required=True, help="run folder")
    options.add_argument("--compare", type=Path, help="run folder of another run, to show beside it")
    options.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1; the next free one if it is taken")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
