import pytest
import torch

from kg4d.keypoints.noise import deviation


def test_the_deviation_is_that_of_a_coordinate_also_beside_wrong_positions() -> None:
    errors = 3.0 * torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    assert deviation(errors.norm(dim=-1), torch.ones(40_000)) == pytest.approx(3.0, rel=0.02)
    errors[:4_000] = 500.0
    assert deviation(errors.norm(dim=-1), torch.ones(40_000)) == pytest.approx(3.0, rel=0.12)


def test_positions_count_by_their_confidence() -> None:
    generator = torch.Generator().manual_seed(0)
    good, poor = (scale * torch.randn(2_000, 2, generator=generator) for scale in (1.0, 20.0))
    errors = torch.cat([good, poor]).norm(dim=-1)
    assert deviation(errors, torch.cat([torch.ones(2_000), torch.zeros(2_000)])) == pytest.approx(1.0, rel=0.05)
    assert deviation(errors, torch.cat([torch.ones(2_000), torch.full((2_000,), 0.1)])) < 1.3
    assert deviation(errors, torch.ones(4_000)) > 2.0


def test_without_positions_there_is_no_deviation() -> None:
    assert deviation(torch.zeros(0), torch.zeros(0)) == 0.0
    assert deviation(torch.ones(2), torch.zeros(2)) == 0.0
