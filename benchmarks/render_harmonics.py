"""What view-dependent colours of degree 3 cost the cpu renderer, forward and backward, and what their fusion saves."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks._harness import Row, arguments, benchmark_scene, in_turns, ratio, report
from kg4d.geometry.degrees import harmonics_count
from kg4d.geometry.harmonics import seen_colors
from kg4d.render import build_renderer

CASES = ((5_000, 256, 15), (100_000, 512, 5))  # Gaussians, side of the image, runs at least


def compare(count: int, size: int, runs: int) -> list[Row]:
    """One scene on one thread: plain colours, harmonics in the renderer, harmonics in torch before it."""
    scene, renderer = benchmark_scene(count, size, 3), build_renderer("cpu", threads=1)
    harmonics = (0.1 * torch.randn(count, harmonics_count(3), 3)).requires_grad_()
    plain = replace(scene.gaussians, colors=scene.features)
    fused = replace(plain, harmonics=harmonics)
    weights = torch.rand(1, size, size, 3)

    def gradients(image: Tensor) -> None:
        scene.clear()
        harmonics.grad = None
        image.backward(weights)

    def in_torch() -> None:
        seen = seen_colors(plain.colors, harmonics, plain.means, scene.cameras.centers)
        gradients(renderer(plain, scene.cameras, features=seen).image)

    contestants = {
        "plain": lambda: gradients(renderer(plain, scene.cameras).image),
        "fused": lambda: gradients(renderer(fused, scene.cameras).image),
        "torch": in_torch,
    }
    times = in_turns(contestants, runs)
    name = f"{count:,} Gaussians, {size}², degree 3"
    return [
        Row(f"{name}: time", ratio(times["fused"], times["plain"]), "x", None, "lower", "degree 0"),
        Row(f"{name}: times faster", ratio(times["torch"], times["fused"]), "x", 1.0, "higher", "harmonics in torch"),
    ]


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report([row for count, size, runs in CASES for row in compare(count, size, max(runs, args.runs))], args.json)


if __name__ == "__main__":
    main()
