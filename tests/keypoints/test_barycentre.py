import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.keypoints.barycentre import assignment, barycentre, compactness, seed_logits, seed_logits_from_view


def cloud(seed: int = 0, count: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5


def random_logits(seed: int, count: int = 40, keypoints: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(count, keypoints, dtype=torch.float64, generator=g)


@given(st.integers(0, 2**31))
def test_assignment_columns_are_distributions_and_the_point_follows_any_affine_map(seed: int) -> None:
    weights, means = assignment(random_logits(seed), 0.1), cloud(seed)
    torch.testing.assert_close(weights.sum(0), torch.ones(3).double())
    linear = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    moved = barycentre(weights, means @ linear.mT + 0.7)
    torch.testing.assert_close(moved, barycentre(weights, means) @ linear.mT + 0.7)


def test_one_hot_assignment_reads_one_gaussian_at_every_time() -> None:
    logits = torch.full((40, 2), -10.0, dtype=torch.float64)
    logits[7, 0] = logits[11, 1] = 10.0
    means = torch.stack([cloud(0), cloud(1)])
    torch.testing.assert_close(barycentre(assignment(logits, 0.1), means), means[:, [7, 11]])


def test_compactness_is_the_mean_variance() -> None:
    """Two Gaussians with equal weight at distance 2 have variance 1; a single one has none."""
    means = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    weights = torch.tensor([[0.5, 1.0], [0.5, 0.0]])
    assert compactness(weights, means).item() == pytest.approx(0.5)


def test_compactness_moves_logits_only() -> None:
    logits, means = random_logits(0).requires_grad_(), cloud().requires_grad_()
    compactness(assignment(logits, 0.1), means).backward()
    assert means.grad is None
    assert torch.autograd.gradcheck(lambda x: compactness(assignment(x, 0.1), means), (logits,))


def test_seed_puts_the_keypoint_where_it_was_asked_for() -> None:
    axis = torch.linspace(-0.5, 0.5, 21, dtype=torch.float64)
    means = torch.cartesian_prod(axis, axis, axis)
    wanted = torch.tensor([[0.11, 0.2, -0.12], [-0.2, 0.03, 0.19]], dtype=torch.float64)
    weights = assignment(seed_logits(means, wanted, temperature=0.1), 0.1)
    torch.testing.assert_close(barycentre(weights, means), wanted, atol=1e-6, rtol=0)
    spread = compactness(weights, means).item()  # a Gaussian window over a uniform cloud has variance sigma² per axis
    assert spread == pytest.approx(3 * 0.05**2, rel=1e-4)


def test_seed_values_and_floor() -> None:
    means = torch.tensor([[0.0, 0, 0], [0.05, 0, 0], [9.0, 0, 0]])
    logits = seed_logits(means, torch.zeros(1, 3), temperature=0.1)
    torch.testing.assert_close(logits[:, 0], torch.tensor([0.0, -0.05, -4.0]))


def test_unknown_seed_keypoints_are_uniform() -> None:
    unknown = torch.tensor([[torch.nan, torch.nan, torch.nan], [0.0, 0.0, 0.0]])
    logits = seed_logits(cloud().float(), unknown, temperature=0.1)
    assert (logits[:, 0] == 0).all()
    assert logits.isfinite().all()


def test_view_seed_prefers_the_frontmost_gaussian_near_the_keypoint() -> None:
    pixels = torch.tensor([[50.0, 50.0], [50.0, 50.0], [55.0, 50.0], [90.0, 10.0]])
    frontmost = torch.tensor([True, False, True, True])
    keypoints = torch.tensor([[50.0, 50.0], [torch.nan, torch.nan]])
    logits = seed_logits_from_view(pixels, frontmost, keypoints, image_size=100)
    torch.testing.assert_close(logits[:, 0], torch.tensor([0.0, -4.0, -0.5, -4.0]))
    assert (logits[:, 1] == -4.0).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="temperature"):
        assignment(torch.zeros(3, 2), 0.0)
