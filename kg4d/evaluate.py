"""`python -m kg4d.evaluate`: recompute the metrics of a run, or score any method's renders."""

import argparse
import sys
from pathlib import Path

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run


def main(arguments: argparse.Namespace) -> None:
    """Evaluate a run folder or two folders of images, and print what was measured."""
    folders = (arguments.pred, arguments.target)
    if (arguments.run is None) == (folders == (None, None)) or (arguments.run is None and None in folders):
        raise InputError("command line", "nothing to evaluate, or too much", "give --run, or --pred and --target")
    if arguments.run is not None and (arguments.protocol or arguments.out):
        what = "--run takes no --protocol or --out"
        raise InputError("command line", what, "the run's own settings are used")
    from kg4d.metrics.feature_networks import Networks, load_networks
    from kg4d.metrics.folders import read_folders
    from kg4d.metrics.protocols import GLTF4D, get_protocol
    from kg4d.metrics.suite import evaluate_grid, write_metrics_json
    from kg4d.tracking.tables import print_metrics
    from kg4d.utils.logs import progress_bar

    if arguments.run is not None:
        from kg4d.runs.measure import evaluate_run

        evaluation = evaluate_run(arguments.run, networks=not arguments.no_networks)
    else:
        protocol = get_protocol(arguments.protocol or GLTF4D.name)
        grids = read_folders(arguments.pred, arguments.target, protocol.background)
        images = grids.predicted, grids.target, grids.target_alpha
        networks = Networks() if arguments.no_networks else load_networks()
        with progress_bar("evaluation") as progress:
            evaluation = evaluate_grid(*images, protocol=protocol, networks=networks, progress=progress)
        if arguments.out is not None:
            write_metrics_json(arguments.out, evaluation, protocol)
    print_metrics(evaluation.metrics, evaluation.skipped)


def parser() -> Parser:
    """The options of this command."""
    options = Parser(
        "kg4d.evaluate",
        "Measure a run, or the renders of any method against the truth.",
        [
            "--run runs/quickstart/full/seed0  # LPIPS and FVD too, which the quickstart leaves out",
            "--pred renders --target truth --out metrics.json  # any method's <view>_<frame>.png",
        ],
    )
    options.add_argument("--run", type=Path, help="run folder; its metrics.json is written anew")
    options.add_argument("--pred", type=Path, help="folder of rendered images, <view>_<frame>.png")
    options.add_argument("--target", type=Path, help="folder of true images, the same names")
    options.add_argument("--protocol", help="named protocol for --pred and --target")
    options.add_argument("--no-networks", action="store_true", help="leave out LPIPS and FVD, which take a minute")
    options.add_argument("--out", type=Path, help="also write the result to this JSON file")
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
