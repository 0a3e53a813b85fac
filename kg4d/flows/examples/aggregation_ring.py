r"""Points that attract from afar and repel nearby gather on a ring: :math:`W(x) = |x|^4 / 4 - |x|^2 / 2`, plane.

On a ring of radius R the force on one of its points is :math:`3 R^3 - R` inwards, so the ring rests at
:math:`R = 1 / \sqrt 3 \approx .577`. (The source's slides say 1/2, where the force is not zero.) From any law that is
round, points only move along their radius, :math:`\dot r = -r (r^2 + 2 E r^2 - 1)`: the reference below.

The energy sees only moments up to the fourth, so it is as low for some uneven rings: evenness comes from the start, and
the reference points are drawn in rosettes of eight to keep it.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.distances import kuiper
from kg4d.flows.energies import Interaction
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row
from kg4d.flows.laws import Gaussian
from kg4d.flows.maps import LinearBasis
from kg4d.flows.rpwgf import Problem, flow
from kg4d.flows.settings import Solver, SolverConfig

CENTRE = torch.tensor([1.25, 1.25])
SPREAD = 0.6 / math.sqrt(2)  # the source starts from exp(-|x - x0|² / .6²)
RADIUS = 1 / math.sqrt(3)


def kernel(x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """W."""
    square = x.square().sum(-1)
    return square.square() / 4 - square / 2


def bumps(spacing: float, reach: float) -> LinearBasis:
    """A map of Gaussian bumps on a square grid round the centre, and of two slow functions for points far off."""
    axis = torch.arange(-int(reach / spacing), int(reach / spacing) + 1) * spacing
    centres = torch.cartesian_prod(axis, axis)
    centres = centres[centres.norm(dim=-1) <= reach]

    def basis(z: Tensor) -> Tensor:
        x = z - CENTRE
        squares = (x[:, None] - centres).square().sum(-1)
        return torch.cat([(-squares / (2 * spacing**2)).exp(), x, x / (1 + x.square().sum(-1, keepdim=True)).sqrt()], 1)

    return LinearBasis(2, len(centres) + 4, basis)


def rosettes(count: int, generator: torch.Generator) -> Float[Tensor, "B 2"]:
    """Points of the first law, each with its copies turned by eighths of a turn."""
    z = SPREAD * torch.randn(count // 8, 2, generator=generator)
    turn = torch.arange(8) * math.pi / 4
    rotations = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).view(8, 2, 2)
    return CENTRE + torch.einsum("fij,nj->fni", rotations, z).flatten(0, 1)


def radii(r: Float[Tensor, " n"], time: float, step: float = 0.005) -> Float[Tensor, " n"]:
    """Where the exact flow takes points that start at distances r from the centre: midpoint rule."""

    def speed(r: Tensor) -> Tensor:
        return -r * (r.square() + 2 * r.square().mean() - 1)

    for _ in range(round(time / step)):
        r = r + step * speed(r + step / 2 * speed(r))
    return r


def run(seed: int = 0, spacing: float = 0.2, count: int = 800, step: float = 0.1, end: float = 10.0) -> Outcome:
    """Flow to time `end`; then 2,000 fresh points.

    Args:
        seed: Of all points.
        spacing: Of the map's bumps.
        count: Reference points a step; a multiple of 8.
        step: h.
        end: How long.
    """
    push_forward = bumps(spacing, 1.4)
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(Interaction(kernel), push_forward, Gaussian(CENTRE, SPREAD**2 * torch.eye(2)))
    fresh = CENTRE + SPREAD * torch.randn(2000, 2, generator=torch.Generator().manual_seed(seed + 1))
    theta, solver = push_forward.initial(generator), SolverConfig(Solver.MINRES, iterations=30)
    shots, energies = [(0.0, fresh)], []
    steps = round(end / step)
    for k, taken in enumerate(
        flow(problem, theta, lambda _: rosettes(count, generator), step=step, steps=steps, solver=solver)
    ):
        energies.append((taken.time, taken.energy))
        if (k + 1) % max(1, steps // 5) == 0:
            shots.append((taken.time, push_forward(taken.theta, fresh)))
    x = shots[-1][1] - CENTRE
    distance = x.norm(dim=-1)
    sideways = torch.atan2(x[:, 1], x[:, 0])
    exact = radii((fresh - CENTRE).norm(dim=-1), end)
    rows = [
        Row("|mean radius - 1/sqrt(3)|", abs(float(distance.mean()) - RADIUS), "", 0.02),
        Row("mean radius", float(distance.mean())),
        Row("spread of the radius", float(distance.std())),
        Row("1 - Kuiper's p of the angles", 1 - kuiper(sideways), "", 0.95),
        Row(
            "W2 of the radii to the exact flow",
            float((distance.sort().values - exact.sort().values).square().mean().sqrt()),
        ),
        Row("energy (ring: -1/12)", energies[-1][1]),
    ]

    def draw(folder: Path) -> list[Path]:
        path = folder / "aggregation_ring.png"
        with plots.canvas(path, 4) as axes:
            turn = torch.linspace(0, 2 * torch.pi, 100)
            for ax, (time, points) in zip(axes, [shots[0], shots[1], shots[-1]], strict=False):
                ax.plot(*points.mT, ".", ms=1.5)
                ax.plot(1.25 + RADIUS * turn.cos(), 1.25 + RADIUS * turn.sin(), "k", lw=0.7)
                ax.set(title=f"t = {time:g}", xlim=(0, 2.5), ylim=(0, 2.5), aspect="equal")
            axes[3].plot(*zip(*energies, strict=True))
            axes[3].axhline(-1 / 12, color="k", lw=0.7)
            axes[3].set(title="energy (line: ring)", xlabel="t")
        return [path]

    return Outcome(rows, draw)
