"""`python -m kg4d.prepare --input FILE --out SCENE`: one image or one video to a scene folder."""

import argparse
import sys
from pathlib import Path

from kg4d.utils.cli import Parser, run
from kg4d.utils.commands import command


def main(arguments: argparse.Namespace) -> None:
    """Make the scene folder, and say where it is."""
    from kg4d.config.load import load_config  # here, so that --help and a wrong command line take no time
    from kg4d.priors.settings import PriorsConfig

    config = load_config(PriorsConfig, arguments.config, arguments.overrides)
    if arguments.cameras == "sfm":
        from kg4d.priors.structure import prepare_place

        found = prepare_place(Path(arguments.input), Path(arguments.out), config.span)
        print(f"scene    {arguments.out}")
        print(f"cameras  of {found.registered} of {found.frames} frames, {found.points} points, ", end="")
        print(f"{found.reprojection_px:.2f} px off, rays {found.parallax:.0f} degrees apart")
        place = command("kg4d.fit", "--config", "experiments/flag4d.yaml", f"scene={arguments.out}")
        print(f"fit it   {place}")
        return
    from kg4d.priors.prepare import prepare

    prepare(config, arguments.input, arguments.out)
    print(f"scene    {arguments.out}")
    experiment = "experiments/video_to_4d.yaml"
    print(f"fit it   {command('kg4d.fit', '--config', experiment, f'scene={arguments.out}')}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.prepare",
        "Make a scene folder of one image or one video: mattes, views, keypoints, flow.",
        [
            "--input my.mp4 --out scene start=1 end=3  # seconds 1 to 3; look at scene/preview.png",
            "--input my.mp4 --out scene keypoints.kind=click keypoints.path=k.json  # mark the keypoints on a page",
            "--input room.mp4 --out room --cameras sfm frames=60  # a place, filmed by a camera that moves",
        ],
    )
    options.add_argument("--input", required=True, metavar="FILE|DIR", help="image, video, or folder of frames")
    options.add_argument("--out", required=True, metavar="SCENE", help="scene folder to write")
    cameras = "still: one object, in front of a camera that stands; sfm: a place, filmed by a camera that moves"
    options.add_argument("--cameras", choices=["still", "sfm"], default="still", help=cameras)
    options.add_argument("--config", help="settings (YAML), the block `priors` of an experiment file by itself")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
