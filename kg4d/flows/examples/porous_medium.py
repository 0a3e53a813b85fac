"""The porous medium equation in the plane from Barenblatt's profile, whose spreading is known in closed form.

Mass moves by a pure scaling, so the distance to the scaled reference points bounds W2 without any sampling noise. The
planar flow is not told of the scaling, and no layer of it is one.
"""

from pathlib import Path

import torch
from torch import Tensor

from kg4d.flows.energies import Internal, push
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row
from kg4d.flows.laws import Barenblatt
from kg4d.flows.maps import Planar
from kg4d.flows.rpwgf import Problem, flow, projection_error
from kg4d.flows.settings import Solver, SolverConfig

EXPONENT, BIRTH = 2.0, 0.1


def run(seed: int = 0, layers: int = 16, count: int = 1000, step: float = 0.01, end: float = 1.0) -> Outcome:
    """Flow for a time `end` from the profile of age 0.1.

    Args:
        seed: Of the map and of all points.
        layers: Of the planar flow.
        count: Reference points a step; even.
        step: h.
        end: How long.
    """
    base = Barenblatt(2, EXPONENT, BIRTH)
    push_forward = Planar(2, layers, spread=1.0)
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(Internal(EXPONENT), push_forward, base)

    def points(_: int) -> Tensor:
        half = base.sample(count // 2, generator)
        return torch.cat([half, -half])

    fresh = base.sample(20_000, torch.Generator().manual_seed(seed + 1))
    solver = SolverConfig(Solver.MINRES, iterations=10)
    theta, history, steps_up = push_forward.initial(generator), [(0.0, 0.0)], 0
    for taken in flow(problem, theta, points, step=step, steps=round(end / step), solver=solver):
        theta, law = taken.theta, Barenblatt(2, EXPONENT, BIRTH + taken.time)
        exact = law.radius / base.radius * fresh
        error = (push_forward(theta, fresh) - exact).square().sum(-1).mean().sqrt()
        history.append((taken.time, float(error.detach()) / law.radius))
        steps_up += taken.energy >= taken.energy_before
    rows = [
        Row("bound of W2 to Barenblatt over its radius, end", history[-1][1], "", 0.05),
        Row("the same, worst time", max(error for _, error in history), "", 0.05),
        Row("radius of the exact profile, end", law.radius),
        Row("steps in which the energy grew", steps_up),
        Row("delta_0 at the end", projection_error(problem, theta, fresh[:2000], 1e-4), "velocity²"),
    ]

    def draw(folder: Path) -> list[Path]:
        path = folder / "porous_medium.png"
        with torch.no_grad():
            sample = push(push_forward, base, theta, fresh[:3000])
        with plots.canvas(path, 3) as (left, middle, right):
            left.plot(*sample.points.mT, ".", ms=1.5)
            turn = torch.linspace(0, 2 * torch.pi, 100)
            left.plot(law.radius * turn.cos(), law.radius * turn.sin(), "k", lw=1)
            left.set(title=f"t = {BIRTH + end:g}, edge of the exact law", aspect="equal")
            radii = torch.linspace(0, law.radius, 100)
            middle.plot(sample.points.norm(dim=-1), sample.log_density.exp(), ".", ms=1.5)  # type: ignore[union-attr]
            line = torch.stack([radii, torch.zeros(100)], 1)
            middle.plot(radii, law.log_density(line).exp(), "k", lw=1)
            middle.set(title="density over radius (line: exact)", xlabel="|x|")
            right.plot(*zip(*history, strict=True))
            right.set(title="bound of W2 / radius", xlabel="time since the start")
        return [path]

    return Outcome(rows, draw)
