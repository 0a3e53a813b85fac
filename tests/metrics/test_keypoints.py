"""PCK and 3D error on configurations whose answer is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.metrics.keypoints import box_sizes, keypoint_error_3d, pck


def shifted(offsets: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One image, keypoints off by the given distances in px along a 3-4-5 direction."""
    target = torch.arange(2.0 * len(offsets)).reshape(1, -1, 2)
    return target + torch.tensor(offsets)[None, :, None] * torch.tensor([0.6, 0.8]), target


def test_pck_counts_the_share_within_the_limit() -> None:
    pred, target = shifted([0.0, 1.9, 2.1, 50.0])
    visible = torch.ones(1, 4, dtype=torch.bool)
    assert pck(pred, target, visible, torch.tensor([40.0]), 0.05).item() == 0.5


def test_hidden_keypoints_and_images_without_a_box_do_not_count() -> None:
    pred, target = shifted([0.0, 50.0])
    visible = torch.tensor([[True, False], [True, True]])
    sizes = torch.tensor([40.0, 0.0])
    assert pck(pred.expand(2, 2, 2), target.expand(2, 2, 2), visible, sizes).item() == 1.0


def test_pck_of_nothing_is_nan() -> None:
    pred, target = shifted([0.0])
    assert math.isnan(pck(pred, target, torch.zeros(1, 1, dtype=torch.bool), torch.tensor([40.0])).item())


@given(scale=st.floats(0.1, 10), threshold=st.floats(0.01, 0.5))
def test_pck_does_not_depend_on_the_image_size(scale: float, threshold: float) -> None:
    pred, target = shifted([0.0, 1.37, 2.93, 7.71, 50.0])
    visible = torch.ones(1, 5, dtype=torch.bool)
    plain = pck(pred.double(), target.double(), visible, torch.tensor([41.3]).double(), threshold)
    scaled = pck(
        pred.double() * scale, target.double() * scale, visible, torch.tensor([41.3]).double() * scale, threshold
    )
    assert plain == scaled


def test_threshold_must_be_positive() -> None:
    pred, target = shifted([0.0])
    with pytest.raises(ValueError, match="threshold > 0"):
        pck(pred, target, torch.ones(1, 1, dtype=torch.bool), torch.tensor([40.0]), 0.0)


def test_box_is_the_longer_side_of_the_solid_pixels() -> None:
    alpha = torch.zeros(2, 10, 12, 1)
    alpha[0, 2:9, 3:5] = 0.6
    alpha[0, 0, 11] = 0.4  # too thin to count
    assert box_sizes(alpha).tolist() == [7.0, 0.0]
    assert box_sizes(alpha.transpose(1, 2)).tolist() == [7.0, 0.0]


def test_3d_error_is_the_mean_distance() -> None:
    target = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    pred = target.clone()
    pred[:, 0] += torch.tensor([0.0, 0.3, 0.4])
    assert keypoint_error_3d(pred, target).item() == pytest.approx(0.5 / 3, rel=1e-5)
