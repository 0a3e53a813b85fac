"""The Ornstein-Uhlenbeck process on a line with an affine map: the flow is exact but for the time step.

On reference points with mean 0 and variance 1 the metric of the map is the identity, so the flow is plain gradient
descent and forward Euler must be of first order.
"""

import itertools
import math
from pathlib import Path

import torch
from torch import Tensor

from kg4d.flows import pwgf
from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.examples import plots
from kg4d.flows.examples.outcome import Outcome, Row
from kg4d.flows.laws import Gaussian, OrnsteinUhlenbeck, standard_normal, whitened
from kg4d.flows.maps import Affine
from kg4d.flows.networks import FlatModule, perceptron
from kg4d.flows.rpwgf import Problem, Scheme, flow, projection_error
from kg4d.flows.settings import Solver, SolverConfig

F64 = torch.float64
PROCESS = OrnsteinUhlenbeck(torch.ones(1, dtype=F64), 2 * torch.eye(1, dtype=F64), standard_normal(1, F64))
STEPS = (0.02, 0.01, 0.005, 0.0025)


def law_of(theta: Tensor) -> Gaussian:
    """What the map makes of N(0, 1)."""
    U, b = Affine(1).parts(theta.to(F64))
    return Gaussian(b, U @ U.mT)


def errors(law: Gaussian, time: float) -> tuple[float, float]:
    """Of the mean and of the variance."""
    true = PROCESS.at(time)
    return float((law.mean - true.mean).abs().max()), float((law.cov - true.cov).abs().max())


def run(seed: int = 0, time: float = 0.3) -> Outcome:
    """Halve the step and compare moments at `time`; then once more by the semi-implicit and the bi-level scheme."""
    generator = torch.Generator().manual_seed(seed)
    z = whitened(torch.randn(64, 1, generator=generator, dtype=F64))
    problem = Problem(Potential(PROCESS.potential) + Entropy(), Affine(1), standard_normal(1, F64))
    start = Affine(1).initial(generator).to(F64)
    config = SolverConfig(Solver.MINRES, iterations=2, tolerance=1e-12)

    def final(step: float, scheme: Scheme) -> Gaussian:
        *_, last = flow(problem, start, lambda _: z, step=step, steps=round(time / step), solver=config, scheme=scheme)
        return law_of(last.theta)

    euler = {step: errors(final(step, Scheme.EULER), time) for step in STEPS}
    implicit = {step: errors(final(step, Scheme.SEMI_IMPLICIT), time) for step in STEPS}
    halving = [max(euler[b]) / max(euler[a]) for a, b in itertools.pairwise(STEPS)]
    small = Problem(problem.energy, problem.push_forward, standard_normal(1))
    psi = FlatModule(perceptron(1, 16, 1, generator, out=1))
    *_, bilevel = pwgf.bilevel_flow(small, start.float(), lambda _: z.float(), psi, step=0.05, steps=6)
    rows = [
        Row(f"error of mean at t = {time:g}, h = {STEPS[-1]:g}", euler[STEPS[-1]][0], "", 2e-3),
        Row(f"error of variance at t = {time:g}, h = {STEPS[-1]:g}", euler[STEPS[-1]][1], "", 2e-3),
        Row("halving h: error ratio furthest from 1/2", max(halving, key=lambda r: abs(r - 0.5)), "", 0.55),
        Row("order of forward Euler", -math.log2(halving[-1]), "h^"),
        Row(f"semi-implicit: error of mean, h = {STEPS[-1]:g}", implicit[STEPS[-1]][0], "", 2e-3),
        Row("bi-level (PWGF): error of mean at t = 0.3, h = 0.05", errors(law_of(bilevel.theta), 0.3)[0]),
        Row("delta_0, affine map", projection_error(problem, start, z, 1e-9), "velocity²", 1e-12),
    ]

    def draw(folder: Path) -> list[Path]:
        path = folder / "ou_1d.png"
        with plots.canvas(path, 3) as (left, middle, right):
            x = torch.linspace(-4, 3.5, 400, dtype=F64)[:, None]
            for step in flow(problem, start, lambda _: z, step=0.02, steps=60, solver=config):
                if round(step.time / 0.02) in (1, 10, 20, 60):
                    line = left.plot(x[:, 0], law_of(step.theta).log_density(x).exp(), label=f"t = {step.time:.2f}")
                    left.plot(x[:, 0], PROCESS.at(step.time).log_density(x).exp(), "k:", lw=1)
                    middle.plot(step.time, step.energy, "o", color=line[0].get_color())
                middle.plot(step.time, step.energy, "k,")
            left.set(title="density (dots: exact)", xlabel="x")
            left.legend(fontsize=7)
            middle.set(title="energy", xlabel="t")
            for label, table in (("forward Euler", euler), ("semi-implicit", implicit)):
                right.loglog(STEPS, [max(table[step]) for step in STEPS], "o-", label=label)
            right.loglog(STEPS, [0.5 * step for step in STEPS], "k:", label="h / 2")
            right.set(title=f"error of moments at t = {time:g}", xlabel="h")
            right.set_xticks(STEPS, [f"{step:g}" for step in STEPS])
            right.minorticks_off()
            right.legend(fontsize=7)
        return [path]

    return Outcome(rows, draw)
