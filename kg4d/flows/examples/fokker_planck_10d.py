"""A quadratic potential in ten dimensions, followed by a planar normalising flow; the law stays Gaussian.

From N(0, 1) towards N(mu, Sigma) with correlated, stretched and untouched coordinates. The map is not told any of this.
"""

import time as clock
from pathlib import Path

import torch
from torch import Tensor

from kg4d.flows.distances import moments, moments_w2
from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row, mirrored_normal
from kg4d.flows.laws import OrnsteinUhlenbeck, standard_normal
from kg4d.flows.maps import Planar
from kg4d.flows.rpwgf import Problem, flow, projection_error
from kg4d.flows.settings import Solver, SolverConfig

DIM, END = 10, 2.0


def process() -> OrnsteinUhlenbeck:
    """The example's potential."""
    pair = torch.tensor([[5.0, -3.0], [-3.0, 5.0]]) / 8
    cov = torch.diag(torch.tensor([1.0, 1, 1, 1, 1, 0.25, 1, 1, 0.25, 0.25]))
    cov[:2, :2] = pair
    centre = torch.tensor([1.0, 1, 0, 0, 1, 2, 0, 0, 2, 3])
    return OrnsteinUhlenbeck(centre, torch.linalg.inv(cov), standard_normal(DIM))


def run(seed: int = 0, layers: int = 20, count: int = 1000, step: float = 0.02) -> Outcome:
    """Flow to time 2 with new reference points in every step, then compare 100,000 fresh points with the exact law.

    Args:
        seed: Of the map and of all points.
        layers: Of the planar flow.
        count: Reference points a step.
        step: h.
    """
    truth, base = process(), standard_normal(DIM)
    push_forward = Planar(DIM, layers, spread=0.3)
    generator = torch.Generator().manual_seed(seed)
    theta = push_forward.initial(generator)
    problem = Problem(Potential(truth.potential) + Entropy(), push_forward, base)
    fresh = torch.randn(100_000, DIM, generator=torch.Generator().manual_seed(seed + 1))
    history: list[tuple[float, float, float]] = []
    seconds, worst, dissipated = 0.0, 0.0, 0
    started = clock.process_time()
    for taken in flow(
        problem,
        theta,
        lambda _: mirrored_normal(count, DIM, generator),
        step=step,
        steps=round(END / step),
        solver=SolverConfig(Solver.MINRES, iterations=20),
    ):
        seconds += clock.process_time() - started
        theta, worst = taken.theta, max(worst, taken.residual)
        dissipated += taken.energy < taken.energy_before
        history.append((taken.time, *_errors(push_forward(theta, fresh[:10_000]), truth, taken.time)))
        started = clock.process_time()
    with torch.no_grad():
        x = push_forward(theta, fresh)
    mean_error, w2 = _errors(x, truth, END)
    rows = [
        Row("|mean - exact mean| at t = 2", mean_error, "", 0.02),
        Row("|cov - exact cov|_F at t = 2", float((moments(x).cov - truth.at(END).cov).norm())),
        Row("W2 of the moments to the exact law at t = 2", w2, "", 0.10),
        Row("steps in which the energy grew", len(history) - dissipated),
        Row("largest residual of a solve", worst),
        Row("delta_0 at t = 2", projection_error(problem, theta, fresh[:400], 1e-4), "velocity²"),
        Row("processor time of the flow (wall time on an idle machine with one thread)", seconds, "s", 60.0),
    ]

    def draw(folder: Path) -> list[Path]:
        path = folder / "fokker_planck_10d.png"
        with plots.canvas(path, 4) as axes:
            for ax, pair in zip(axes, [(0, 1), (4, 5), (8, 9)], strict=False):
                ax.plot(*x[:2000, list(pair)].mT, ".", ms=1.5)
                ax.plot(*_ellipse(truth, pair).mT, "k", lw=1)
                ax.set(title=f"coordinates {pair[0]} and {pair[1]}, t = 2", aspect="equal")
            times, means, distances = zip(*history, strict=True)
            axes[3].semilogy(times, means, label="|mean - exact|")
            axes[3].semilogy(times, distances, label="W2 (10,000 points)")
            axes[3].set(xlabel="t", title="errors")
            axes[3].legend(fontsize=7)
        return [path]

    return Outcome(rows, draw)


def _errors(x: Tensor, truth: OrnsteinUhlenbeck, time: float) -> tuple[float, float]:
    found, exact = moments(x), truth.at(time)
    return float((found.mean - exact.mean).norm()), moments_w2(found, exact)


def _ellipse(truth: OrnsteinUhlenbeck, pair: tuple[int, int]) -> Tensor:
    """The exact law's curve of two standard deviations."""
    law, index, turn = truth.at(END), list(pair), torch.linspace(0, 2 * torch.pi, 100)
    root = torch.linalg.cholesky(law.cov[index][:, index])
    curve: Tensor = law.mean[index] + 2 * torch.stack([turn.cos(), turn.sin()], 1) @ root.mT
    return curve
