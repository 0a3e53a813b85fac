"""Binary glTF: read by pygltflib and moved by a small player of its own, and loaded by trimesh."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
import trimesh

from kg4d.errors import InputError
from kg4d.formats.base import ExportSource
from kg4d.formats.gltf import export_gltf, fit_skinning, write_gltf
from kg4d.formats.tracks import Tracks
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_rotate
from kg4d.geometry.skinning import linear_blend
from kg4d.keypoints.skeleton import bone_rotations
from tests import make
from tests.formats.test_build import Rising
from tests.formats.test_bvh import swinging

PARENTS = (2, 0, -1, 2, 3, -1)


def array(file: pygltflib.GLTF2, index: int) -> np.ndarray:
    accessor = file.accessors[index]
    view = file.bufferViews[accessor.bufferView]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
    kind = {pygltflib.FLOAT: "<f4", pygltflib.UNSIGNED_SHORT: "<u2"}[accessor.componentType]
    blob = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(blob, kind).reshape(accessor.count, width)


def play(file: pygltflib.GLTF2) -> np.ndarray:
    """World matrices (T, nodes, 4, 4) at the keys of the animation."""
    animation = file.animations[0]
    values = {
        (channel.target.node, channel.target.path): array(file, animation.samplers[channel.sampler].output)
        for channel in animation.channels
    }
    frames = len(array(file, animation.samplers[0].input))
    world = np.tile(np.eye(4), (frames, len(file.nodes), 1, 1))

    def visit(index: int, above: np.ndarray) -> None:
        local = np.tile(np.eye(4), (frames, 1, 1))
        if (index, "rotation") in values:
            xyzw = torch.from_numpy(values[index, "rotation"].copy()).double()
            axes = quat_rotate(xyzw.roll(1, dims=-1)[:, None], torch.eye(3, dtype=torch.float64))
            local[:, :3, :3] = axes.mT.numpy()
            local[:, :3, 3] = values[index, "translation"]
        world[:, index] = above @ local
        for child in file.nodes[index].children:
            visit(child, world[:, index])

    for root in file.scenes[file.scene].nodes:
        visit(root, np.eye(4))
    return world


def skinned_points(file: pygltflib.GLTF2) -> np.ndarray:
    attributes, skin = file.meshes[0].primitives[0].attributes, file.skins[0]
    bind = array(file, skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = play(file)[:, skin.joints] @ bind
    joints, weights = array(file, attributes.JOINTS_0), array(file, attributes.WEIGHTS_0)
    points = np.concatenate([array(file, attributes.POSITION), np.ones((len(joints), 1))], axis=1)
    blended = (weights[..., None, None] * matrices[:, joints]).sum(2)
    return (blended @ points[..., None])[..., :3, 0]


def body(frames: int = 6) -> tuple[Tracks, list[GaussianState], torch.Tensor]:
    """Gaussians that follow the bones by weights that are known."""
    tracks = swinging(PARENTS, seed=3, frames=frames)
    state = make.random_gaussians(40, spread=0.5, seed=4)
    quats = bone_rotations(tracks.positions[0], tracks.positions, torch.tensor(PARENTS), inertia=1e-5)
    nearest = torch.cdist(state.means, tracks.positions[0]).topk(2, largest=False).indices
    weights = torch.zeros(40, len(PARENTS)).scatter(1, nearest, torch.tensor([0.7, 0.3]).expand(40, 2))
    moves = tracks.positions - tracks.positions[0]
    points = linear_blend(state.means, weights, tracks.positions[0], moves, quats).points
    return tracks, [replace(state, means=means) for means in points], weights


def test_the_skeleton_is_where_it_was(tmp_path: Path) -> None:
    tracks, states, _ = body()
    write_gltf(tmp_path / "new" / "a.glb", tracks, states)
    file = pygltflib.GLTF2().load(str(tmp_path / "new" / "a.glb"))
    assert [node.name for node in file.nodes] == [*tracks.names, "gaussians"]
    np.testing.assert_allclose(play(file)[:, : len(PARENTS), :3, 3], tracks.positions.numpy(), atol=1e-5)
    seconds = array(file, file.animations[0].samplers[0].input)[:, 0]
    np.testing.assert_allclose(seconds, np.arange(6) / 8)
    for index, node in enumerate(file.nodes[:-1]):
        assert [PARENTS[child] for child in node.children] == [index] * len(node.children)


def test_points_that_follow_the_bones_are_where_they_were(tmp_path: Path) -> None:
    tracks, states, _ = body()
    write_gltf(tmp_path / "a.glb", tracks, states)
    file = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    truth = torch.stack([state.means for state in states]).numpy()
    read = skinned_points(file)
    np.testing.assert_allclose(read[0], truth[0], atol=1e-5)
    error = float(np.sqrt(np.square(read - truth).sum(-1).mean()))
    assert error < 0.03 * truth.std()
    assert file.asset.extras["skinning_error"] == pytest.approx(error, abs=1e-4)
    colors = array(file, file.meshes[0].primitives[0].attributes.COLOR_0)
    np.testing.assert_array_equal(colors[:, 3], states[0].opacities.numpy())


def test_another_library_loads_the_points(tmp_path: Path) -> None:
    tracks, states, _ = body()
    write_gltf(tmp_path / "a.glb", tracks, states)
    scene = trimesh.load(tmp_path / "a.glb", force="scene")
    (cloud,) = scene.geometry.values()
    assert isinstance(cloud, trimesh.PointCloud)
    np.testing.assert_allclose(cloud.vertices, states[0].means.numpy(), atol=1e-6)
    for index, name in enumerate(tracks.names):
        np.testing.assert_allclose(scene.graph.get(name)[0][:3, 3], tracks.positions[0, index], atol=1e-5)


def test_weights_are_the_best_on_the_simplex() -> None:
    """No mixture of the same joints, drawn at random, explains the motion better."""
    tracks, states, _ = body()
    g = torch.Generator().manual_seed(0)
    points = torch.stack([state.means for state in states])
    points = points + 0.2 * torch.randn(points.shape, generator=g)
    parents = torch.tensor(PARENTS)
    quats = bone_rotations(tracks.positions[0], tracks.positions, parents, inertia=1e-5)
    skinning = fit_skinning(points, tracks.positions, quats, parents)
    assert float(skinning.weights.min()) >= 0
    torch.testing.assert_close(skinning.weights.sum(-1), torch.ones(40))

    def errors(weights: torch.Tensor) -> torch.Tensor:
        dense = torch.zeros(40, len(PARENTS)).scatter(1, skinning.joints, weights)
        moves = tracks.positions - tracks.positions[0]
        moved = linear_blend(points[0], dense, tracks.positions[0], moves, quats).points
        return (moved - points).square().sum((0, 2))

    best = errors(skinning.weights)
    assert float((best.sum() / (6 * 40)).sqrt()) == pytest.approx(skinning.error, rel=1e-4)
    for _ in range(50):
        drawn = torch.distributions.Exponential(1.0).sample((40, 4))
        mixed = 0.9 * skinning.weights + 0.1 * drawn / drawn.sum(-1, keepdim=True)
        assert bool((errors(mixed) >= best - 1e-4 * best.mean()).all())


def test_gaussians_that_vanish_are_refused(tmp_path: Path) -> None:
    class Vanishing(Rising):
        def states(self, times: torch.Tensor) -> list[GaussianState]:
            return [make.random_gaussians(1 + index) for index in range(len(times))]

    with pytest.raises(InputError, match="appear and vanish"):
        export_gltf(ExportSource(Vanishing(), make.tiny_scene(), fps=4), tmp_path)


def test_without_pygltflib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygltflib", None)
    tracks, states, _ = body()
    with pytest.raises(ImportError, match=r'pip install "kg4d\[gltf\]"'):
        write_gltf(tmp_path / "a.glb", tracks, states)
    assert not list(tmp_path.iterdir())
