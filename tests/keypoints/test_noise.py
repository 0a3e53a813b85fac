import pytest
import torch

from kg4d.keypoints.noise import deviation


def test_the_deviation_is_that_of_a_coordinate_also_beside_wrong_positions() -> None:
    errors = 3.0 * torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    assert deviation(errors.norm(dim=-1)) == pytest.approx(3.0, rel=0.02)
    errors[:4_000] = 500.0
    assert deviation(errors.norm(dim=-1)) == pytest.approx(3.0, rel=0.12)


def test_without_positions_there_is_no_deviation() -> None:
    assert deviation(torch.zeros(0)) == 0.0
