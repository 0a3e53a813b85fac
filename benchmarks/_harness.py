"""What all benchmarks share: one process, interleaved runs, medians, a table and rows of JSON."""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras


@dataclass
class Row:
    """One figure; `bar` is what it should reach, None where it is only recorded."""

    claim: str
    value: float
    unit: str
    bar: float | None
    better: str  # "higher" | "lower"
    against: str

    @property
    def met(self) -> str:
        """Whether the bar is reached, for the table."""
        if self.bar is None:
            return ""
        return "yes" if (self.value >= self.bar if self.better == "higher" else self.value <= self.bar) else "NO"


def machine() -> str:
    """Processor and how many of its cores we may use."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def arguments(description: str | None) -> argparse.Namespace:
    """Parse `--json` and `--runs`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--runs", type=int, default=9, help="interleaved runs of each contestant")
    return parser.parse_args()


def report(rows: list[Row], path: Path | None) -> None:
    """Print the table; write the rows where `--json` asked for them."""
    width = max((len(row.claim) for row in rows), default=0)
    if rows:
        print(machine())
    for row in rows:
        bar = "" if row.bar is None else f"{'>=' if row.better == 'higher' else '<='} {row.bar:g}"
        print(f"{row.claim:<{width}}  {row.value:>10.3g} {row.unit:<8} {bar:<10} {row.met:<4} against {row.against}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(row) | {"machine": machine()} for row in rows], indent=1) + "\n")


def interleaved(contestants: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each, all measured in turns after one warm-up each, so that a busy machine hurts all alike."""
    return {name: statistics.median(times) for name, times in in_turns(contestants, runs).items()}


def in_turns(contestants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in range(runs + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if run > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(times: list[float], base: list[float]) -> float:
    """Median over the rounds of the ratio of two: for differences smaller than what the machine's speed varies by."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


@dataclass
class BenchmarkScene:
    """The scene that all renderers are timed on."""

    gaussians: GaussianState
    features: Tensor
    cameras: Cameras

    def on(self, device: torch.device) -> "BenchmarkScene":
        """The same scene with leaves of its own on `device`."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, copy=True).requires_grad_(tensor.requires_grad)

        features = self.features.detach().to(device, copy=True).requires_grad_()
        return BenchmarkScene(self.gaussians.map(moved), features, self.cameras.to(device))

    def leaves(self) -> dict[str, Tensor]:
        """What gradients are taken by."""
        g = self.gaussians
        named = {name: getattr(g, name) for name in ("means", "quats", "scales", "opacities")}
        return named | {"features": self.features}

    def clear(self) -> None:
        """Forget all gradients."""
        for leaf in self.leaves().values():
            leaf.grad = None


def benchmark_scene(count: int, size: int, channels: int, seed: int = 0) -> BenchmarkScene:
    """70 % of the Gaussians on a lumpy unit sphere, 30 % inside, seen from 3.5 units: a third of the image is covered.

    Scales are log-normal around 0.6 times the spacing on the sphere, with one axis a third as long.
    """
    g = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    inside = 0.8 * torch.rand(count, 1, generator=g) ** (1 / 3)
    on_shell = torch.rand(count, 1, generator=g) < 0.7
    shell = 0.85 + 0.15 * torch.sin(5 * direction[:, :1]) * torch.cos(4 * direction[:, 1:2])
    means = direction * torch.where(on_shell, shell, inside)
    scales = 0.6 * math.sqrt(4 * math.pi / count) * torch.exp(0.5 * torch.randn(count, 3, generator=g))
    scales[:, 2] *= 0.3
    quats = torch.randn(count, 4, generator=g)
    opacities = torch.sigmoid(0.5 + 1.5 * torch.randn(count, generator=g))
    features = torch.rand(count, channels, generator=g)
    parts = [part.requires_grad_() for part in (means, quats, scales, opacities, features)]
    state = GaussianState(*parts[:4], torch.zeros(count, 3), torch.zeros(count, 0))
    return BenchmarkScene(state, parts[4], _camera(size))


def _camera(size: int) -> Cameras:
    eye = torch.tensor([3.5 * math.sin(0.3), -0.6, -3.5 * math.cos(0.3)])
    forward = -eye / eye.norm()
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
    K = torch.tensor([[1.2 * size, 0.0, size / 2], [0.0, 1.2 * size, size / 2], [0.0, 0.0, 1.0]])
    return Cameras(viewmat[None], K[None], size, size)
