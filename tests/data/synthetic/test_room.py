import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.data.normalisation import normalisation_of
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.data.studies.world import mirrored, moved
from kg4d.data.synthetic.room import make_room
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers
from kg4d.render.build import build_renderer
from tests.compare import assert_same


@pytest.fixture(scope="module")
def room() -> Scene:
    return make_room(build_renderer("cpu"), size=80, frames=4)


def test_it_is_a_rectangular_video_without_mattes_and_a_second_camera(room: Scene):
    assert room.reference.images.shape == (4, 60, 80, 4)
    assert (room.reference.alphas == 1).all()
    assert room.test is not None
    assert torch.equal(room.test.frames, room.reference.frames)
    apart = (room.test.cameras.centers - room.reference.cameras.centers).norm(dim=-1)
    assert torch.allclose(apart, torch.tensor(0.3), atol=1e-4)
    assert room.backdrop


def test_the_walls_fill_the_images(room: Scene):
    dark = (room.reference.images[..., :3].amax(-1) < 0.02).float().mean()
    assert dark < 0.03


def test_the_mask_is_where_the_character_is(room: Scene):
    mask = room.regions["dynamic"]
    assert mask.shape == (4, 60, 80)
    assert ((mask.float().mean((1, 2)) > 0.05) & (mask.float().mean((1, 2)) < 0.3)).all()
    assert room.test is not None
    still = ~(mask[0] | mask[3])
    moved = (room.test.images[0] - room.test.images[3]).abs().amax(-1)
    assert moved[mask[0] ^ mask[3]].mean() > moved[still].mean() * 0.5


def test_the_mask_covers_the_points_of_the_character_alone(room: Scene):
    assert room.test is not None
    assert room.points is not None
    seen = room.test.cameras[0].project(room.points.points)
    inside = ((seen.pixels[0] > 0) & (seen.pixels[0] < torch.tensor([80.0, 60.0]))).all(-1) & (seen.depths[0] > 0)
    columns, rows = seen.pixels[0][inside].long().unbind(-1)
    masked = room.regions["dynamic"][0][rows, columns].float()
    of_character = (torch.arange(len(room.points.points)) >= 1200)[inside]  # they come last, of frame 0
    assert masked[of_character].mean() > 0.9
    assert masked[~of_character].mean() < 0.25


def test_points_lie_on_what_the_cameras_show(room: Scene):
    assert room.points is not None
    assert room.points.colors is not None
    seen = room.reference.cameras[0].project(room.points.points)
    inside = ((seen.pixels[0] > 1) & (seen.pixels[0] < torch.tensor([79.0, 59.0]))).all(-1) & (seen.depths[0] > 0)
    assert inside.float().mean() > 0.2
    places = normalisation_of(room).scene(room)
    assert places.points is not None
    assert float(places.points.points.norm(dim=-1).median()) < 1


def test_it_is_written_and_read_as_a_place(room: Scene, tmp_path: Path):
    write_scene(room, tmp_path / "room")
    again = load_scene(tmp_path / "room")
    assert_same(again, replace(room, name="room", regions={}, truth=None), atol=2e-6)
    table = json.loads((tmp_path / "room/transforms_train.json").read_text())
    (tmp_path / "room/points.npy").rename(tmp_path / "room/cloud.npy")
    (tmp_path / "room/transforms_train.json").unlink()
    (tmp_path / "room/transforms.json").write_text(json.dumps(table | {"ply_file_path": "cloud.npy"}))  # as nerfstudio
    assert_same(load_scene(tmp_path / "room"), again, atol=0)


def test_what_stands_still_is_seen_by_the_next_camera_where_the_flow_says(room: Scene):
    truth, video = room.truth, room.reference
    assert truth is not None
    assert truth.depth is not None
    assert truth.flow is not None
    assert truth.moving is not None
    centers = pixel_centers(60, 80)
    for frame in range(3):
        points = video.cameras[frame].unproject(centers[None], truth.depth.depth[frame][None])[0]
        there = video.cameras[frame + 1].project(points).pixels[0]
        counts = (truth.flow.weights[frame] > 0) & ~truth.moving[frame]
        apart = (there - centers - truth.flow.flow[frame]).norm(dim=-1)[counts]
        assert float(counts.float().mean()) > 0.5
        assert float(apart.median()) < 0.2  # discs of a wall are blended over a pixel and more
        moved = (there - centers - truth.flow.flow[frame]).norm(dim=-1)[truth.moving[frame]]
        assert float(moved.median()) > 3 * float(apart.median())


def test_in_another_world_the_truth_is_that_of_its_cameras(room: Scene):
    assert room.truth is not None
    assert room.truth.depth is not None
    larger, flipped = moved(room, None, 2.5), mirrored(room)
    assert larger.truth is not None
    assert flipped.truth is not None
    assert larger.truth.depth is not None
    assert flipped.truth.flow is not None
    assert room.truth.flow is not None
    assert torch.allclose(larger.truth.depth.depth, 2.5 * room.truth.depth.depth)
    there, here = flipped.truth.flow.flow, room.truth.flow.flow.flip(2)
    assert torch.equal(there, here * torch.tensor([-1.0, 1.0]))
    assert_same(mirrored(flipped).truth, room.truth)


def test_the_same_seed_gives_the_same_room(room: Scene):
    again = make_room(build_renderer("cpu"), size=80, frames=4)
    assert torch.equal(again.reference.images, room.reference.images)
    assert again.points is not None
    assert room.points is not None
    assert torch.equal(again.points.points, room.points.points)
    with pytest.raises(InputError, match="at least two"):
        make_room(build_renderer("cpu"), frames=1)
