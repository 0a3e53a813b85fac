import math

import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.ot.offset import wasserstein_offset, wasserstein_offset_closed
from kg4d.ot.sinkhorn import sinkhorn_rounded

seeds = st.integers(0, 2**31)


def sets(seed: int, n: int = 6, m: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights and centres of two mixtures."""
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(k, generator=g, dtype=torch.float64).softmax(0) for k in (n, m))
    x, y = (torch.randn(k, 2, generator=g, dtype=torch.float64) for k in (n, m))
    return a, x, b, y


def plans(seed: int) -> dict[str, torch.Tensor]:
    a, x, b, y = sets(seed)
    cost = torch.cdist(x, y).square()
    senseless = torch.rand(cost.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = {"cheapest": cost, "dearest": cost.max() - cost, "senseless": senseless}
    found = {name: torch.from_numpy(ot.emd(a.numpy(), b.numpy(), c.numpy())) for name, c in exact.items()}
    return found | {"product": a[:, None] * b, "entropic": sinkhorn_rounded(cost, a, b).plan}


@given(seeds)
def test_every_plan_gives_the_same_offset(seed: int) -> None:
    a, x, b, y = sets(seed)
    expected = wasserstein_offset_closed(a, x, b, y)
    for plan in plans(seed).values():
        torch.testing.assert_close(wasserstein_offset(plan, x, y), expected)


def test_the_plans_do_differ() -> None:
    found = list(plans(0).values())
    for i, plan in enumerate(found):
        assert all((plan - other).abs().max() > 1e-3 for other in found[:i])


def test_a_plan_that_misses_its_marginals_gives_another_offset() -> None:
    """What a Sinkhorn iteration that has not converged would contribute is an error."""
    a, x, b, y = sets(0)
    broken = a[:, None] * b
    broken[0] *= 0.5
    wrong = wasserstein_offset(broken / broken.sum(), x, y)
    assert (wrong - wasserstein_offset_closed(a, x, b, y)).norm() > 1e-2


@given(seeds, st.floats(-5.0, 5.0), st.floats(-5.0, 5.0))
def test_a_moved_set_has_moved_by_that(seed: int, dx: float, dy: float) -> None:
    a, x, _, _ = sets(seed)
    step = torch.tensor([dx, dy], dtype=torch.float64)
    torch.testing.assert_close(wasserstein_offset_closed(a, x, a, x + step), step)


@given(seeds)
def test_a_set_that_stands_still_has_no_offset(seed: int) -> None:
    a, x, _, _ = sets(seed)
    assert wasserstein_offset_closed(a, x, a, x).abs().max() == 0


@pytest.mark.parametrize("name", ["collapse", "rotation", "scaling", "reflection"])
def test_blind_to_every_linear_map_about_the_mean(name: str) -> None:
    linear = {
        "collapse": torch.zeros(2, 2),
        "rotation": torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]]),
        "scaling": 3 * torch.eye(2),
        "reflection": -torch.eye(2),
    }[name].double()
    a, x, b, y = sets(1)
    mean = b @ y
    changed = (y - mean) @ linear.mT + mean
    assert (changed - y).abs().max() > 0.1
    expected = wasserstein_offset_closed(a, x, b, y)
    torch.testing.assert_close(wasserstein_offset_closed(a, x, b, changed), expected)


def test_gradient_on_each_centre_is_its_weight_times_one_common_vector() -> None:
    a, x, b, y = sets(2)
    y.requires_grad_()
    plan = plans(2)["cheapest"].requires_grad_()
    target = torch.tensor([0.3, -0.2], dtype=torch.float64)
    loss = (wasserstein_offset(plan, x, y) - target).square().sum()
    by_centre, _ = torch.autograd.grad(loss, [y, plan])
    residual = (wasserstein_offset_closed(a, x, b, y) - target).detach()
    torch.testing.assert_close(by_centre, 2 * b[:, None] * residual)


def test_batches() -> None:
    batch = [torch.stack(parts) for parts in zip(sets(0), sets(1), strict=True)]
    torch.testing.assert_close(wasserstein_offset_closed(*batch)[1], wasserstein_offset_closed(*sets(1)))
    plan = torch.stack([plans(0)["product"], plans(1)["product"]])
    torch.testing.assert_close(wasserstein_offset(plan, batch[1], batch[3]), wasserstein_offset_closed(*batch))
