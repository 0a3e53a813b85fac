"""`python -m kg4d.animate --run A --motion B --out C`: the model of one run moved by another motion."""

import argparse
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run
from kg4d.utils.commands import command


def main(arguments: argparse.Namespace) -> None:
    """Write the run folder, and say what can be done with it."""
    from kg4d.formats.settings import MotionConfig
    from kg4d.runs.animated import animate

    if arguments.every < 1:
        raise InputError("--every", f"must be at least 1, not {arguments.every}", "1 takes every frame")
    names = dict(map(_pair, arguments.name))
    motion = MotionConfig(str(arguments.motion), arguments.every, names, aligned=not arguments.keep_axes)
    folder = animate(arguments.run, motion, arguments.out)
    print(f"run      {folder}")
    print(f"look     {command('kg4d.view', '--run', str(folder))}")
    print(f"export   {command('kg4d.export', '--run', str(folder), '--format', 'mp4,viewer')}")


def _pair(text: str) -> tuple[str, str]:
    keypoint, equals, joint = text.partition("=")
    if not (keypoint and equals and joint):
        raise InputError(f"--name {text}", "is not KEYPOINT=JOINT", "write for example --name left_hip=LeftUpLeg")
    return keypoint, joint


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.animate",
        "Move the model of a finished run by another motion; bones keep their lengths.",
        [
            "--run runs/quickstart/full/seed0 --motion experiments/motions/jumping_jack.bvh --out moved",
            "--run runs/quickstart/full/seed0 --motion walk.bvh --name left_hip=LeftUpLeg --out moved  # other names",
        ],
    )
    options.add_argument("--run", type=Path, required=True, help="run folder; its motion must be skinned")
    options.add_argument(
        "--motion", type=Path, required=True, help="another run folder, a .bvh file, or .json of an export as tracks"
    )
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder to write")
    options.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame of the motion")
    options.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="KEYPOINT=JOINT",
        help="a joint that has another name; repeatable",
    )
    options.add_argument(
        "--keep-axes", action="store_true", help="do not turn the motion so that it begins as the model stands"
    )
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
