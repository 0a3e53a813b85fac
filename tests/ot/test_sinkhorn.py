import warnings

import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.ot.sinkhorn import round_to_coupling, sinkhorn, sinkhorn_rounded, sinkhorn_unbalanced

seeds = st.integers(0, 2**31)


def problem(seed: int, n: int = 7, m: int = 5, peaked: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squared distances between random points of the unit square, and weights; `peaked` spreads their logarithms."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(k, 2, generator=g, dtype=torch.float64) for k in (n, m))
    a, b = ((peaked * torch.randn(k, generator=g, dtype=torch.float64)).softmax(0) for k in (n, m))
    return torch.cdist(x, y).square(), a, b


def exact_plan(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ot.emd(a.numpy(), b.numpy(), cost.numpy()))


def test_one_by_one() -> None:
    one = torch.ones(1)
    assert sinkhorn(torch.tensor([[3.0]]), one, one, epsilon=0.1, iterations=1).plan.tolist() == [[1.0]]


@given(seeds)
def test_converged_plan_is_that_of_pot(seed: int) -> None:
    cost, a, b = problem(seed)
    expected = ot.bregman.sinkhorn_log(a.numpy(), b.numpy(), cost.numpy(), 0.1, numItermax=5000, stopThr=1e-13)
    found = sinkhorn(cost, a, b, epsilon=0.1, iterations=500)
    torch.testing.assert_close(found.plan, torch.from_numpy(expected), atol=1e-10, rtol=1e-7)


@given(seeds, st.sampled_from([0.05, 0.5, 5.0]))
def test_unbalanced_plan_is_that_of_pot(seed: int, relaxation: float) -> None:
    cost, a, b = problem(seed)
    found = sinkhorn_unbalanced(cost, a, b, epsilon=0.1, relaxation=relaxation, iterations=800).plan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns that it cannot reach a zero threshold
        expected = ot.unbalanced.sinkhorn_unbalanced(
            a.numpy(), b.numpy(), cost.numpy(), 0.1, relaxation, reg_type="kl", numItermax=800, stopThr=1e-15
        )
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-10, rtol=1e-7)


def test_unbalanced_tends_to_balanced_and_destroys_what_is_far() -> None:
    cost, a, b = problem(0)
    balanced = sinkhorn(cost, a, b, epsilon=0.1, iterations=1000).plan
    stiff = sinkhorn_unbalanced(cost, a, b, epsilon=0.1, relaxation=float("inf"), iterations=1000).plan
    torch.testing.assert_close(stiff, balanced)
    cost[0] += 100.0  # nothing is near the first source
    soft = sinkhorn_unbalanced(cost, a, b, epsilon=0.1, relaxation=1.0, iterations=1000).plan
    assert soft[0].sum() < 1e-10
    assert (soft[1:].sum(-1) > 0.3 * a[1:]).all()


@given(seeds)
def test_marginals(seed: int) -> None:
    cost, a, b = problem(seed)
    found = sinkhorn(cost, a, b, epsilon=0.1, iterations=3)
    assert (found.plan > 0).all()
    torch.testing.assert_close(found.plan.sum(-2), b)
    torch.testing.assert_close(found.row_error, (found.plan.sum(-1) - a).abs().sum())
    assert sinkhorn(cost, a, b, epsilon=0.1, iterations=500).row_error < 1e-6


def test_large_epsilon_gives_the_product_and_small_epsilon_the_linear_programme() -> None:
    cost, a, b = problem(1)
    product = sinkhorn(cost, a, b, epsilon=1e7, iterations=5).plan
    torch.testing.assert_close(product, a[:, None] * b, atol=1e-7, rtol=0)
    sharp = sinkhorn(cost, a, b, epsilon=1e-3, iterations=20_000).plan
    torch.testing.assert_close(sharp, exact_plan(cost, a, b), atol=1e-3, rtol=0)


def test_identical_sets_stay_where_they_are() -> None:
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    plan = sinkhorn(torch.cdist(points, points).square(), weights, weights, epsilon=1e-3, iterations=2000).plan
    torch.testing.assert_close(plan, torch.diag(weights), atol=1e-4, rtol=0)


@given(seeds)
def test_costs_of_rows_and_columns_do_not_change_the_plan(seed: int) -> None:
    cost, a, b = problem(seed)
    g = torch.Generator().manual_seed(seed)
    shifted = (
        cost + torch.rand(7, 1, generator=g, dtype=torch.float64) + torch.rand(5, generator=g, dtype=torch.float64)
    )
    expected = sinkhorn(cost, a, b, epsilon=0.2, iterations=500).plan
    torch.testing.assert_close(
        sinkhorn(shifted, a, b, epsilon=0.2, iterations=500).plan, expected, atol=1e-9, rtol=1e-6
    )


@given(seeds)
def test_batches_and_orders_do_not_matter(seed: int) -> None:
    problems = [problem(seed + i) for i in range(3)]
    cost, a, b = (torch.stack(x) for x in zip(*problems, strict=True))
    plans = sinkhorn(cost, a, b, epsilon=0.1, iterations=50).plan
    rows, columns = (torch.randperm(k, generator=torch.Generator().manual_seed(seed)) for k in (7, 5))
    alone = sinkhorn(cost[1][rows][:, columns], a[1][rows], b[1][columns], epsilon=0.1, iterations=50).plan
    torch.testing.assert_close(plans[1][rows][:, columns], alone)


def test_padding_by_zero_weights_changes_nothing_and_keeps_gradients_finite() -> None:
    cost, a, b = (x.float() for x in problem(2))
    padded_cost = torch.full((9, 6), 3.0)
    padded_cost[:7, :5] = cost
    padded_cost.requires_grad_()
    padded_a, padded_b = (
        torch.cat([a, torch.zeros(2)]).requires_grad_(),
        torch.cat([b, torch.zeros(1)]).requires_grad_(),
    )
    plan = sinkhorn(padded_cost, padded_a, padded_b, epsilon=0.05, iterations=100).plan
    torch.testing.assert_close(plan[:7, :5], sinkhorn(cost, a, b, epsilon=0.05, iterations=100).plan)
    assert plan[7:].abs().max() < 1e-30
    assert plan[:, 5].abs().max() < 1e-30
    gradients = torch.autograd.grad((plan * padded_cost).sum(), [padded_cost, padded_a, padded_b])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_single_precision_survives_costs_where_the_plain_iteration_underflows() -> None:
    cost, a, b = problem(3)
    cost = cost * 1e4  # px²; cost / epsilon reaches 1e4, and exp(-1e4) is 0
    double = sinkhorn(cost, a, b, epsilon=1.0, iterations=300).plan
    single = sinkhorn(cost.float(), a.float(), b.float(), epsilon=1.0, iterations=300).plan
    torch.testing.assert_close(single.double(), double, atol=5e-3, rtol=0)


def test_gradients() -> None:
    cost, a, b = problem(4, 3, 4)
    assert torch.autograd.gradcheck(
        lambda c, x, y: sinkhorn(c, x, y, epsilon=0.2, iterations=20).plan,
        (cost.requires_grad_(), a.requires_grad_(), b.requires_grad_()),
    )
    assert torch.autograd.gradcheck(
        lambda c: sinkhorn_unbalanced(c, a, b, epsilon=0.2, relaxation=0.5, iterations=20).plan, (cost,)
    )


def test_unrolled_gradient_solves_the_optimality_conditions() -> None:
    """Differentiating P 1 = a, Pᵀ 1 = b, log P = (f + g - C) / epsilon gives one linear system for the gradient."""
    (cost, a, b), epsilon = problem(5), 0.3
    cost.requires_grad_()
    plan = sinkhorn(cost, a, b, epsilon=epsilon, iterations=300).plan
    upstream = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (unrolled,) = torch.autograd.grad(plan, cost, upstream)
    P = plan.detach()
    system = torch.cat([torch.cat([torch.diag(a), P], 1), torch.cat([P.mT, torch.diag(b)], 1)])
    weighted = P * upstream
    rhs = torch.cat([weighted.sum(1), weighted.sum(0)])
    u, v = torch.linalg.lstsq(system, rhs[:, None], driver="gelsd").solution[:, 0].split([7, 5])
    torch.testing.assert_close(unrolled, -(weighted - P * (u[:, None] + v)) / epsilon, atol=1e-9, rtol=1e-6)


def test_envelope_theorem() -> None:
    """The gradient of the entropic value by the cost is the plan itself, which is why a detached plan is enough."""
    (cost, a, b), epsilon = problem(6), 0.2
    cost.requires_grad_()
    plan = sinkhorn(cost, a, b, epsilon=epsilon, iterations=500).plan
    value = (plan * cost).sum() + epsilon * (plan * (plan.log() - 1)).sum()
    (gradient,) = torch.autograd.grad(value, cost)
    torch.testing.assert_close(gradient, plan.detach(), atol=1e-9, rtol=1e-6)


@given(seeds, st.sampled_from([1.0, 4.0]), st.integers(1, 40))
def test_solved_plan_is_a_coupling_however_early_it_stops(seed: int, peaked: float, iterations: int) -> None:
    cost, a, b = (x.float() for x in problem(seed, peaked=peaked))
    found = sinkhorn_rounded(cost, a, b, max_iterations=iterations)
    assert (found.plan >= 0).all()
    torch.testing.assert_close(found.plan.sum(-1), a, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.plan.sum(-2), b, atol=1e-6, rtol=1e-5)


@given(seeds)
def test_solved_cost_is_near_the_linear_programme(seed: int) -> None:
    cost, a, b = problem(seed, 20, 20)
    found = sinkhorn_rounded(cost, a, b, max_iterations=2000)
    best = (exact_plan(cost, a, b) * cost).sum()
    assert found.row_error <= 1e-4
    assert best - 1e-12 <= (found.plan * cost).sum() <= best + 0.05 * (cost * a[:, None] * b).sum()


def test_solve_does_not_know_the_unit_of_the_cost() -> None:
    cost, a, b = problem(7)
    torch.testing.assert_close(sinkhorn_rounded(1e4 * cost, a, b).plan, sinkhorn_rounded(cost, a, b).plan)


def test_solve_stops_as_soon_as_every_problem_fits() -> None:
    easy, hard = problem(8, peaked=4.0), problem(12)
    at_once = sinkhorn_rounded(*easy, tolerance=1e-4, max_iterations=10).row_error
    assert at_once < 1e-4
    assert sinkhorn_rounded(*hard, tolerance=1e-4, max_iterations=10).row_error > 0.1
    assert 0 < sinkhorn_rounded(*hard, tolerance=1e-4).row_error <= 1e-4  # not iterated on to the rounding error
    both = (torch.stack(parts) for parts in zip(easy, hard, strict=True))
    assert (sinkhorn_rounded(*both, tolerance=1e-4).row_error <= 1e-4).all()


def test_solve_detaches_and_takes_a_zero_cost() -> None:
    half = torch.full((2,), 0.5)
    found = sinkhorn_rounded(torch.zeros(2, 2, requires_grad=True), half, half)
    assert not found.plan.requires_grad
    torch.testing.assert_close(found.plan, torch.full((2, 2), 0.25))


def test_rounding_keeps_couplings_and_repairs_others() -> None:
    _, a, b = problem(10)
    coupling = a[:, None] * b
    torch.testing.assert_close(round_to_coupling(coupling, a, b), coupling)
    broken = coupling.clone()
    broken[2] = 0.0
    broken[:, 1] *= 3.0
    repaired = round_to_coupling(broken, a, b)
    torch.testing.assert_close(repaired.sum(-1), a)
    torch.testing.assert_close(repaired.sum(-2), b)


def test_errors() -> None:
    cost, a, b = problem(0)
    for call in (
        lambda: sinkhorn(cost, a, b, epsilon=0.0, iterations=1),
        lambda: sinkhorn(cost, a, b, epsilon=1.0, iterations=0),
        lambda: sinkhorn_rounded(cost, a, b, epsilon_relative=-1.0),
        lambda: sinkhorn_rounded(cost, a, b, max_iterations=0),
        lambda: sinkhorn_rounded(cost, a, b, check_every=0),
    ):
        with pytest.raises(ValueError, match="epsilon > 0 and iterations >= 1"):
            call()
    with pytest.raises(ValueError, match="relaxation"):
        sinkhorn_unbalanced(cost, a, b, epsilon=1.0, relaxation=0.0, iterations=1)
