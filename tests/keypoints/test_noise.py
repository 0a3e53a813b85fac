import math

import pytest
import torch

from kg4d.keypoints.noise import jitter, robust_deviation


def test_the_deviation_is_that_of_a_coordinate_even_among_outliers() -> None:
    errors = 3.0 * torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    assert robust_deviation(errors.norm(dim=-1), torch.ones(40_000)) == pytest.approx(3.0, rel=0.02)
    errors[:4_000] = 500.0
    assert robust_deviation(errors.norm(dim=-1), torch.ones(40_000)) == pytest.approx(3.0, rel=0.12)


def test_positions_count_by_their_confidence() -> None:
    generator = torch.Generator().manual_seed(0)
    good, poor = (scale * torch.randn(2_000, 2, generator=generator) for scale in (1.0, 20.0))
    errors = torch.cat([good, poor]).norm(dim=-1)
    assert robust_deviation(errors, torch.cat([torch.ones(2_000), torch.zeros(2_000)])) == pytest.approx(1.0, rel=0.05)
    assert robust_deviation(errors, torch.cat([torch.ones(2_000), torch.full((2_000,), 0.1)])) < 1.3
    assert robust_deviation(errors, torch.ones(4_000)) > 2.0


def test_without_positions_there_is_no_deviation() -> None:
    assert robust_deviation(torch.zeros(0), torch.zeros(0)) == 0.0
    assert robust_deviation(torch.ones(2), torch.zeros(2)) == 0.0


def test_jitter_is_the_noise_and_not_what_changes_slowly() -> None:
    noise = 3.0 * torch.randn(50, 400, 2, generator=torch.Generator().manual_seed(0))
    drift = torch.linspace(0, 40, 50)[:, None, None] * torch.tensor([1.0, -2.0])
    weights = torch.ones(50, 400)
    assert jitter(noise + drift, weights) == pytest.approx(3.0, rel=0.03)
    assert jitter(drift.expand(50, 400, 2), weights) < 1e-5
    noise[:, :40] = 500.0 * torch.randn(50, 40, 2, generator=torch.Generator().manual_seed(1))
    assert jitter(noise + drift, weights) == pytest.approx(3.0, rel=0.12)


def test_jitter_reads_only_what_is_known_in_three_consecutive_frames() -> None:
    offsets, weights = torch.randn(9, 5, 2, generator=torch.Generator().manual_seed(0)), torch.ones(9, 5)
    weights[4] = 0
    want = jitter(offsets, weights)
    offsets[4] = math.nan
    assert jitter(offsets, weights) == want
    assert want == pytest.approx(jitter(torch.cat([offsets[:4], offsets[5:]], 1), torch.ones(4, 10)))
    lengths = offsets[:2].norm(dim=-1).flatten()
    assert jitter(offsets[:2], weights[:2]) == robust_deviation(lengths, torch.ones(10))  # too short
    assert jitter(offsets[:, :0], weights[:, :0]) == 0.0
