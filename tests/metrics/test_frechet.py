"""The Frechet distance against scipy's matrix root, closed forms and its invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from kg4d.metrics.frechet import covariance_rank, frechet_distance, sample_warning


def samples(count: int, dimensions: int, seed: int) -> torch.Tensor:
    """Correlated Gaussian features with a mean of their own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64) / dimensions**0.5
    noise = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
    return noise @ mixing + torch.randn(dimensions, generator=generator, dtype=torch.float64)


def by_sqrtm(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.numpy(), b.numpy()
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)


@pytest.mark.parametrize(
    ("count_a", "count_b", "dimensions"), [(60, 80, 12), (4, 4, 12), (4, 80, 12), (80, 4, 12), (13, 13, 12), (9, 7, 1)]
)
def test_matches_the_matrix_square_root(count_a: int, count_b: int, dimensions: int) -> None:
    a, b = samples(count_a, dimensions, 0), samples(count_b, dimensions, 1)
    assert frechet_distance(a, b).item() == pytest.approx(by_sqrtm(a, b), rel=1e-5)


@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_scaled_and_shifted_copies_have_a_closed_form(scale: float, shift: float) -> None:
    a = samples(6, 9, 2)
    centred = a - a.mean(0)
    variance = centred.square().sum().item() / 5
    b = a.mean(0) + scale * centred + shift
    assert frechet_distance(a, b).item() == pytest.approx(
        9 * shift**2 + (1 - scale) ** 2 * variance, rel=1e-9, abs=1e-9
    )


def test_independent_axes_add_up() -> None:
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    a, b = corners * torch.tensor([1.0, 2.0]), corners * torch.tensor([3.0, 7.0]) + torch.tensor([1.0, -2.0])
    assert frechet_distance(a, b).item() == pytest.approx(1 + 4 + (4 / 3) * ((1 - 3) ** 2 + (2 - 7) ** 2))


@given(seed=st.integers(0, 100), count=st.integers(2, 30))
def test_order_does_not_matter_sides_neither_and_equals_are_zero(seed: int, count: int) -> None:
    a, b = samples(count, 8, seed), samples(count + 3, 8, seed + 1)
    shuffled = b[torch.randperm(count + 3, generator=torch.Generator().manual_seed(seed))]
    distance = frechet_distance(a, b).item()
    assert distance >= 0
    assert frechet_distance(a, shuffled).item() == pytest.approx(distance, rel=1e-8, abs=1e-9)
    assert frechet_distance(b, a).item() == pytest.approx(distance, rel=1e-8, abs=1e-9)
    assert frechet_distance(a, a.flip(0)).item() == pytest.approx(0, abs=1e-9)


def test_rotations_of_the_feature_space_do_not_matter() -> None:
    rotation = torch.linalg.qr(samples(10, 10, 5)).Q
    a, b = samples(6, 10, 3), samples(40, 10, 4)
    assert frechet_distance(a @ rotation, b @ rotation).item() == pytest.approx(frechet_distance(a, b).item())


def test_duplicating_all_samples_changes_only_the_unbiasing() -> None:
    a, b = samples(5, 8, 6), samples(5, 8, 7)
    mean = (a.mean(0) - b.mean(0)).square().sum().item()
    spread = frechet_distance(a, b).item() - mean
    doubled = frechet_distance(a.repeat(2, 1), b.repeat(2, 1)).item() - mean
    assert doubled == pytest.approx(spread * (10 / 9) / (5 / 4))


def test_float32_features_are_measured_in_float64() -> None:
    a, b = samples(20, 8, 0).float(), samples(20, 8, 1).float()
    result = frechet_distance(a, b)
    assert result.dtype == torch.float64
    assert result == frechet_distance(a.double(), b.double())


def test_one_sample_or_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples a side, got 1 and 3"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(torch.full((2, 4), torch.nan), torch.zeros(3, 4))


@pytest.mark.parametrize(("count", "dimensions", "rank"), [(2, 9, 1), (7, 9, 6), (30, 9, 9)])
def test_rank_is_bounded_by_samples_and_dimensions(count: int, dimensions: int, rank: int) -> None:
    features = samples(count, dimensions, 0).float()
    assert covariance_rank(features) == covariance_rank(features + 100) == rank
    assert covariance_rank(features.repeat(5, 1)) == rank


def test_few_samples_are_named() -> None:
    assert "rank 399 at most" in sample_warning(400, 400)
    assert sample_warning(401, 400) is None
