"""Particles that drift towards two plane sets, a ring and eight modes on a ring: when each divergence gets there.

Against fresh samples of the law. The target is a sample too, and its own distance to the fresh ones is the floor that
particles can reach; the exact optimal transport flow, which moves every particle along the best pairing, ends there.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.distances import optimal_plan, points_w2
from kg4d.flows.drifting import Divergence, DriftConfig, drift
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row
from kg4d.flows.kernels import Kernel, annealed

Toy = Callable[[int, torch.Generator], Tensor]

MIXED = DriftConfig({Divergence.KL_PQ: 0.5, Divergence.CHI2_QP: 0.5})
CONFIGS = {
    "KL(q|p)": DriftConfig(),
    "KL(p|q)": DriftConfig({Divergence.KL_PQ: 1.0}),
    "chi²(q|p)": DriftConfig({Divergence.CHI2_QP: 1.0}),
    "KL(p|q) + chi²": MIXED,
    "MMD": DriftConfig({Divergence.MMD: 1.0}),
    "Laplace": DriftConfig(kernel=Kernel.LAPLACE),
    "Student": DriftConfig(kernel=Kernel.STUDENT),
}
DIVERGENCES = ("KL(q|p)", "KL(p|q)", "chi²(q|p)", "KL(p|q) + chi²")


def on_circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], 1)


def ring(count: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """A circle of radius 1, blurred by .05."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    return on_circle(angle) * (1 + 0.05 * torch.randn(count, 1, generator=generator))


def modes(count: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Eight discs of standard deviation .05 on the circle of radius 1."""
    angle = math.pi / 4 * torch.randint(8, (count,), generator=generator)
    return on_circle(angle) + 0.05 * torch.randn(count, 2, generator=generator)


def start(good: bool, count: int, seed: int) -> Float[Tensor, "n 2"]:
    """A broad disc in the middle, or a small one at the target's right edge."""
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return 0.3 * z if good else 0.05 * z + torch.tensor([1.0, 0.0])


def drifted(
    q: Float[Tensor, "n 2"],
    p: Float[Tensor, "m 2"],
    config: DriftConfig,
    bandwidths: tuple[float, float] = (0.5, 0.1),
    steps: int = 200,
) -> Float[Tensor, "n 2"]:
    """Particles after a run whose bandwidth falls for four fifths of it and then stays."""
    for k in range(steps):
        q = drift(q, p, annealed(*bandwidths, k / (0.8 * steps)), config, rate=0.5)
    return q


def transported(q: Float[Tensor, "n 2"], p: Float[Tensor, "n 2"], steps: int = 10) -> Float[Tensor, "n 2"]:
    """The exact optimal transport flow, with the pairing found anew in every step."""
    for k in range(steps):
        _, plan = optimal_plan(q, p)
        q = q + (p[plan.argmax(1)] - q) / (steps - k)
    return q


def collapse(q: Float[Tensor, "n 2"]) -> float:
    """Share of the eight modes that have less than half of their mass."""
    near = torch.cdist(q, on_circle(math.pi / 4 * torch.arange(8)))
    counts = torch.bincount(near.argmin(1)[near.min(1).values < 0.2], minlength=8) / len(q)
    return float((counts < 1 / 16).float().mean())


def blur(q: Float[Tensor, "n 2"]) -> float:
    """Share of particles further than 3.5 standard deviations (.2 % of the law) from all eight modes."""
    near = torch.cdist(q, on_circle(math.pi / 4 * torch.arange(8)))
    return float((near.min(1).values > 0.175).float().mean())


def scored(toy: Toy, count: int, seed: int) -> Callable[[Tensor], float]:
    """Mean W2 to four fresh samples."""
    fresh = [toy(count, torch.Generator().manual_seed(seed + 100 + i)) for i in range(4)]
    return lambda q: sum(points_w2(q, other) for other in fresh) / 4


def run(seed: int = 0, count: int = 400, steps: int = 200) -> Outcome:
    """All divergences and kernels from a good start, then the divergences from a bad one and with a fixed bandwidth.

    Args:
        seed: Of all points.
        count: Particles, and points of the target.
        steps: Of each run.
    """
    rows: list[Row] = []
    shots: dict[tuple[str, str, str], Tensor] = {}
    for toy in (ring, modes):
        name, p = toy.__name__, toy(count, torch.Generator().manual_seed(seed + 1))
        score = scored(toy, count, seed)
        floor = score(p)
        rows.append(Row(f"{name}: W2 of the target's own points to fresh ones (floor)", floor))
        exact = transported(start(True, count, seed + 2), p)
        rows.append(Row(f"{name}: exact OT flow, W2 / floor", score(exact) / floor))
        for label, config in CONFIGS.items():
            q = drifted(start(True, count, seed + 2), p, config, steps=steps)
            shots[name, "good start, h .5 to .1", label] = q
            rows += _judge(f"{name}, good start, {label}", q, toy, score, floor, 1.1 if label in DIVERGENCES else None)
        for setting, bandwidths in (("h .5 to .1", (0.5, 0.1)), ("h .1", (0.1, 0.1))):
            for label in DIVERGENCES:
                q = drifted(start(False, count, seed + 2), p, CONFIGS[label], bandwidths, steps)
                shots[name, f"bad start, {setting}", label] = q
                rows += _judge(f"{name}, bad start, {setting}, {label}", q, toy, score, floor, None)
    return Outcome(rows, lambda folder: _draw(folder, shots))


def _judge(
    name: str, q: Tensor, toy: Toy, score: Callable[[Tensor], float], floor: float, at_most: float | None
) -> list[Row]:
    rows = [Row(f"{name}: W2 / floor", score(q) / floor, "", at_most)]
    if toy is modes:
        rows += [Row(f"{name}: modes lost", collapse(q)), Row(f"{name}: points between modes", blur(q))]
    return rows


def _draw(folder: Path, shots: dict[tuple[str, str, str], Tensor]) -> list[Path]:
    paths = []
    for toy in (ring, modes):
        path = folder / f"drifting_2d_{toy.__name__}.png"
        mine = [(setting, label, q) for (name, setting, label), q in shots.items() if name == toy.__name__]
        with plots.canvas(path, 5, 3, width=2.2, height=2.3) as axes:
            for ax, (setting, label, q) in zip(axes, mine, strict=False):
                ax.plot(*q.mT, ".", ms=1.5)
                ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
                ax.set_title(f"{label}\n{setting}", fontsize=7)
        paths.append(path)
    return paths
