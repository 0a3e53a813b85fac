import math

import pytest
import torch

from kg4d.optim.build import ParameterGroup, build_optimizer
from kg4d.optim.objective import Objective, check_finite
from kg4d.optim.schedules import exponential, set_learning_rates, warm_cosine
from kg4d.optim.settings import OptimizerConfig


def test_the_total_is_the_weighted_sum_and_the_terms_stay_unweighted() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    objective = Objective(progress=0.5)
    objective.add("a", x, 2.0)
    objective.add("b", x * x, 10.0)
    assert objective.total is not None
    objective.total.backward()
    assert x.grad == 2 + 10 * 2 * 3
    assert {name: float(value) for name, value in objective.terms.items()} == {"a": 3.0, "b": 9.0}


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.9, 1.0)])
def test_a_weight_warms_up_linearly(progress: float, factor: float) -> None:
    x = torch.ones((), requires_grad=True)
    objective = Objective(progress=progress)
    objective.add("a", x, 4.0, warmup=0.1)
    total = torch.zeros(()) if objective.total is None else objective.total
    assert torch.allclose(total, torch.tensor(4.0 * factor))


def test_terms_without_a_gradient_are_only_remembered() -> None:
    objective = Objective(progress=0.0)
    objective.add("a", torch.tensor(1.0), 1.0)
    assert objective.total is None
    assert objective.terms["a"] == 1


def test_divergence_is_named() -> None:
    terms = {"good": torch.tensor(1.0), "kfc": torch.tensor(math.nan)}
    with pytest.raises(FloatingPointError, match=r"step 7 .*kfc"):
        check_finite(torch.tensor(math.nan), terms, [], 7)
    check_finite(torch.tensor(1.0), terms, [], 7)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    parameters = {name: torch.zeros(3, requires_grad=True) for name in ("still", "means", "quats", "scales")}
    for name, bad in {"means": 1.0, "quats": math.nan, "scales": math.inf}.items():
        parameters[name].grad = torch.tensor([0.0, bad, 2.0])
    with pytest.raises(FloatingPointError, match=r"step 7 \(of quats, scales\)"):
        check_finite(torch.tensor(1.0), {}, parameters.items(), 7)
    check_finite(torch.tensor(1.0), {}, [(name, parameters[name]) for name in ("still", "means")], 7)


def test_of_many_bad_gradients_some_are_named() -> None:
    leaf = torch.zeros((), requires_grad=True)
    leaf.grad = torch.tensor(math.nan)
    with pytest.raises(FloatingPointError, match=r"of 0, 1, 2, 3 and 2 more\)"):
        check_finite(torch.tensor(1.0), {}, [(str(index), leaf) for index in range(6)], 0)


def test_opposite_infinities_do_not_cancel_and_large_gradients_pass() -> None:
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    a.grad = torch.tensor([math.inf, -math.inf])
    with pytest.raises(FloatingPointError, match="of a"):
        check_finite(torch.tensor(1.0), {}, [("a", a), ("b", b)], 0)
    a.grad = b.grad = torch.full((2,), 3e38)  # finite, unlike their sum
    check_finite(torch.tensor(1.0), {}, [("a", a), ("b", b)], 0)


def test_schedules_end_where_they_say() -> None:
    assert exponential(0.0, 0.05) == 1.0
    assert exponential(1.0, 0.05) == pytest.approx(0.05)
    assert exponential(0.5, 0.04) == pytest.approx(0.2)
    assert warm_cosine(0.0, 0, 20, 0.05) == pytest.approx(1 / 20)
    assert warm_cosine(1.0, 499, 20, 0.05) == pytest.approx(0.05)
    assert warm_cosine(0.5, 250, 0, 0.0) == pytest.approx(0.5)


def test_each_group_gets_its_own_rate() -> None:
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [ParameterGroup("a", [a], 1.0), ParameterGroup("empty", [], 5.0), ParameterGroup("b", [b], 2.0)]
    optimizer = build_optimizer(OptimizerConfig(), groups)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("a", 1.0), ("b", 2.0)]
    set_learning_rates(optimizer, {"a": 0.5, "b": 0.25})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    set_learning_rates(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


def test_an_optimiser_of_nothing_takes_steps_that_change_nothing() -> None:
    optimizer = build_optimizer(OptimizerConfig(), [ParameterGroup("network", [], 1.0)])
    optimizer.step()
    set_learning_rates(optimizer, 0.5)


def test_residuals_are_the_terms_that_have_a_gradient_and_a_weight() -> None:
    x, objective = torch.ones((), requires_grad=True), Objective(progress=0.5)
    objective.add("a", 2 * x, 3.0)
    objective.add("off", 5 * x, 0.0)
    objective.add("constant", torch.tensor(1.0), 3.0)
    assert set(objective.terms) == {"a", "off", "constant"}
    assert list(objective.residuals) == ["a"]
    assert objective.residuals["a"].weight == 3.0
    assert torch.equal(torch.autograd.grad(objective.residuals["a"].value, x)[0], torch.tensor(2.0))


def test_a_name_stands_for_one_term() -> None:
    objective = Objective(progress=0.0)
    objective.add("a", torch.ones(()), 1.0)
    with pytest.raises(ValueError, match="'a' already"):
        objective.add("a", torch.ones(()), 1.0)
