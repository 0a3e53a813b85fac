"""Trackers on a textured disc whose motion we choose."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kg4d.errors import InputError
from kg4d.priors.base import KeypointTracker
from kg4d.priors.flow import DisFlow
from kg4d.priors.keypoints.point_tracking import ChainTracker, CoTracker, KltTracker, build_tracker
from kg4d.priors.keypoints.settings import FeaturesConfig, PointTrackingConfig, TrackerKind
from kg4d.priors.settings import FlowConfig
from tests.priors.textures import SIZE, PatchFeatures, moved, picture, rotation

POINTS = torch.tensor([[32.0, 32.0], [22.0, 36.0], [44.0, 26.0], [36.0, 48.0]])  # of the texture


def chain() -> ChainTracker:
    return ChainTracker(PatchFeatures(), DisFlow(FlowConfig()), PointTrackingConfig())


@pytest.fixture(params=["chain", "klt"])
def tracker(request: pytest.FixtureRequest) -> KeypointTracker:
    return chain() if request.param == "chain" else KltTracker(PointTrackingConfig())


def clip(matrices: list[Tensor], translations: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Frames, and where POINTS are in them."""
    frames = [picture(matrix, translation) for matrix, translation in zip(matrices, translations)]
    return torch.stack(frames), torch.stack([moved(POINTS, *motion) for motion in zip(matrices, translations)])


def sliding(frames: int = 6) -> tuple[Tensor, Tensor]:
    return clip([torch.eye(2)] * frames, [torch.tensor([2.5, -1.0]) * t for t in range(frames)])


def test_a_translation_is_followed(tracker: KeypointTracker):
    video, truth = sliding()
    found = tracker(video, truth[0])
    assert (found.uv - truth).norm(dim=-1).max() < 1.5
    assert found.weights.min() > 0.5
    assert torch.equal(found.uv[0], truth[0])


def test_turning_and_stretching_are_followed(tracker: KeypointTracker):
    matrices = [rotation(3.0 * t) @ torch.diag(torch.tensor([1 + 0.02 * t, 1 - 0.01 * t])) for t in range(6)]
    video, truth = clip(matrices, [torch.tensor([0.5, 0.5]) * t for t in range(6)])
    found = tracker(video, truth[0])
    assert (found.uv - truth).norm(dim=-1).max() < 3
    assert found.weights.mean() > 0.6


def test_what_something_covers_has_low_weight():
    video, truth = sliding()
    x, y = (int(value) for value in truth[3, 2])
    video[3:, y - 9 : y + 10, x - 9 : x + 10, :3] = 0.5
    found = chain()(video, truth[0])
    assert found.weights[3:, 2].mean() < 0.5
    assert found.weights[:3, 2].min() > 0.9
    assert found.weights[3:, 1].min() > 0.9


def test_what_comes_back_is_found_again():
    """Lucas-Kanade has lost it; the chain compares with frame 0."""
    video, truth = sliding()
    x, y = (int(value) for value in truth[3, 2])
    video[3, y - 9 : y + 10, x - 9 : x + 10, :3] = 0.5
    found = chain()(video, truth[0])
    assert found.weights[3, 2] < 0.5
    assert found.weights[5, 2] > 0.5
    assert (found.uv[5, 2] - truth[5, 2]).norm() < 2


def test_runs_are_alike(tracker: KeypointTracker):
    video, truth = sliding(3)
    first, second = tracker(video, truth[0]), tracker(video, truth[0])
    assert torch.equal(first.uv, second.uv)
    assert torch.equal(first.weights, second.weights)


def test_a_start_outside_the_image_has_no_weight(tracker: KeypointTracker):
    video, truth = sliding(3)
    start = torch.cat([truth[0, :1], torch.tensor([[-20.0, 300.0]])])
    found = tracker(video, start)
    assert (found.weights[:, 1] == 0).all()
    assert found.weights[:, 0].min() > 0.5
    assert found.uv.isfinite().all()


def test_one_frame(tracker: KeypointTracker):
    video, truth = sliding(1)
    found = tracker(video, truth[0])
    assert torch.equal(found.uv, truth)
    assert found.weights.min() > 0.9


def test_no_keypoints(tracker: KeypointTracker):
    video, _ = sliding(3)
    found = tracker(video, torch.zeros(0, 2))
    assert found.uv.shape == (3, 0, 2)
    assert found.weights.shape == (3, 0)


def test_a_frame_where_the_object_is_gone(tracker: KeypointTracker):
    video, truth = sliding(4)
    video[2] = 0
    found = tracker(video, truth[0])
    assert found.uv.isfinite().all()
    assert found.weights[2].max() < 0.5


def test_identities_name_all_that_matters():
    flow = DisFlow(FlowConfig())
    first = ChainTracker(PatchFeatures(), flow, PointTrackingConfig()).identity()
    assert first["chain_threshold"] == PointTrackingConfig().chain.threshold
    assert first != ChainTracker(PatchFeatures(reach=2), flow, PointTrackingConfig()).identity()
    assert (
        first != ChainTracker(PatchFeatures(), DisFlow(FlowConfig(tolerance_px=3.0)), PointTrackingConfig()).identity()
    )
    assert first != ChainTracker(PatchFeatures(), flow, PointTrackingConfig(spread=0.1)).identity()
    assert KltTracker(PointTrackingConfig()).identity() != KltTracker(PointTrackingConfig(tolerance_px=1.0)).identity()


class Predictor(torch.nn.Module):
    """What CoTracker's predictor takes and gives: pixel centres are whole numbers there."""

    def forward(self, video: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        assert video.shape == (1, 3, 3, SIZE, SIZE)
        assert video.max() > 1
        steps = torch.arange(3.0)[:, None, None]
        return (queries[0, :, 1:] + 40 * steps)[None], torch.ones(1, 3, queries.shape[1], dtype=torch.bool)


def test_cotracker_speaks_our_pixels_and_its_points_may_leave():
    video, truth = sliding(3)
    found = CoTracker(Predictor())(video, truth[0])
    assert torch.allclose(found.uv, truth[0] + 40 * torch.arange(3.0)[:, None, None], atol=1e-4)
    assert torch.equal(found.weights > 0, (found.uv <= SIZE).all(-1))


def test_cotracker_needs_its_weights_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def build(checkpoint: str | None) -> KeypointTracker:
        config = PointTrackingConfig(kind=TrackerKind.COTRACKER, checkpoint=checkpoint)
        return build_tracker(config, FeaturesConfig(), DisFlow(FlowConfig()))

    with pytest.raises(InputError, match=r"scaled_offline\.pth"):
        build(None)
    with pytest.raises(InputError, match="there is no file"):
        build(str(tmp_path / "none.pth"))
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cotracker", None)
    with pytest.raises(InputError, match=r"pip install git\+https"):
        build(str(weights))
    broken = ModuleType("cotracker.predictor")  # it has no CoTrackerPredictor
    monkeypatch.setitem(sys.modules, "cotracker", ModuleType("cotracker"))
    monkeypatch.setitem(sys.modules, "cotracker.predictor", broken)
    with pytest.raises(InputError, match="does not fit CoTracker"):
        build(str(weights))


def test_the_config_chooses():
    built = build_tracker(PointTrackingConfig(kind=TrackerKind.KLT), FeaturesConfig(), DisFlow(FlowConfig()))
    assert isinstance(built, KltTracker)
    with pytest.raises(ValueError, match="tracking: "):
        PointTrackingConfig(spread=0.0)
