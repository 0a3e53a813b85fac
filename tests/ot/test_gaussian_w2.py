import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from kg4d.ot.gaussian_w2 import gaussian_w2, gaussian_w2_isotropic

seeds = st.integers(0, 2**31)
EYE = torch.eye(2, dtype=torch.float64)


def random_gaussians(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of some px and covariances with axes between 0.5 and 20 px."""
    g = torch.Generator().manual_seed(seed)
    means = 10 * torch.randn(count, 2, generator=g, dtype=torch.float64)
    axes = (torch.rand(count, 2, generator=g, dtype=torch.float64) * 3.7 - 0.7).exp()
    turn = rotation(torch.rand(count, generator=g, dtype=torch.float64) * 3.2)
    return means, turn @ torch.diag_embed(axes.square()) @ turn.mT


def rotation(angle: torch.Tensor) -> torch.Tensor:
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).reshape(*angle.shape, 2, 2)


def w2_by_matrix_roots(m1: np.ndarray, S1: np.ndarray, m2: np.ndarray, S2: np.ndarray) -> float:
    root = sqrtm(S1)
    return float(((m1 - m2) ** 2).sum() + np.trace(S1 + S2 - 2 * np.real(sqrtm(root @ S2 @ root))))


@given(seeds)
def test_equals_the_formula_with_matrix_roots(seed: int) -> None:
    a, b = random_gaussians(seed), random_gaussians(seed + 1)
    expected = [w2_by_matrix_roots(*(x.numpy() for x in row)) for row in zip(*a, *b, strict=True)]
    torch.testing.assert_close(gaussian_w2(*a, *b), torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)


@given(seeds)
def test_equals_pot(seed: int) -> None:
    a, b = random_gaussians(seed, 1), random_gaussians(seed + 1, 1)
    expected = ot.gaussian.bures_wasserstein_distance(a[0][0], b[0][0], a[1][0], b[1][0]) ** 2
    torch.testing.assert_close(gaussian_w2(*a, *b), expected.reshape(1), rtol=1e-9, atol=1e-9)


@given(seeds)
def test_is_a_squared_metric(seed: int) -> None:
    a, b, c = (random_gaussians(seed + i) for i in range(3))
    ab, bc, ac = gaussian_w2(*a, *b), gaussian_w2(*b, *c), gaussian_w2(*a, *c)
    torch.testing.assert_close(ab, gaussian_w2(*b, *a))
    assert (gaussian_w2(*a, *a) == 0).all()
    assert (ac.sqrt() <= ab.sqrt() + bc.sqrt() + 1e-9).all()


@given(seeds, st.floats(-3.0, 3.0), st.floats(0.1, 10.0))
def test_moves_with_the_plane(seed: int, angle: float, scale: float) -> None:
    a, b = random_gaussians(seed), random_gaussians(seed + 1)
    turn = scale * rotation(torch.tensor(angle, dtype=torch.float64))
    moved = [(means @ turn.mT + 5.0, turn @ covs @ turn.mT) for means, covs in (a, b)]
    torch.testing.assert_close(gaussian_w2(*moved[0], *moved[1]), scale**2 * gaussian_w2(*a, *b))


@given(seeds)
def test_commuting_covariances_compare_their_axes(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    axes = torch.rand(2, 5, 2, generator=g, dtype=torch.float64) * 9 + 0.1
    turn = rotation(torch.rand(5, generator=g, dtype=torch.float64))
    covs = turn @ torch.diag_embed(axes.square()) @ turn.mT
    zero = torch.zeros(5, 2, dtype=torch.float64)
    torch.testing.assert_close(gaussian_w2(zero, covs[0], zero, covs[1]), (axes[0] - axes[1]).square().sum(-1))


@given(seeds)
def test_isotropic_form_is_the_distance_between_discs(seed: int) -> None:
    a, b = random_gaussians(seed), random_gaussians(seed + 1)
    discs = [covs.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * EYE for covs in (a[1], b[1])]
    expected = gaussian_w2(a[0], discs[0], b[0], discs[1])
    torch.testing.assert_close(gaussian_w2_isotropic(*a, *b), expected)


def test_isotropic_form_is_blind_to_rotation() -> None:
    zero, flat, tall = torch.zeros(2), torch.diag(torch.tensor([9.0, 1.0])), torch.diag(torch.tensor([1.0, 9.0]))
    assert gaussian_w2(zero, flat, zero, tall).item() == pytest.approx(8.0)
    assert gaussian_w2_isotropic(zero, flat, zero, tall).item() == 0.0


def symmetric(entries: torch.Tensor) -> torch.Tensor:
    """(xx, xy, yy) to a matrix, so that finite differences stay symmetric."""
    return torch.stack([entries[..., 0], entries[..., 1], entries[..., 1], entries[..., 2]], -1).reshape(-1, 2, 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([2.0, 0.3, 1.0], [1.0, -0.4, 3.0]),
        ([2.0, 0.3, 1.0], [2.0, 0.3, 1.0]),  # equal
        ([1.5, 0.0, 1.5], [1.5, 0.0, 1.5]),  # equal and isotropic: an eigendecomposition has no gradient here
        ([1.5, 0.0, 1.5], [0.5, 0.0, 0.5]),
    ],
)
def test_gradients(first: list[float], second: list[float]) -> None:
    means = [torch.tensor([[x, 2.0]], dtype=torch.float64, requires_grad=True) for x in (0.0, 1.0)]
    a, b = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (first, second))
    for distance in (gaussian_w2, gaussian_w2_isotropic):
        assert torch.autograd.gradcheck(
            lambda m, x, n, y, d=distance: d(m, symmetric(x), n, symmetric(y)), (means[0], a, means[1], b)
        )


@pytest.mark.parametrize("entries", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [4.0, 0.0, 0.0], [1e-9, 0.0, 1e-9]])
def test_degenerate_covariances_have_finite_values_and_gradients(entries: list[float]) -> None:
    for other in (entries, [1.0, 0.2, 2.0]):
        a, b = (torch.tensor([x], requires_grad=True) for x in (entries, other))
        zero = torch.zeros(1, 2, requires_grad=True)
        for distance in (gaussian_w2, gaussian_w2_isotropic):
            value = distance(zero, symmetric(a), zero, symmetric(b))
            gradients = torch.autograd.grad(value.sum(), [a, b, zero])
            assert value.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in gradients)


def test_needles_across_each_other_are_finite() -> None:
    """Rank one at a right angle: s² is 0 but for rounding, on either side."""
    angle = torch.linspace(0, 3, 500)
    along, across = (torch.stack([shift.cos(), shift.sin()], dim=-1) for shift in (angle, angle + torch.pi / 2))
    needles = [(100 * axis[..., None] * axis[..., None, :]).requires_grad_() for axis in (along, across)]
    value = gaussian_w2(torch.zeros(2), needles[0], torch.zeros(2), needles[1])
    torch.testing.assert_close(value, torch.full((500,), 200.0), rtol=1e-3, atol=0)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value.sum(), needles))


def test_single_precision_does_not_cancel() -> None:
    """Covariances that differ by 1e-3 of themselves: the trace formula loses all digits, this one few."""
    means, covs = random_gaussians(0, 400)
    near = covs * 1.001
    exact = gaussian_w2(means, covs, means, near)
    single = gaussian_w2(means.float(), covs.float(), means.float(), near.float()).double()
    assert (single >= 0).all()
    assert ((single - exact).abs() / exact).median() < 1e-2


def test_broadcasting_gives_the_cost_matrix() -> None:
    a, b = random_gaussians(0, 3), random_gaussians(1, 5)
    cost = gaussian_w2(a[0][:, None], a[1][:, None], *b)
    assert cost.shape == (3, 5)
    torch.testing.assert_close(cost[2, 4], gaussian_w2(a[0][2], a[1][2], b[0][4], b[1][4]))
