"""The real scenes load, and what they say about cameras, keypoints and flow agrees with how we read it."""

from pathlib import Path

import pytest
import torch

from kg4d.data.images import read_image
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.geometry.sampling import pixel_centers, sample_image

pytestmark = pytest.mark.realdata

# scene: keypoints, share of them seen in the reference, and the self-check of the data's README, "flow warp L1 mean"
EXPECTED = {"fox": (14, 0.0143), "cesium_man": (14, 0.0274), "drone": (12, 0.0147)}


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def real(request: pytest.FixtureRequest, data_root: Path) -> Scene:
    return load_scene(data_root / "gltf4d" / request.param)


def test_counts(real: Scene):
    joints, _ = EXPECTED[real.name]
    assert real.reference.images.shape == (16, 256, 256, 4)
    assert real.ring.images.shape == (16, 256, 256, 4)
    assert real.test.images.shape == (64, 256, 256, 4)
    assert real.reference.frames.tolist() == list(range(16))
    assert real.ring.views.tolist() == list(range(16))
    assert real.test.views.tolist() == [view for view in range(1, 5) for _ in range(16)]
    assert real.test.frames.tolist() == list(range(16)) * 4
    assert torch.allclose(real.test.times, torch.linspace(0, 1, 16).repeat(4))
    assert real.keypoints.weights.shape == (16, joints)
    assert real.keypoints.test_uv.shape == (4, 16, joints, 2)
    assert real.flow.flow.shape == (15, 256, 256, 2)
    assert 0.7 < real.keypoints.weights.mean() <= 1
    assert 0.7 < real.keypoints.ring_weights.mean() <= 1


def test_the_truth_reprojects_onto_every_view(real: Scene):
    keypoints = real.keypoints
    errors = [real.ring.cameras.project(keypoints.truth[0]).pixels - keypoints.ring_uv]
    for frame in range(16):
        errors.append(real.reference.cameras[frame].project(keypoints.truth[frame]).pixels[0] - keypoints.uv[frame])
        views = real.test.cameras[torch.arange(4) * 16 + frame]
        errors.append(views.project(keypoints.truth[frame]).pixels - keypoints.test_uv[:, frame])
    assert max(error.norm(dim=-1).max() for error in errors) < 1e-3


def test_reference_is_the_first_view_of_the_ring(real: Scene):
    assert torch.equal(real.reference.images[0], real.ring.images[0])


def test_the_flow_warps_the_video_as_its_makers_measured(real: Scene):
    _, published = EXPECTED[real.name]
    images = real.reference.composited(torch.ones(3))
    target = pixel_centers(256, 256) + real.flow.flow
    seen = real.flow.weights > 0
    differences = [(sample_image(images[t + 1], target[t]) - images[t])[seen[t]].abs().mean(-1) for t in range(15)]
    assert torch.cat(differences).mean() == pytest.approx(published, rel=0.05)


def test_real_images_are_read(data_root: Path):
    paths = sorted((data_root / "inputs" / "images").glob("*.png"))
    assert len(paths) == 4
    for path in paths:
        image = read_image(path)
        assert image.shape[2] == 4
        assert 0 < image[..., 3].mean() < 1
