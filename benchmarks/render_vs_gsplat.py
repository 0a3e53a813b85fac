"""The cpu renderer against gsplat's torch implementation: forward and backward, projection to parameter gradients."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks import _gsplat_torch
from benchmarks._harness import Row, arguments, benchmark_scene, interleaved, report
from kg4d.render import build_renderer

CASES = ((5_000, 256, 3, 100.0, 9), (5_000, 256, 17, 70.0, 9), (100_000, 512, 3, 80.0, 3))  # the last number: runs


def compare(count: int, size: int, channels: int, bar: float, runs: int) -> list[Row]:
    """One scene on one thread; also how far the two images differ."""
    scene, renderer = benchmark_scene(count, size, channels), build_renderer("cpu", threads=1)
    weights = torch.rand(1, size, size, channels)

    def ours() -> torch.Tensor:
        scene.clear()
        image = renderer(scene.gaussians, scene.cameras, features=scene.features).image
        image.backward(weights)
        return image.detach()

    def theirs() -> torch.Tensor:
        scene.clear()
        image = _gsplat_torch.render(scene)
        image.backward(weights)
        return image.detach()

    error = float((ours() - theirs()).abs().mean())
    # Ours runs twice per turn and the second counts: gigabytes of theirs leave the caches cold and the heap trimmed.
    times = interleaved({"gsplat": theirs, "warm-up": ours, "kg4d": ours}, runs)
    name = f"{count:,} Gaussians, {size}², {channels} channels"
    return [
        Row(
            f"{name}: times faster", times["gsplat"] / times["kg4d"], "x", bar, "higher", "gsplat 1.5.3 torch, 1 thread"
        ),
        Row(f"{name}: our time", times["kg4d"] * 1e3, "ms", None, "lower", "itself"),
        Row(f"{name}: mean difference", error, "", 1e-5, "lower", "gsplat 1.5.3 torch"),
    ]


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report([row for *case, runs in CASES for row in compare(*case, min(runs, args.runs))], args.json)


if __name__ == "__main__":
    main()
