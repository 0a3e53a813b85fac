"""The skeleton with its animation as binary glTF, and a point for each Gaussian that follows it.

A node is a keypoint; translations and rotations are animated, so that keypoints are where they are in every frame. The
points are skinned: each follows up to four keypoints by the weights that best explain its own motion, whatever moves
it in the model. They have the axes and units of the scene's world; glTF and its readers take +Y for up.
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.images import linear_rgb
from kg4d.errors import InputError
from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.tracks import Tracks, tracks_of
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_conjugate, quat_multiply, quat_rotate
from kg4d.keypoints.skeleton import bone_distances, bone_rotations
from kg4d.utils.files import replacing

if TYPE_CHECKING:
    import pygltflib

_INFLUENCES = 4  # a vertex of glTF has four joints
_RIDGE = 1e-6  # decides between keypoints that move alike, relative to what they explain


class Skinning(NamedTuple):
    """What N points follow."""

    joints: Int[Tensor, "N K"]
    weights: Float[Tensor, "N K"]  # >= 0, rows sum to 1
    error: float  # root mean square distance between the skinned points and where they are, world units


@torch.no_grad()
def fit_skinning(
    points: Float[Tensor, "T N 3"], positions: Float[Tensor, "T J 3"], quats: Float[Tensor, "T J 4"], parents: Tensor
) -> Skinning:
    """Weights of linear blend skinning that best explain moving points, of the four joints nearest at first.

    Weights are the least-squares solution on the simplex: the best of those of all subsets of the joints.

    Args:
        points: World positions of the points; the first is rest.
        positions: Of the joints.
        quats: Rotations of the joints since rest.
        parents: Parent of each joint, -1 for roots.
    """
    points, positions, quats = points.double(), positions.double(), quats.double()
    count = min(_INFLUENCES, positions.shape[1])
    joints = bone_distances(points[0], positions[0], parents).topk(count, largest=False).indices
    local = points[0][:, None] - positions[0][joints]
    carried = quat_rotate(quats[:, joints], local) + positions[:, joints]  # (T, N, K, 3)
    apart = carried - points[:, :, None]
    gram = torch.einsum("tnkd,tnld->nkl", apart, apart)  # weights sum to 1, so that the error is w' gram w
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).sum(-1) + 1e-12 * points.var()
    gram = gram + ridge[:, None, None] * torch.eye(count, dtype=gram.dtype)
    best, weights = torch.full((len(joints),), torch.inf, dtype=gram.dtype), torch.zeros_like(local[..., 0])
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            rows = torch.tensor(chosen)
            part = torch.linalg.solve(gram[:, rows][:, :, rows], torch.ones(len(joints), size, dtype=gram.dtype))
            part = part / part.sum(-1, keepdim=True)
            error = torch.einsum("nk,nkl,nl->n", part, gram[:, rows][:, :, rows], part)
            better = (part >= 0).all(-1) & (error < best)
            best = torch.where(better, error, best)
            weights[better] = torch.zeros_like(weights[better]).index_copy(1, rows, part[better])
    skinned = (weights[..., None] * carried).sum(2)
    return Skinning(joints, weights.float(), float((skinned - points).square().sum(-1).mean().sqrt()))


def export_gltf(source: ExportSource, folder: Path) -> Exported:
    """Write `animated.glb`.

    Raises:
        InputError: The scene has no keypoints, or Gaussians appear and vanish.
        ImportError: The package pygltflib is not installed.
    """
    states = source.model.states(source.scene.reference.times)
    if len({len(state) for state in states}) > 1:
        what = "has Gaussians that appear and vanish, which points of glTF cannot"
        raise InputError(source.scene.name, what, "export it as usd or ply")
    write_gltf(folder / "animated.glb", tracks_of(source), [state.detach().to("cpu") for state in states])
    return Exported([folder / "animated.glb"])


def write_gltf(path: str | Path, tracks: Tracks, states: list[GaussianState]) -> None:
    """Write one binary glTF; it appears complete or not at all.

    `asset.extras.skinning_error` is the root mean square distance between the skinned points and the Gaussians, world
    units.

    Args:
        path: The file; parent folders are created.
        tracks: At least one keypoint.
        states: The same Gaussians in each frame of the tracks.

    Raises:
        ImportError: The package pygltflib is not installed.
    """
    try:
        import pygltflib
    except ImportError as error:
        raise ImportError('writing glTF needs pygltflib: pip install "kg4d[gltf]"') from error
    parents = torch.tensor(tracks.parents)
    quats = bone_rotations(tracks.positions[0], tracks.positions, parents, inertia=1e-5)
    skinning = fit_skinning(torch.stack([state.means for state in states]), tracks.positions, quats, parents)
    count, file = len(tracks.names), _File()
    nodes = _nodes(tracks)
    nodes.append(pygltflib.Node(name="gaussians", mesh=0, skin=0))
    primitive = pygltflib.Primitive(attributes=_vertices(file, states[0], skinning), mode=pygltflib.POINTS, material=0)
    material = pygltflib.Material(name="as rendered", alphaMode="BLEND", extensions={"KHR_materials_unlit": {}})
    bind = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    bind[:, 3, :3] = -tracks.positions[0].numpy()  # columns first
    roots = [index for index, parent in enumerate(tracks.parents) if parent < 0]
    skin = pygltflib.Skin(inverseBindMatrices=file.add(bind.reshape(count, 16), "MAT4"), joints=list(range(count)))
    document = pygltflib.GLTF2(
        asset=pygltflib.Asset(generator="kg4d", extras={"skinning_error": skinning.error}),
        extensionsUsed=["KHR_materials_unlit"],
        scene=0,
        scenes=[pygltflib.Scene(nodes=[*roots, count])],
        nodes=nodes,
        meshes=[pygltflib.Mesh(name="gaussians", primitives=[primitive])],
        materials=[material],
        skins=[skin],
        animations=[_animation(file, tracks, quats)],
        accessors=file.accessors,
        bufferViews=file.views,
        buffers=[pygltflib.Buffer(byteLength=len(file.data))],
    )
    document.set_binary_blob(bytes(file.data))
    with replacing(path) as part:
        document.save_binary(part)


class _File:
    """The binary part of a file, and what says where things are in it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[Any] = []
        self.accessors: list[Any] = []

    def add(self, values: np.ndarray, kind: str, *, bounds: bool = False) -> int:
        """Append rows of a SCALAR, VEC3, VEC4 or MAT4; the index of their accessor."""
        import pygltflib

        component = {"f": pygltflib.FLOAT, "H": pygltflib.UNSIGNED_SHORT}[values.dtype.char]
        self.views.append(pygltflib.BufferView(buffer=0, byteOffset=len(self.data), byteLength=values.nbytes))
        accessor = pygltflib.Accessor(
            bufferView=len(self.views) - 1, componentType=component, count=len(values), type=kind
        )
        if bounds:
            accessor.min, accessor.max = (np.atleast_1d(edge).tolist() for edge in (values.min(0), values.max(0)))
        self.accessors.append(accessor)
        self.data += np.ascontiguousarray(values).tobytes()
        return len(self.accessors) - 1


def _nodes(tracks: Tracks) -> list["pygltflib.Node"]:
    """A node for each keypoint, as in the first frame."""
    import pygltflib

    translations = _local(tracks, torch.tensor([1.0, 0, 0, 0]).expand(*tracks.positions.shape[:2], 4))[0]
    children: list[list[int]] = [[] for _ in tracks.names]
    for index, parent in enumerate(tracks.parents):
        if parent >= 0:
            children[parent].append(index)
    return [
        pygltflib.Node(name=name, translation=translations[0, index].tolist(), children=children[index])
        for index, name in enumerate(tracks.names)
    ]


def _local(tracks: Tracks, quats: Float[Tensor, "T J 4"]) -> tuple[Float[Tensor, "T J 3"], Float[Tensor, "T J 4"]]:
    """Translations and rotations of the joints relative to their parents."""
    translations, rotations = tracks.positions.clone(), quats.clone()
    for index, parent in enumerate(tracks.parents):
        if parent >= 0:
            back = quat_conjugate(quats[:, parent])
            bone = tracks.positions[:, index] - tracks.positions[:, parent]
            translations[:, index], rotations[:, index] = quat_rotate(back, bone), quat_multiply(back, quats[:, index])
    return translations, rotations


def _animation(file: _File, tracks: Tracks, quats: Float[Tensor, "T J 4"]) -> "pygltflib.Animation":
    import pygltflib

    seconds = np.arange(len(quats), dtype=np.float32) / np.float32(tracks.fps)
    times = file.add(seconds, "SCALAR", bounds=True)
    samplers: list[pygltflib.AnimationSampler] = []
    channels: list[pygltflib.AnimationChannel] = []
    translations, rotations = _local(tracks, quats)
    xyzw = rotations.roll(-1, dims=-1)
    for index in range(len(tracks.names)):
        for path, values, kind in (("translation", translations, "VEC3"), ("rotation", xyzw, "VEC4")):
            target = pygltflib.AnimationChannelTarget(node=index, path=path)
            channels.append(pygltflib.AnimationChannel(sampler=len(samplers), target=target))
            output = file.add(values[:, index].numpy().astype(np.float32), kind)
            samplers.append(pygltflib.AnimationSampler(input=times, output=output, interpolation="LINEAR"))
    return pygltflib.Animation(name="motion", samplers=samplers, channels=channels)


def _vertices(file: _File, state: GaussianState, skinning: Skinning) -> "pygltflib.Attributes":
    import pygltflib

    joints, weights = np.zeros((len(state), 4), np.uint16), np.zeros((len(state), 4), np.float32)
    joints[:, : skinning.joints.shape[1]] = skinning.joints.numpy()
    weights[:, : skinning.joints.shape[1]] = skinning.weights.numpy()
    joints[weights == 0] = 0  # as the specification asks
    rgba = torch.cat([linear_rgb(state.colors), state.opacities[:, None]], dim=-1)
    return pygltflib.Attributes(
        POSITION=file.add(state.means.numpy().astype(np.float32), "VEC3", bounds=True),
        COLOR_0=file.add(rgba.numpy().astype(np.float32), "VEC4"),
        JOINTS_0=file.add(joints, "VEC4"),
        WEIGHTS_0=file.add(weights, "VEC4"),
    )
