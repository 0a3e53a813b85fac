"""Positions that a detector found frame by frame, beside how the picture moves: a textured disc, 2 px a frame."""

import pytest
import torch

from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.fusing import fused
from tests.priors.clips import moving

FRAMES = 6
START = torch.tensor([[48.0, 48.0], [40.0, 52.0], [55.0, 40.0], [50.0, 60.0], [30.0, 48.0], [62.0, 50.0]])


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return moving(FRAMES)


def positions() -> torch.Tensor:
    """The first is the middle of the disc, which also turns: the others move with it on the whole."""
    return START + torch.arange(FRAMES)[:, None, None] * torch.tensor([2.0, 0.0])


def test_jitter_is_taken_out_and_the_mean_place_stays(video: torch.Tensor) -> None:
    true = positions()
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    found = fused(KeypointTracks(true + noise, torch.ones(FRAMES, 6)), video)
    before, after = (noise - noise.mean(0))[:, 0], (found.uv - true)[:, 0] - (found.uv - true)[:, 0].mean(0)
    assert after.norm(dim=-1).mean() < 0.5 * before.norm(dim=-1).mean()
    assert (found.uv - true - noise).mean(0).norm(dim=-1).max() < 1
    assert found.weights.min() > 0.3


def test_a_position_that_contradicts_the_motion_is_moved_back_and_loses_its_weight(video: torch.Tensor) -> None:
    true = positions()
    wrong = true.clone()
    wrong[3, 0, 1] += 8.0
    found = fused(KeypointTracks(wrong, torch.ones(FRAMES, 6)), video)
    assert float((found.uv - true)[3, 0].norm()) < 2
    assert float(found.weights[3, 0]) < 0.3
    assert float(found.weights[2, 0]) > 0.8
    assert float(found.weights[3, 1]) > 0.8


def test_frames_without_a_detection_and_a_single_frame_stay(video: torch.Tensor) -> None:
    true = positions()
    weights = torch.ones(FRAMES, 6)
    weights[2] = 0
    lost = true.clone()
    lost[2] = 0
    found = fused(KeypointTracks(lost, weights), video)
    assert (found.weights[2] == 0).all()
    assert found.uv.isfinite().all()
    assert (found.uv - true)[[0, 1, 3, 4, 5]].norm(dim=-1).max() < 1.5
    alone = KeypointTracks(true[:1], weights[:1])
    assert fused(alone, video[:1]) is alone
