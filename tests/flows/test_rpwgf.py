import itertools
import math

import pytest
import torch

from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.examples.fokker_planck_10d import process
from kg4d.flows.examples.outcome import mirrored_normal
from kg4d.flows.laws import Gaussian, OrnsteinUhlenbeck, standard_normal, whitened
from kg4d.flows.maps import Affine, LinearBasis, Planar
from kg4d.flows.rpwgf import FlowDivergedError, Problem, Scheme, flow, projection_error
from kg4d.flows.settings import Solver, SolverConfig

F64 = torch.float64
EXACT = SolverConfig(Solver.CG, iterations=50, tolerance=1e-12)


def ten_dimensions() -> tuple[OrnsteinUhlenbeck, Problem, torch.Tensor, torch.Tensor]:
    """The ten-dimensional example with an affine map and white reference points, in double precision."""
    single = process()
    truth = OrnsteinUhlenbeck(single.centre.double(), single.precision.double(), standard_normal(10, F64))
    problem = Problem(Potential(truth.potential) + Entropy(), Affine(10), standard_normal(10, F64))
    g = torch.Generator().manual_seed(0)
    return truth, problem, Affine(10).initial(g).double(), whitened(torch.randn(40, 10, generator=g, dtype=F64))


def affine_law(theta: torch.Tensor, dim: int) -> Gaussian:
    U, b = Affine(dim).parts(theta)
    return Gaussian(b, U @ U.mT)


def test_the_exact_law_is_the_one_written_down():
    law = ten_dimensions()[0].at(0.3)
    diagonal = torch.tensor([0.659, 0.659, 1, 1, 1, 0.318, 1, 1, 0.318, 0.318], dtype=F64)
    mean = torch.tensor([0.6988, 0.6988, 0, 0, 0.2592, 1.3976, 0, 0, 1.3976, 2.0964], dtype=F64)
    torch.testing.assert_close(law.cov.diagonal(), diagonal, atol=5e-4, rtol=0)
    torch.testing.assert_close(law.mean, mean, atol=5e-5, rtol=0)
    assert float(law.cov[0, 1]) == pytest.approx(-0.341, abs=5e-4)


def test_on_white_points_the_metric_of_an_affine_map_is_the_identity():
    _, problem, theta, z = ten_dimensions()
    metric = problem.metric(theta, z)
    v = torch.randn(110, generator=torch.Generator().manual_seed(1), dtype=F64)
    torch.testing.assert_close(metric.product(v), v)


def test_forward_euler_is_of_first_order_for_an_affine_map():
    """Known errors of the mean at h = .02, .01, .005: .065, .032, .016; of the covariance .020, .010, .005."""
    truth, problem, theta, z = ten_dimensions()
    law, errors = truth.at(0.3), []
    for h in (0.02, 0.01, 0.005):
        *_, last = flow(problem, theta, lambda _: z, step=h, steps=round(0.3 / h), solver=EXACT)
        found = affine_law(last.theta, 10)
        errors.append((float((found.mean - law.mean).norm()), float((found.cov - law.cov).norm())))
    assert errors[0] == pytest.approx((0.065, 0.020), abs=1e-3)
    for before, after in itertools.pairwise(errors):
        assert after == pytest.approx([e / 2 for e in before], rel=0.1)


def test_the_energy_falls_as_fast_as_the_metric_says():
    _, problem, theta, z = ten_dimensions()
    h = 1e-4
    (step,) = flow(problem, theta, lambda _: z, step=h, steps=1, solver=EXACT)
    assert (step.energy_before - step.energy) / h == pytest.approx(step.dissipation, rel=1e-2)
    assert step.dissipation > 0
    assert step.residual < 1e-10
    assert step.condition == pytest.approx(1, abs=1e-6)


def test_least_squares_are_solved_in_one_step():
    """T = Phi theta and F = |T - y|² / 2 is quadratic in the metric: h = 1 without damping is Gauss-Newton."""
    g = torch.Generator().manual_seed(0)
    basis = LinearBasis(2, 3, lambda x: torch.stack([x[:, 0], x[:, 1].square(), x.prod(-1)], -1))
    z = torch.randn(30, 2, generator=g, dtype=F64)
    y = torch.randn(30, 2, generator=g, dtype=F64)
    energy = Potential(lambda x: (x - y).square().sum(-1) / 2)
    problem = Problem(energy, basis, standard_normal(2, F64))
    theta = torch.zeros(6, dtype=F64)
    *_, last = flow(problem, theta, lambda _: z, step=1.0, steps=1, solver=EXACT)
    exact = torch.linalg.lstsq(basis.basis(z), y - z).solution
    torch.testing.assert_close(last.theta.view(3, 2), exact)
    energies = [step.energy for step in flow(problem, theta, lambda _: z, step=0.3, steps=8, solver=EXACT)]
    assert energies == sorted(energies, reverse=True)


def stiff() -> tuple[Problem, torch.Tensor, torch.Tensor]:
    """V = 50 (x - 1)² / 2, whose forward Euler explodes beyond h = .04."""
    truth = OrnsteinUhlenbeck(torch.ones(1, dtype=F64), torch.full((1, 1), 50.0, dtype=F64), standard_normal(1, F64))
    problem = Problem(Potential(truth.potential) + Entropy(), Affine(1), standard_normal(1, F64))
    g = torch.Generator().manual_seed(0)
    return problem, Affine(1).initial(g).double(), whitened(torch.randn(20, 1, generator=g, dtype=F64))


def test_the_semi_implicit_step_is_backward_euler_and_stays_stable():
    problem, theta, z = stiff()
    h, b = 0.1, 0.0
    for step in flow(problem, theta, lambda _: z, step=h, steps=5, solver=EXACT, scheme=Scheme.SEMI_IMPLICIT):
        b = (b + h * 50) / (1 + h * 50)  # b' = b - h Q (b' - 1)
        assert float(step.theta[1]) == pytest.approx(b, abs=1e-5)
        assert step.energy <= step.energy_before + 1e-12
    explicit = flow(problem, theta, lambda _: z, step=h, steps=30, solver=EXACT)
    assert [step.energy for step in explicit][-1] > 1e10


def test_a_semi_implicit_step_out_of_the_reach_of_its_metric_is_said(caplog):
    _, problem, _, _ = ten_dimensions()
    planar, g = Planar(10, 4), torch.Generator().manual_seed(0)
    theta, z = planar.initial(g).double(), torch.randn(100, 10, generator=g, dtype=F64)
    bent = Problem(problem.energy, planar, problem.base)
    loose = SolverConfig(Solver.MINRES, damping=1e-6)
    next(flow(bent, theta, lambda _: z, step=0.1, steps=1, solver=loose, scheme=Scheme.SEMI_IMPLICIT))
    assert "more damping than 1e-06" in caplog.text


def test_an_energy_that_is_no_number_is_an_error():
    _, _, z = stiff()
    g = torch.Generator().manual_seed(0)
    theta = Affine(1).initial(g).double()
    nan = Problem(Potential(lambda x: x[:, 0] * math.nan), Affine(1), standard_normal(1, F64))
    with pytest.raises(FlowDivergedError, match="smaller steps"):
        next(flow(nan, theta, lambda _: z, step=0.1, steps=1))
    cliff = Problem(Potential(lambda x: -(x[:, 0].abs() ** 30)), Affine(1), standard_normal(1, F64))
    with pytest.raises(FlowDivergedError, match="smaller steps"):
        list(flow(cliff, theta, lambda _: z, step=1.0, steps=50))
    for wrong in ({"step": 0.0, "steps": 1}, {"step": 0.1, "steps": 0}):
        with pytest.raises(ValueError, match="need step > 0"):
            next(flow(nan, theta, lambda _: z, **wrong))


def test_a_map_that_can_follow_has_no_projection_error_and_one_that_cannot_has_what_it_misses():
    _truth, problem, theta, z = ten_dimensions()
    assert projection_error(problem, theta, z, 1e-9) < 1e-20
    nonlinear = Problem(Potential(lambda x: x[:, 0].square().square() / 4), Affine(1), standard_normal(1, F64))
    many = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)[:4000]
    missed = projection_error(nonlinear, Affine(1).initial(torch.Generator()).double(), many, 1e-9)
    assert missed == pytest.approx(6, rel=0.35)  # E (x³ - 3 x)² = 3! for the third Hermite polynomial


def test_the_same_seed_gives_the_same_bytes():
    ends = []
    for _ in range(2):
        g = torch.Generator().manual_seed(7)
        planar = Planar(2, 3)
        problem = Problem(Potential(lambda x: x.square().sum(-1)) + Entropy(), planar, standard_normal(2))
        *_, last = flow(problem, planar.initial(g), lambda _, g=g: mirrored_normal(50, 2, g), step=0.05, steps=3)
        ends.append(last.theta)
    assert torch.equal(*ends)


def test_a_planar_flow_at_the_identity_has_a_singular_metric_and_goes_on():
    """u = 0: w and b move nothing yet. MINRES leaves them alone."""
    planar, g = Planar(2, 3), torch.Generator().manual_seed(0)
    theta = planar.initial(g)
    problem = Problem(Potential(lambda x: (x - 1).square().sum(-1) / 2) + Entropy(), planar, standard_normal(2))
    (step,) = flow(problem, theta, lambda _: mirrored_normal(200, 2, g), step=0.05, steps=1)
    torch.testing.assert_close(step.theta[:6], theta[:6], atol=1e-6, rtol=0)
    assert step.energy < step.energy_before
