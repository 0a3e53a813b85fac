"""`python -m kg4d.prepare --input FILE --out SCENE`: one image or one video to a scene folder."""

import argparse
import sys

from kg4d.utils.cli import Parser, run
from kg4d.utils.commands import command


def main(arguments: argparse.Namespace) -> None:
    """Make the scene folder, and say where it is."""
    from kg4d.config.load import load_config  # here, so that --help and a wrong command line take no time
    from kg4d.priors.build import PriorsConfig

    config = load_config(PriorsConfig, arguments.config, arguments.overrides)
    from kg4d.priors.prepare import prepare

    prepare(config, arguments.input, arguments.out)
    print(f"scene    {arguments.out}")
    experiment = "experiments/video_to_4d.yaml"
    print(f"fit it   {command('kg4d.fit', '--config', experiment, f'scene={arguments.out}')}")


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.prepare", "Make a scene folder of one image or one video: mattes, views, keypoints, flow.")
    options.add_argument("--input", required=True, metavar="FILE|DIR", help="image, video, or folder of frames")
    options.add_argument("--out", required=True, metavar="SCENE", help="scene folder to write")
    options.add_argument("--config", help="settings (YAML), the block `priors` of an experiment file by itself")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
