import builtins
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.ot.plans import transport_plan
from kg4d.ot.settings import PlanConfig, PlanSolver


def problem(seed: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 5, 2, generator=g), torch.randn(count, 6, 2, generator=g)
    a, b = torch.rand(count, 5, generator=g).softmax(-1), torch.rand(count, 6, generator=g).softmax(-1)
    a[:, -1] = 0  # padding
    return torch.cdist(x, y).square(), a / a.sum(-1, keepdim=True), b


@given(st.integers(0, 2**31), st.sampled_from([PlanSolver.SINKHORN, PlanSolver.EXACT]))
def test_balanced_plans_are_couplings(seed: int, solver: PlanSolver) -> None:
    cost, a, b = problem(seed)
    plan = transport_plan(cost, a, b, PlanConfig(solver))
    torch.testing.assert_close(plan.sum(-1), a, atol=1e-5, rtol=0)
    torch.testing.assert_close(plan.sum(-2), b, atol=1e-5, rtol=0)
    assert (plan[:, -1] < 1e-6).all()


@given(st.integers(0, 2**31))
def test_no_plan_is_cheaper_than_the_exact_one_and_a_weak_entropy_comes_near(seed: int) -> None:
    cost, a, b = problem(seed)
    prices = {
        name: (cost * transport_plan(cost, a, b, config)).sum((-2, -1))
        for name, config in {
            "exact": PlanConfig(PlanSolver.EXACT),
            "near": PlanConfig(epsilon=0.01, iterations=3000),
            "far": PlanConfig(epsilon=1.0),
        }.items()
    }
    assert (prices["exact"] <= prices["near"] + 1e-5).all()
    assert (prices["near"] <= prices["far"] + 1e-5).all()
    torch.testing.assert_close(prices["near"], prices["exact"], rtol=0.05, atol=1e-3)


def test_dear_missing_mass_is_the_balanced_problem_and_cheap_leaves_the_far_point_alone() -> None:
    cost = torch.tensor([[[0.0, 9.0], [1.0, 8.0]]])  # the second target is far from everything
    half = torch.full((1, 2), 0.5)
    dear = transport_plan(cost, half, half, PlanConfig(PlanSolver.UNBALANCED, relaxation=1e4))
    balanced = transport_plan(cost, half, half, PlanConfig(iterations=3000))
    torch.testing.assert_close(dear, balanced, atol=2e-3, rtol=0)
    cheap = transport_plan(cost, half, half, PlanConfig(PlanSolver.UNBALANCED, relaxation=0.05))
    assert float(cheap.sum()) == pytest.approx(1.0, abs=1e-5)
    assert cheap[0, :, 1].sum() < 0.01


@pytest.mark.parametrize("solver", list(PlanSolver))
def test_absent_problems_have_no_plan_and_no_plan_has_a_gradient(solver: PlanSolver) -> None:
    cost, a, b = problem(0)
    plan = transport_plan(cost.requires_grad_(), a * torch.tensor([[1.0], [0.0], [1.0]]), b, PlanConfig(solver))
    assert not plan.requires_grad
    assert plan.isfinite().all()
    assert plan[1].abs().sum() == 0
    assert (plan[[0, 2]].sum((-2, -1)) - 1).abs().max() < 1e-4


def test_without_pot_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "ot":
            raise ImportError(name)
        return load(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"kg4d\[exact\]"):
        transport_plan(*problem(0), PlanConfig(PlanSolver.EXACT))


@pytest.mark.parametrize("bad", [PlanConfig(epsilon=0.0), PlanConfig(iterations=0)])
def test_wrong_settings_are_refused(bad: PlanConfig) -> None:
    with pytest.raises(ValueError, match="need"):
        transport_plan(*problem(0), bad)
