"""A double well in each of thirty dimensions, followed by a planar normalising flow.

The coordinates are independent, so long Langevin chains of one of them give the exact histograms of all.
"""

import time as clock
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.distances import histogram_distance
from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row, mirrored_normal
from kg4d.flows.laws import standard_normal
from kg4d.flows.maps import Planar
from kg4d.flows.rpwgf import Problem, flow
from kg4d.flows.settings import Solver, SolverConfig

END = 1.8
EDGES = torch.linspace(-5, 5, 51)


def potential(x: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
    """V."""
    return ((x.square() - 16) * x.square() + 5 * x).sum(-1) / 50


def langevin(count: int, step: float, time: float, generator: torch.Generator) -> Float[Tensor, " n"]:
    """One coordinate of `count` independent chains at `time`, from N(0, 1), by Euler and Maruyama."""
    x = torch.randn(count, generator=generator)
    for _ in range(round(time / step)):
        slope = (4 * x**3 - 32 * x + 5) / 50
        x = x - step * slope + (2 * step) ** 0.5 * torch.randn(count, generator=generator)
    return x


def start(push_forward: Planar) -> Float[Tensor, " p"]:
    """The identity, with layers that look along each axis in turn, at its left and then at its right side."""
    d, layers = push_forward.dim, push_forward.layers
    w = torch.eye(d).repeat(layers // d, 1)
    b = torch.linspace(-0.7, 0.7, layers // d).repeat_interleave(d)
    return torch.cat([w.flatten(), torch.zeros(layers * d), b])


def run(seed: int = 0, dim: int = 30, count: int = 1000, step: float = 0.02, chains: int = 400_000) -> Outcome:
    """Flow to time 1.8 and compare the histogram of every coordinate of 20,000 fresh points with the chains'.

    Args:
        seed: Of all points.
        dim: d; the example has 30.
        count: Reference points a step.
        step: h.
        chains: Langevin chains.
    """
    push_forward = Planar(dim, 2 * dim)
    generator = torch.Generator().manual_seed(seed)
    theta = start(push_forward)
    problem = Problem(Potential(potential) + Entropy(), push_forward, standard_normal(dim))
    wanted = {round(END * part, 6) for part in (1 / 3, 2 / 3, 1)}
    shots: list[tuple[float, Tensor]] = []
    steps_up, started = 0, clock.process_time()
    for taken in flow(
        problem,
        theta,
        lambda _: mirrored_normal(count, dim, generator),
        step=step,
        steps=round(END / step),
        solver=SolverConfig(Solver.MINRES, iterations=8),
    ):
        steps_up += taken.energy >= taken.energy_before
        if round(taken.time, 6) in wanted:
            shots.append((taken.time, taken.theta))
    seconds = clock.process_time() - started
    fresh = torch.randn(20_000, dim, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        pictures = [(time, push_forward(theta, fresh)) for time, theta in shots]
    references = [langevin(chains, 0.0025, time, torch.Generator().manual_seed(seed + 2)) for time, _ in shots]
    truth = [torch.histogram(chain, EDGES).hist.double() / chains for chain in references]
    x = pictures[-1][1]
    distances = [histogram_distance(x[:, i], EDGES, truth[-1]) for i in range(dim)]
    again = langevin(20_000, 0.0025, END, torch.Generator().manual_seed(seed + 3))
    rows = [
        Row("total variation of histograms at t = 1.8, worst coordinate", max(distances), "", 0.05),
        Row("total variation, mean of coordinates", sum(distances) / dim),
        Row("total variation of as many points of the exact law", histogram_distance(again, EDGES, truth[-1])),
        Row("steps in which the energy grew", steps_up),
        Row("processor time of the flow (wall time on an idle machine with one thread)", seconds, "s"),
    ]

    def draw(folder: Path) -> list[Path]:
        path = folder / "fokker_planck_30d.png"
        with plots.canvas(path, len(pictures), 2) as axes:
            middle, (i, j) = (EDGES[1:] + EDGES[:-1]) / 2, (min(5, dim - 1), min(15, dim - 1))
            for upper, lower, (time, points), exact in zip(axes, axes[len(pictures) :], pictures, truth, strict=False):
                upper.plot(points[:3000, i], points[:3000, j], ".", ms=1)
                upper.set(title=f"coordinates {i} and {j}, t = {time:.1f}", xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
                lower.stairs(torch.histogram(points[:, i], EDGES).hist / len(points), EDGES, label=f"coordinate {i}")
                lower.plot(middle, exact, "k.", ms=3, label="Langevin")
                lower.legend(fontsize=7)
        return [path]

    return Outcome(rows, draw)
