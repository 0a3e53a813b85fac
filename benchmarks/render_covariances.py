"""What covariances in place of quaternions and scales cost the cpu renderer, forward and backward."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks._harness import Row, arguments, benchmark_scene, in_turns, ratio, report
from kg4d.geometry.covariances import covariances_of
from kg4d.render import build_renderer

CASES = ((5_000, 256, 25), (100_000, 512, 7))  # Gaussians, side of the image, runs at least


def compare(count: int, size: int, runs: int) -> Row:
    """One scene on one thread, shaped both ways."""
    scene, renderer = benchmark_scene(count, size, 3), build_renderer("cpu", threads=1)
    axes = scene.gaussians
    shape = covariances_of(*axes.ellipsoids).detach().requires_grad_()
    covariances = replace(axes, quats=None, scales=None, covariances=shape)
    weights = torch.rand(1, size, size, 3)

    def gradients(image: Tensor) -> None:
        scene.clear()
        shape.grad = None
        image.backward(weights)

    contestants = {
        "axes": lambda: gradients(renderer(axes, scene.cameras, features=scene.features).image),
        "covariances": lambda: gradients(renderer(covariances, scene.cameras, features=scene.features).image),
    }
    times = in_turns(contestants, runs)
    claim = f"{count:,} Gaussians, {size}², covariances: time"
    return Row(claim, ratio(times["covariances"], times["axes"]), "x", 1.05, "lower", "quats and scales")


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report([compare(count, size, max(runs, args.runs)) for count, size, runs in CASES], args.json)


if __name__ == "__main__":
    main()
