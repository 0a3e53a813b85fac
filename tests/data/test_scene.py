from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.data.records import Flow, Scene
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from tests.compare import assert_same


def test_what_was_written_is_loaded(tiny_scene: Scene, folder: Path):
    loaded = load_scene(folder)
    assert_same(loaded, tiny_scene, atol=2e-6)
    assert torch.equal(loaded.reference.images, tiny_scene.reference.images)


@pytest.mark.parametrize("part", ["ring", "keypoints", "flow", "test"])
def test_optional_parts_may_be_missing(tiny_scene: Scene, tmp_path: Path, part: str):
    scene = replace(tiny_scene, **{part: None})
    if part == "ring":
        scene = replace(scene, keypoints=replace(scene.keypoints, ring_uv=None, ring_weights=None))
    if part == "test":
        scene = replace(scene, keypoints=replace(scene.keypoints, test_uv=None, test_visible=None))
    write_scene(scene, tmp_path / "tiny")
    assert_same(load_scene(tmp_path / "tiny"), scene, atol=2e-6)


def test_confidences_survive(tiny_scene: Scene, tmp_path: Path):
    soft = replace(tiny_scene.keypoints, weights=tiny_scene.keypoints.weights * 0.25)
    flow = replace(tiny_scene.flow, weights=tiny_scene.flow.weights * 0.5)
    scene = replace(tiny_scene, keypoints=soft, flow=flow)
    write_scene(scene, tmp_path / "tiny")
    assert_same(load_scene(tmp_path / "tiny"), scene, atol=2e-6)


def test_an_existing_folder_is_not_touched(tiny_scene: Scene, folder: Path):
    with pytest.raises(InputError, match="exists already"):
        write_scene(tiny_scene, folder)
    assert_same(load_scene(folder), tiny_scene, atol=2e-6)


def test_a_failed_write_leaves_nothing(tiny_scene: Scene, tmp_path: Path):
    broken = replace(tiny_scene, keypoints=replace(tiny_scene.keypoints, parents=(2**40, 0, 0)))
    with pytest.raises(OverflowError):
        write_scene(broken, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [8, 16, 40])
def test_loading_at_a_size_is_loading_and_resizing(folder: Path, size: int):
    assert_same(load_scene(folder, size), load_scene(folder).resized(size), atol=1e-5)


@pytest.mark.parametrize("size", [8, 40])
def test_resizing_keeps_keypoints_where_the_cameras_see_them(tiny_scene: Scene, size: int):
    scene = tiny_scene.resized(size)
    assert scene.reference.images.shape[1:] == (size, size, 4)
    assert scene.ring.images.shape[1:] == scene.test.images.shape[1:] == (size, size, 4)
    keypoints = scene.keypoints
    assert (scene.ring.cameras.width, scene.ring.cameras.height) == (size, size)
    assert torch.allclose(scene.ring.cameras.project(keypoints.truth[0]).pixels, keypoints.ring_uv, atol=1e-4)
    for frame in range(len(scene.reference)):
        seen = scene.reference.cameras[frame].project(keypoints.truth[frame]).pixels[0]
        assert torch.allclose(seen, keypoints.uv[frame], atol=1e-4)
        seen = scene.test.cameras[frame].project(keypoints.truth[frame]).pixels[0]
        assert torch.allclose(seen, keypoints.test_uv[0, frame], atol=1e-4)


def test_resizing_scales_flow_and_ignores_what_has_no_weight():
    flow = torch.full((1, 12, 12, 2), 99.0)
    weights = torch.zeros(1, 12, 12)
    flow[:, :, :5], weights[:, :, :5] = torch.tensor([2.0, -4.0]), 1.0
    resized = Flow(flow, weights).resized(6)
    known = resized.weights > 0
    assert known.any()
    assert not known.all()
    assert torch.allclose(resized.flow[known], torch.tensor([1.0, -2.0]), atol=1e-4)
    assert resized.weights.max() <= 1


def test_compositing(tiny_scene: Scene):
    background = torch.tensor([0.2, 0.4, 0.6])
    on = tiny_scene.reference.composited(background)
    clear, solid = tiny_scene.reference.alphas[..., 0] == 0, tiny_scene.reference.alphas[..., 0] == 1
    assert torch.equal(on[clear], background.expand_as(on[clear]))
    assert torch.equal(on[solid], tiny_scene.reference.images[solid][:, :3])


def test_picking_images_keeps_everything_together(tiny_scene: Scene):
    chosen = tiny_scene.test[torch.tensor([5, 0])]
    assert chosen.views.tolist() == [2, 1]
    assert chosen.frames.tolist() == [1, 0]
    assert torch.equal(chosen.images[1], tiny_scene.test.images[0])
    assert torch.equal(chosen.cameras.viewmats[0], tiny_scene.test.cameras.viewmats[5])
    assert len(chosen) == len(chosen.cameras) == 2
