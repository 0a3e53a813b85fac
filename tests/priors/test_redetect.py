"""Keypoints and flow of a scene folder, detected again: a textured disc that moves to the right, seen all around."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.errors import InputError
from kg4d.priors import redetect
from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.settings import KeypointsKind, PointTrackingConfig, TrackerKind
from kg4d.priors.redetect import redetected
from kg4d.priors.settings import FlowConfig, FlowKind, PriorsConfig
from tests import make
from tests.priors.clips import moving
from tests.priors.textures import SIZE, PatchFeatures

FRAMES = 3
START = torch.tensor([[48.0, 48.0], [40.0, 52.0], [55.0, 40.0]])


def posed(images: torch.Tensor, azimuths: list[float], video: bool) -> PosedImages:
    count = torch.arange(len(images))
    cameras = make.cameras(azimuths, size=SIZE)
    still = torch.zeros_like(count)
    return PosedImages(
        cameras, images, count / len(images) * video, count if video else still, still if video else count
    )


@pytest.fixture
def scene() -> Scene:
    """The ring is out of order, and its second view is the first frame; the third keypoint is hidden there."""
    video = moving(FRAMES)
    keypoints = Keypoints(
        names=("a", "b", "c"),
        parents=(-1, 0, 0),
        uv=START.expand(FRAMES, 3, 2)
        + 99.0 * (torch.arange(FRAMES) > 0)[:, None, None],  # later ones are not looked at
        weights=torch.tensor([1.0, 1.0, 0.0]).expand(FRAMES, 3),
        truth=torch.zeros(FRAMES, 3, 3),
    )
    ring = posed(torch.stack([video[1], video[0], video[2]]), [30.0, 0.0, 330.0], video=False)
    flow = Flow(torch.full((FRAMES - 1, SIZE, SIZE, 2), 7.0), torch.ones(FRAMES - 1, SIZE, SIZE))
    return Scene("disc", posed(video, [0.0] * FRAMES, video=True), ring, keypoints, flow)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PriorsConfig:
    monkeypatch.setattr("kg4d.priors.keypoints.point_tracking.build_features", lambda *_: PatchFeatures())
    monkeypatch.setattr("kg4d.priors.build.build_features", lambda *_: PatchFeatures())
    monkeypatch.setattr(redetect, "build_features", lambda *_: PatchFeatures())
    return PriorsConfig(cache=str(tmp_path), progress_bar=False)


def test_keypoints_are_followed_from_the_first_frame_and_flow_is_estimated(scene: Scene, config: PriorsConfig) -> None:
    found = redetected(scene, config)
    assert found.keypoints is not None
    assert found.flow is not None
    assert torch.equal(found.keypoints.uv[0], START)
    on_disc = START[:2] + torch.tensor([2.0, 0.0])  # its middle moved 2 px to the right, and it rotated a little
    assert (found.keypoints.uv[1, :2] - on_disc).norm(dim=-1).max() < 3
    assert found.keypoints.weights[:, :2].min() > 0.5
    assert (found.keypoints.weights[:, 2] == 0).all()  # nobody could mark what the first frame hides
    assert found.keypoints.truth is not None
    middle = found.flow.flow[0, 44:52, 44:52]
    assert (middle - torch.tensor([2.0, 0.0])).norm(dim=-1).max() < 1
    assert set(found.cache_keys) == {"tracks-chain", "transfer-chain", "flow-dis"}


def test_the_ring_is_walked_by_azimuth_and_its_view_of_the_first_frame_is_exact(
    scene: Scene, config: PriorsConfig
) -> None:
    assert scene.ring is not None
    keypoints = redetected(scene, config).keypoints
    assert keypoints is not None
    assert keypoints.ring_uv is not None
    assert keypoints.ring_weights is not None
    assert torch.equal(keypoints.ring_uv[1, :2], START[:2])
    assert (keypoints.ring_weights[1, :2] > 0.5).all()
    assert (keypoints.ring_weights[[0, 2], :2] <= 0.1).all()  # less exact than what was marked
    assert (keypoints.ring_weights[:, 2] == 0).all()
    order = torch.tensor([1, 0, 2])
    sorted_ring = replace(scene, ring=replace(scene.ring[order], views=torch.arange(3)))
    again = redetected(sorted_ring, config).keypoints
    assert again is not None
    assert again.ring_uv is not None
    torch.testing.assert_close(again.ring_uv, keypoints.ring_uv[order])


def test_without_features_tracks_are_klt_and_the_ring_has_no_keypoints(
    scene: Scene, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> None:
        raise InputError("features", "the weights are missing", "fetch them")

    monkeypatch.setattr("kg4d.priors.build.build_features", missing)
    monkeypatch.setattr(redetect, "build_features", missing)
    found = redetected(scene, config)
    assert found.keypoints is not None
    assert found.keypoints.ring_uv is None
    assert "tracks-klt" in found.cache_keys


def test_a_scene_without_a_ring_and_without_flow(scene: Scene, config: PriorsConfig) -> None:
    config = replace(config, tracking=PointTrackingConfig(kind=TrackerKind.KLT), flow=FlowConfig(kind=FlowKind.NONE))
    found = redetected(replace(scene, ring=None), config)
    assert found.flow is None
    assert set(found.cache_keys) == {"tracks-klt"}


def test_nothing_to_start_from_and_files_are_refused(scene: Scene, config: PriorsConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detections\.source"):
        redetected(replace(scene, keypoints=None), config)
    (tmp_path / "flow.npz").write_bytes(b"")
    files = replace(config, flow=FlowConfig(kind=FlowKind.FILES, path=str(tmp_path / "flow.npz")))
    with pytest.raises(InputError, match=r"priors\.flow\.kind"):
        redetected(scene, files)


class Dots:
    """A detector of two keypoints and of which way the bone between them leans."""

    name, names, parents = "dots", ("hip", "foot"), (-1, 0)

    def identity(self) -> dict[str, str]:
        return {}

    def __call__(self, images: torch.Tensor) -> KeypointTracks:
        uv = torch.tensor([[40.0, 40.0], [43.0, 44.0]]).expand(len(images), -1, -1)
        return KeypointTracks(uv, torch.ones(len(images), 2), torch.tensor([0.0, 12.0]).expand(len(images), -1))


def test_a_detector_of_people_needs_no_mark(
    scene: Scene, config: PriorsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redetect, "detector_of", lambda _: Dots())
    asked = replace(config, keypoints=replace(config.keypoints, kind=KeypointsKind.BLAZEPOSE))
    found = redetected(replace(scene, keypoints=None), asked).keypoints
    assert found is not None
    assert found.names == ("hip", "foot")
    assert found.leans is not None
    assert found.leans[:, 1] == pytest.approx(torch.full((FRAMES,), 12 / 13), rel=0.01)
    assert found.ring_uv is not None
    assert found.ring_uv.shape == (3, 2, 2)
    assert found.truth is None
