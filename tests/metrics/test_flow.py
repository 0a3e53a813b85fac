"""End-point error and flicker on motions that are known exactly."""

import math

import pytest
import torch

from kg4d.metrics.flow import flicker, flow_epe


def test_epe_counts_weighted_pixels_only() -> None:
    target = torch.zeros(2, 4, 4, 2)
    pred = torch.full_like(target, 100.0)
    weights = torch.zeros(2, 4, 4)
    weights[0, 1, 2], weights[1, 3, 3] = 1.0, 0.2
    pred[0, 1, 2] = torch.tensor([3.0, 4.0])
    pred[1, 3, 3] = torch.tensor([0.0, 1.0])
    assert flow_epe(pred, target, weights).item() == pytest.approx(3.0)


def test_epe_without_known_pixels_is_nan() -> None:
    assert math.isnan(flow_epe(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2)).item())


def moving_pattern(frames: int = 4, size: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random texture that moves by (2, 1) px a frame; the points that stay in the image count."""
    texture = torch.rand(3, size + frames, size + 2 * frames, generator=torch.Generator().manual_seed(0))
    video = torch.stack(
        [texture[:, frames - t : frames - t + size, 2 * (frames - t) : 2 * (frames - t) + size] for t in range(frames)]
    )
    flow = torch.tensor([2.0, 1.0]).expand(frames - 1, size, size, 2)
    weights = torch.zeros(frames - 1, size, size)
    weights[:, :-1, :-2] = 1
    return video, flow, weights


def test_flicker_is_zero_along_the_true_motion() -> None:
    video, flow, weights = moving_pattern()
    assert flicker(video, flow, weights).max().item() < 1e-5
    assert flicker(video, torch.zeros_like(flow), weights).min().item() > 0.2


def test_flicker_of_a_brightness_step_is_its_height() -> None:
    video, flow, weights = moving_pattern()
    video = video * 0.5
    video[2] += 0.25
    assert flicker(video, flow, weights).tolist() == pytest.approx([0.0, 0.25, 0.25], abs=1e-5)


def test_flicker_leaves_hidden_points_out() -> None:
    video, flow, weights = moving_pattern()
    weights[1] = 0
    values = flicker(video, flow, weights)
    assert values.isnan().tolist() == [False, True, False]
