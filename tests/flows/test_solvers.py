import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import linalg

from kg4d.flows.maps import Planar
from kg4d.flows.metric import PullbackMetric
from kg4d.flows.settings import Solver, SolverConfig
from kg4d.flows.solvers import conjugate_gradient, dual, jacobi, minres, solve

F64 = torch.float64


def planar_metric(dtype: torch.dtype = F64, count: int = 12, weights: bool = False) -> PullbackMetric:
    g = torch.Generator().manual_seed(0)
    planar = Planar(3, 4)
    theta = planar.initial(g).to(dtype)
    theta = theta + 0.3 * torch.randn(theta.shape, generator=g).to(dtype)
    z = torch.randn(count, 3, generator=g).to(dtype)
    mass = torch.rand(count, generator=g).to(dtype)
    return PullbackMetric(lambda t: planar(t, z), theta, mass / mass.sum() if weights else None)


def dense(metric: PullbackMetric) -> torch.Tensor:
    J = torch.func.jacrev(metric.function)(metric.theta).flatten(0, 1)
    return J.mT @ (metric.weights.repeat_interleave(metric.outputs.shape[1])[:, None] * J)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-5)])
def test_products_are_those_of_the_matrix(dtype, tolerance, weights):
    metric = planar_metric(dtype, weights=weights)
    v = torch.randn(len(metric.theta), generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = dense(metric) @ v
    assert float((metric.product(v) - expected).norm() / expected.norm()) < tolerance


def test_the_rows_of_the_jacobian_and_the_diagonal():
    metric = planar_metric()
    J = torch.func.jacrev(metric.function)(metric.theta).flatten(0, 1)
    torch.testing.assert_close(metric.jacobian(), J)
    torch.testing.assert_close(metric.jacobian(chunk=5), J)
    estimate = metric.diagonal(4000, torch.Generator().manual_seed(0))
    exact = dense(metric).diagonal()
    assert float((estimate - exact).norm() / exact.norm()) < 0.1


@pytest.mark.parametrize("kind", Solver)
def test_damped_solutions_are_exact(kind):
    metric = planar_metric()
    g = torch.randn(len(metric.theta), generator=torch.Generator().manual_seed(1), dtype=F64)
    found = solve(metric, g, SolverConfig(kind, damping=1e-3, iterations=200, tolerance=1e-12))
    expected = torch.linalg.solve(dense(metric) + 1e-3 * torch.eye(len(g), dtype=F64), g)
    torch.testing.assert_close(found.x, expected, atol=1e-7, rtol=1e-6)
    assert found.residual < 1e-8


def test_the_condition_number_is_that_of_the_spectrum():
    metric = planar_metric()
    g = torch.randn(len(metric.theta), generator=torch.Generator().manual_seed(1), dtype=F64)
    values = torch.linalg.eigvalsh(dense(metric)) + 0.01
    for kind in (Solver.CG, Solver.MINRES):
        found = solve(metric, g, SolverConfig(kind, damping=0.01, iterations=100, tolerance=1e-14))
        assert found.condition == pytest.approx(float(values[-1] / values[0]), rel=0.05)


@given(st.integers(0, 10_000), st.integers(1, 8), st.booleans())
def test_minres_is_scipys(seed, iterations, singular):
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=F64))[0]
    values = torch.logspace(0, -3, 8, dtype=F64)
    A = turn * (values * (torch.arange(8) < 5) if singular else values) @ turn.mT
    b = torch.randn(8, generator=g, dtype=F64)
    ours = minres(lambda v: A @ v, b, SolverConfig(Solver.MINRES, iterations=iterations, tolerance=0.0))
    theirs, _ = linalg.minres(A.numpy(), b.numpy(), maxiter=iterations, rtol=0.0)
    least = A.numpy() @ np.linalg.lstsq(A.numpy(), b.numpy(), rcond=1e-9)[0]
    reached, least = (np.linalg.norm(b.numpy() - there) / float(b.norm()) for there in (A.numpy() @ theirs, least))
    # beyond the rank, theirs divides by eigenvalues that are rounding: its residual is no guide there
    assert ours.residual <= max(reached, least) + 1e-6


def test_a_singular_metric_gives_the_least_squares_solution_or_an_error():
    A = torch.diag(torch.tensor([3.0, 2.0, 0.0], dtype=F64))
    reachable, beyond = torch.tensor([3.0, 4.0, 0.0], dtype=F64), torch.tensor([3.0, 4.0, 5.0], dtype=F64)
    wanted = torch.tensor([1.0, 2.0, 0.0], dtype=F64)
    config = SolverConfig(Solver.CG, iterations=50, tolerance=1e-12)
    torch.testing.assert_close(conjugate_gradient(lambda v: A @ v, reachable, config).x, wanted)
    torch.testing.assert_close(minres(lambda v: A @ v, reachable, config).x, wanted)
    with pytest.raises(ValueError, match="singular"):
        conjugate_gradient(lambda v: A @ v, beyond, config)
    with pytest.raises(ValueError, match="damping > 0"):
        SolverConfig(Solver.DUAL)
    best = minres(lambda v: A @ v, beyond, config)
    torch.testing.assert_close(best.x[:2], wanted[:2])
    assert best.residual == pytest.approx(5 / math.sqrt(50))


@pytest.mark.parametrize("kind", [Solver.CG, Solver.MINRES])
def test_more_iterations_than_parameters_do_no_harm(kind):
    """In float32, where rounding would otherwise go on."""
    metric = planar_metric(torch.float32)
    g = metric.pull(torch.randn(12, 3, generator=torch.Generator().manual_seed(2)))
    found = solve(metric, g, SolverConfig(kind, damping=1e-2, iterations=500, tolerance=0.0))
    assert found.residual < 1e-4
    assert found.iterations <= 500


def test_a_jacobi_preconditioner_needs_fewer_iterations():
    scales = torch.logspace(-3, 3, 40, dtype=F64)
    noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=F64)
    A = torch.diag(scales) + scales.sqrt()[:, None] * (0.02 * (noise + noise.mT)) * scales.sqrt()
    b = torch.ones(40, dtype=F64)
    config = SolverConfig(Solver.CG, iterations=500, tolerance=1e-8)
    plain = conjugate_gradient(lambda v: A @ v, b, config)
    helped = conjugate_gradient(lambda v: A @ v, b, config, jacobi(A.diagonal(), 0.0))
    torch.testing.assert_close(A @ helped.x, b, atol=1e-5, rtol=0)
    assert helped.iterations < plain.iterations / 2
    with pytest.raises(ValueError, match="positive diagonal"):
        jacobi(torch.zeros(3), 0.0)


def test_nothing_to_solve():
    for kind in Solver:
        found = solve(planar_metric(), torch.zeros(28, dtype=F64), SolverConfig(kind, damping=0.1))
        assert (found.x == 0).all()
        assert found.residual == 0


@pytest.mark.parametrize("wrong", [{"damping": -1.0}, {"iterations": 0}, {"tolerance": math.nan}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="need damping"):
        SolverConfig(Solver.CG, **wrong)


def test_the_dual_solve_takes_a_jacobian_that_is_there_already():
    metric = planar_metric(weights=True)
    g = torch.randn(28, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert torch.equal(dual(metric, g, 0.1).x, dual(metric, g, 0.1, metric.jacobian()).x)
