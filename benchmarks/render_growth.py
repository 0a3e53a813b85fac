"""How the cpu renderer's time grows with Gaussians, pixels and channels, on one thread."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, arguments, benchmark_scene, interleaved, report
from kg4d.render import build_renderer


def step(count: int, size: int, channels: int) -> Callable[[], None]:
    """A function that renders once and takes gradients back."""
    scene, renderer = benchmark_scene(count, size, channels), build_renderer("cpu", threads=1)
    weights = torch.rand(1, size, size, channels)

    def run() -> None:
        scene.clear()
        renderer(scene.gaussians, scene.cameras, features=scene.features).image.backward(weights)

    return run


def growth(runs: int) -> list[Row]:
    """Ratios to the smallest case."""
    cases = {
        "5,000 Gaussians, 256², 3 channels": (5_000, 256, 3),
        "20 times the Gaussians": (100_000, 256, 3),
        "4 times the pixels": (5_000, 512, 3),
        "17 channels": (5_000, 256, 17),
        "64 channels": (5_000, 256, 64),
    }
    times = interleaved({name: step(*case) for name, case in cases.items()}, runs)
    base, *others = times
    rows = [Row(base, times[base] * 1e3, "ms", None, "lower", "1 thread")]
    return rows + [Row(name, times[name] / times[base], "x", None, "lower", base) for name in others]


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report(growth(args.runs), args.json)


if __name__ == "__main__":
    main()
