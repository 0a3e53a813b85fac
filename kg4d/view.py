"""`python -m kg4d.view`: interactive page of a run, with a time slider and the keypoints."""

import argparse
import sys
import time
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Serve the page until ctrl-C."""
    from kg4d.formats.viewer import Controls, Film, viewer_server
    from kg4d.runs.read_back import load_run

    if not 0 <= arguments.port < 65536:
        raise InputError("--port", f"{arguments.port} is no port", "give one below 65536, or 0 for any free one")
    with viewer_server(arguments.port) as server:
        fitted = load_run(arguments.run)
        times, known = fitted.scene.reference.times, fitted.scene.keypoints
        if known is None:
            film = Film(server, fitted.states(times))
        else:
            film = Film(server, fitted.states(times), fitted.keypoints(times), known.parents)
        controls = Controls(server, film, fitted.config.export.fps)
        print(f"http://127.0.0.1:{server.get_port()} (ctrl-C ends it)", flush=True)
        while True:
            time.sleep(controls.seconds_per_frame)
            controls.advance()


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.view", "Show a finished run in the browser.")
    options.add_argument("--run", type=Path, required=True, help="run folder")
    options.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1; the next free one if it is taken")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
