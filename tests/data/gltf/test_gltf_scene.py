"""Scenes of glTF files: a box on two bones in closed form, and real characters against other people's pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kg4d.data.gltf.animation import Channel, Interpolation
from kg4d.data.gltf.drawing import draw
from kg4d.data.gltf.figure import read_figure
from kg4d.data.gltf.joints import MOST, choose_joints
from kg4d.data.gltf.scene import make_gltf_scene
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.data.studies.world import mirrored, moved, turn
from kg4d.errors import InputError
from kg4d.geometry.alignment import fit_similarity
from kg4d.geometry.sampling import pixel_centers
from tests.data.gltf.box import BEND, write_box

SIZE, FRAMES = 48, 3


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_box(tmp_path_factory.mktemp("gltf") / "box.glb")


@pytest.fixture(scope="module")
def scene(box: Path) -> Scene:
    return make_gltf_scene(f"gltf:{box}#Bend@{FRAMES}", SIZE)


def test_a_bone_carries_its_corners(box: Path):
    figure = read_figure(box)
    posed = figure.posed(figure.clips[0], torch.tensor([0.0, 1.0, 2.0]).double())
    halfway, whole = (turn([0, 0, 1], degrees) for degrees in (BEND / 2, BEND))
    rest, joint = posed.points[0], torch.tensor([0.0, 1.0, 0.0]).double()
    upper = figure.body.weights[:, 1] == 1
    assert figure.clips[0].span == (0, 2)
    assert torch.allclose(posed.points[1, upper], (rest[upper] - joint) @ halfway.T + joint, atol=1e-6)
    assert torch.allclose(posed.points[2, upper], (rest[upper] - joint) @ whole.T + joint, atol=1e-6)
    assert torch.equal(posed.points[:, ~upper], rest[~upper].expand(3, -1, -1))
    assert torch.allclose(posed.normals[2, upper], posed.normals[0, upper] @ whole.T, atol=1e-6)
    assert posed.nodes[:, 2].tolist() == [joint.tolist()] * 3


def test_layout(scene: Scene):
    assert scene.name == "box-Bend-3"
    assert scene.reference.images.shape == (FRAMES, SIZE, SIZE, 4)
    assert scene.ring.images.shape == (16, SIZE, SIZE, 4)
    assert scene.test.images.shape == (4 * FRAMES, SIZE, SIZE, 4)
    assert scene.reference.times.tolist() == [0.0, 0.5, 1.0]
    assert torch.equal(scene.reference.images[0], scene.ring.images[0])
    assert (scene.keypoints.names, scene.keypoints.parents) == (("lower", "upper"), (-1, 0))
    assert scene.truth.depth.depth.shape == (FRAMES, SIZE, SIZE)


def test_every_camera_sees_all_of_it(scene: Scene):
    edges = torch.cat([part.alphas for part in (scene.reference, scene.ring, scene.test)])[..., 0]
    assert edges[:, [0, -1]].max() == 0
    assert edges[:, :, [0, -1]].max() == 0
    assert scene.truth.surface.abs().max() <= 0.8 + 1e-6
    # what the matte covers is where the surface projects to, to a pixel
    for frame in range(FRAMES):
        pixels = scene.reference.cameras[frame].project(scene.truth.surface[frame]).pixels[0]
        rows, columns = torch.nonzero(scene.reference.alphas[frame, ..., 0]).unbind(-1)
        low, high = torch.stack([columns.min(), rows.min()]), torch.stack([columns.max(), rows.max()]) + 1
        assert (pixels.amin(0) - low).abs().max() < 1
        assert (pixels.amax(0) - high).abs().max() < 1


def test_keypoints_reproject(scene: Scene):
    keypoints = scene.keypoints
    for frame in range(FRAMES):
        uv = scene.reference.cameras[frame].project(keypoints.truth[frame]).pixels[0]
        assert torch.allclose(uv, keypoints.uv[frame], atol=1e-4)
    assert keypoints.truth[:, 1].std(0).max() < 1e-6  # a joint stays while what hangs on it turns


def test_flow_is_the_projected_displacement(scene: Scene):
    camera, centers = scene.reference.cameras[0], pixel_centers(SIZE, SIZE)
    for pair in range(FRAMES - 1):
        seen = scene.flow.weights[pair] > 0
        depth = scene.truth.depth.depth[pair][seen]
        here = camera.unproject(centers[seen][None], depth[None])[0]
        distance = torch.cdist(here, scene.truth.surface[pair])
        assert distance.amin(1).max() < 0.05  # what is seen is the surface
        # the flow takes a point with its neighbours on the surface
        near = distance.argmin(1)
        moved = (
            camera.project(scene.truth.surface[pair + 1, near]).pixels
            - camera.project(scene.truth.surface[pair, near]).pixels
        )
        assert (moved[0] - scene.flow.flow[pair][seen]).norm(dim=-1).mean() < 0.2
        assert scene.flow.flow[pair][seen].norm(dim=-1).max() > 2


def test_units_do_not_matter_and_a_turned_file_is_a_turned_scene(box: Path, scene: Scene, tmp_path: Path):
    large = make_gltf_scene(f"gltf:{write_box(tmp_path / 'large.glb', scale=250.0)}@{FRAMES}", SIZE)
    turned = make_gltf_scene(f"gltf:{write_box(tmp_path / 'turned.glb', yaw=90.0)}#0@{FRAMES}", SIZE)
    assert torch.allclose(large.keypoints.truth, scene.keypoints.truth, atol=1e-5)
    assert (large.reference.images - scene.reference.images).abs().mean() < 1e-3
    fit = fit_similarity(scene.truth.surface.flatten(0, 1), turned.truth.surface.flatten(0, 1))
    assert torch.allclose(fit.moved(scene.truth.surface.flatten(0, 1)), turned.truth.surface.flatten(0, 1), atol=1e-4)
    assert torch.allclose(fit.rotation, turn([0, 1, 0], 90.0).float(), atol=1e-4)


def test_truth_follows_the_world(scene: Scene):
    there = moved(scene, turn([0, 1, 0], 90.0), 2.0, (1, 0, 0))
    assert torch.allclose(there.truth.surface[..., 1], 2 * scene.truth.surface[..., 1], atol=1e-5)
    other = mirrored(scene)
    assert torch.equal(other.truth.surface[..., 0], -scene.truth.surface[..., 0])
    assert torch.equal(other.truth.depth.depth, scene.truth.depth.depth.flip(2))


def test_interpolation():
    times, middle = torch.tensor([0.0, 2.0]).double(), torch.tensor([-1.0, 1.0, 5.0]).double()
    ends = torch.tensor([[[0.0, 0, 0]], [[4.0, 0, 0]]]).double()
    linear = Channel(0, "translation", times, ends, Interpolation.LINEAR).at(middle)[:, 0]
    step = Channel(0, "translation", times, ends, Interpolation.STEP).at(middle)[:, 0]
    slopes = torch.tensor([[[0.0], [0.0], [3.0]], [[3.0], [4.0], [0.0]]]).double().expand(2, 3, 3)
    cubic = Channel(0, "translation", times, slopes, Interpolation.CUBICSPLINE).at(middle)[:, 0]
    assert linear.tolist() == [0, 2, 4]
    assert step.tolist() == [0, 0, 4]
    assert cubic.tolist() == [0, 2, 4]  # tangents 3 and 3 over 2 s: (p0 + p1) / 2 + 2 (3 - 3) / 8


def test_feet_of_inverse_kinematics_hang_on_their_legs():
    # a root, a hip and a knee below it, and a foot beside them that stays 1 below the knee while the root moves
    swing = torch.linspace(0, 1, 5)
    root = torch.stack([0 * swing, 3 + swing, 0 * swing], -1)
    hip, knee = root - torch.tensor([0.0, 1, 0]), torch.stack([swing, 1 + 0 * swing, 0 * swing], -1)
    foot = knee - torch.tensor([0.0, 1, 0])
    tracks = torch.stack([root, hip, knee, foot], 1)
    skeleton = choose_joints(tracks, (-1, 0, 1, 0), torch.full((4,), 0.25), 3.0)
    names = {joint: skeleton.joints[parent] if parent >= 0 else -1 for joint, parent in zip(*skeleton)}
    assert names == {0: -1, 1: 0, 2: 1, 3: 2}


def test_there_are_no_more_keypoints_than_that():
    count = 2 * MOST
    line = torch.arange(count).float()[None, :, None] * torch.tensor([1.0, 0, 0])
    shares = torch.full((count,), 1 / count)
    shares[3] = 0
    skeleton = choose_joints(line, (-1, *range(count - 1)), shares, float(count))
    assert len(skeleton.joints) == MOST
    assert {0, count - 1} <= set(skeleton.joints)
    assert 3 not in skeleton.joints
    assert skeleton.parents == (-1, *range(MOST - 1))


def no_skin(table: dict) -> None:
    del table["skins"]


def no_clips(table: dict) -> None:
    table["animations"] = []


def two_clips(table: dict) -> None:
    table["animations"] = [table["animations"][0] | {"name": name} for name in ("Walk", "Run")]


def circle(table: dict) -> None:
    table["nodes"][2]["children"] = [1]


def outside(table: dict) -> None:
    table["bufferViews"][0]["byteLength"] = 10**6


def compressed(table: dict) -> None:
    table["extensionsRequired"] = ["KHR_draco_mesh_compression"]


@pytest.mark.parametrize(
    ("change", "clip", "words"),
    [
        (no_skin, "", "has no skin"),
        (no_clips, "", "has no animation"),
        (two_clips, "", "has 2 clips .*Walk, Run"),
        (None, "#Jump", "has no clip 'Jump' .*Bend"),
        (circle, "", "damaged"),
        (outside, "", "damaged"),
        (compressed, "", "KHR_draco"),
        (None, "@1", "1 frames"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, change: Callable[[dict], object] | None, clip: str, words: str):
    path = write_box(tmp_path / "wrong.glb", change=change)
    with pytest.raises(InputError, match=words) as caught:
        make_gltf_scene(f"gltf:{path}{clip}", SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 11, 40, 700])
def test_files_that_end_too_early(box: Path, tmp_path: Path, kept: int):
    path = tmp_path / "cut.glb"
    path.write_bytes(box.read_bytes()[:kept])
    with pytest.raises(InputError, match="damaged"):
        read_figure(path)
    with pytest.raises(InputError, match="no such file"):
        read_figure(tmp_path / "nowhere.glb")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["fox", "cesium_man", "drone"])
def test_pictures_agree_with_those_of_the_makers_of_the_data(data_root: Path, name: str):
    """Their renderer, their cameras and times, and our skinning and rasteriser: mattes and joints are the same."""
    folder = data_root / "gltf4d" / name
    made, theirs = json.loads((folder / "scene.json").read_text()), load_scene(folder)
    figure = read_figure(folder / "source.glb")
    clip = figure.clip(name, made["clip"] or "")
    placed, frames = made["normalization"], [0, 7]
    yaw = turn([0, 1, 0], placed["yaw_deg"])
    posed = figure.posed(clip, torch.tensor(made["frame_seconds"]).double()[frames])
    center = torch.tensor(placed["center"]).double()
    for row, frame in enumerate(frames):
        points = (placed["scale"] * (posed.points[row] @ yaw.T - center)).float()
        normals = (posed.normals[row] @ yaw.T).float()
        camera = theirs.reference.cameras[frame]
        drawn = draw(figure.body, figure.textures, points, normals, camera)
        apart = (drawn.images[0, ..., 3] - theirs.reference.alphas[frame, ..., 0]).abs()
        assert apart.max() < 0.35  # 9 samples a pixel here, 16 there
        assert apart.sum() / theirs.reference.alphas[frame].sum() < 0.02
        nodes = (placed["scale"] * (posed.nodes[row] @ yaw.T - center)).float()
        plain = [
            (number, made_of["nodes"][0])
            for number, made_of in enumerate(made["keypoints"])
            if len(made_of["nodes"]) == 1 and not any(made_of["offset"])
        ]
        for number, node in plain:
            truth = theirs.keypoints.truth[frame, number]
            assert (nodes[figure.nodes.names.index(node)] - truth).norm() < 1e-4
        assert len(plain) >= 5
