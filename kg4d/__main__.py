"""`kg4d COMMAND ...` is `python -m kg4d.COMMAND ...`."""

import os
import runpy
import sys
from difflib import get_close_matches

from kg4d import __version__
from kg4d.utils.cli import DONE, WRONG_REQUEST

COMMANDS = {
    "prepare": "one image or one video to a scene folder",
    "fit": "the whole pipeline for one experiment file",
    "sweep": "many fits side by side: points of a sweep, scenes and seeds",
    "evaluate": "recompute the metrics of a run, or score any method's renders",
    "report": "finished runs compared: tables, videos side by side, one page",
    "export": "files of a run for other programs",
    "view": "interactive page of a run, with a time slider and the keypoints",
    "animate": "the model of a run moved by another run, a BVH file or a JSON of keypoints",
    "flows": "gradient flows whose answers are known: tables and pictures",
}


def main() -> int:
    """Run the command that the first word names; the table of commands needs no heavy import."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        from kg4d.config.completion import complete

        complete(COMMANDS)
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: kg4d COMMAND ... (kg4d COMMAND --help explains each)\n")
        print(*(f"  {command:10}{does}" for command, does in COMMANDS.items()), sep="\n")
        return DONE
    if name == "--version":
        print(f"kg4d {__version__}")
        return DONE
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        print(f"kg4d: error: command line: no command {name!r} ({remedy})", file=sys.stderr)
        return WRONG_REQUEST
    sys.argv = [f"kg4d {name}", *rest]
    runpy.run_module(f"kg4d.{name}", run_name="__main__", alter_sys=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
