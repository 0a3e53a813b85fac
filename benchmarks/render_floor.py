"""The blending kernels against the machine's multiply-add rate.

The floor of a pass is its number of visits (one Gaussian in one 4x4 block of pixels) times the vector operations that
the plain formulas need, at the measured rate of vector multiply-adds: 23 + D forward (8 of them the exponential),
42 + 2 D backward. Lower is better, 1 is a kernel that never waits.
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._fma_rate import build_rate_program, multiply_adds_per_second
from benchmarks._harness import Row, arguments, benchmark_scene, report
from kg4d import kernels
from kg4d.render import build_renderer


def measure(channels: int, bar: float, runs: int, program: Path) -> list[Row]:
    """Forward and backward of 5,000 Gaussians at 256², one thread; rate and kernels are timed in turns."""
    scene, renderer = benchmark_scene(5_000, 256, channels), build_renderer("cpu", threads=1)
    weights = torch.rand(1, 256, 256, channels)
    ratios: dict[str, list[float]] = {"forward": [], "backward": []}
    for run in range(runs + 1):
        scene.clear()
        output = renderer(scene.gaussians, scene.cameras, features=scene.features)
        output.image.backward(weights)
        assert isinstance(output.handle, kernels.RenderPlan)
        stats, rate = output.handle.statistics(), multiply_adds_per_second(program)
        if run > 0:
            ratios["forward"].append(stats.forward * rate / (stats.forward_visits * (23 + channels)))
            ratios["backward"].append(stats.backward * rate / (stats.backward_visits * (42 + 2 * channels)))
    against = f"multiply-add floor, {kernels.isa()}"
    return [
        Row(f"{name} kernel, {channels} channels", statistics.median(values), "x", bar, "lower", against)
        for name, values in ratios.items()
    ]


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        program = build_rate_program(Path(folder))
        rows = measure(3, 1.6, 3 * args.runs, program) + measure(17, 2.2, 3 * args.runs, program)
        rate = multiply_adds_per_second(program)
    report([*rows, Row("multiply-adds of 16 lanes", rate / 1e9, "G/s", None, "higher", "one core")], args.json)


if __name__ == "__main__":
    main()
