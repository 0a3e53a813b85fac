"""A glTF file as one skinned body: its nodes, its triangles with what they follow and their colours, and its clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.data.gltf.animation import Channel, Clip, Interpolation, Nodes, node_matrices
from kg4d.data.gltf.document import Document
from kg4d.data.images import DAMAGED
from kg4d.errors import InputError

_FAULTS = (*DAMAGED, LookupError, TypeError, AttributeError, OverflowError, RuntimeError)
_TRIANGLES, _STRIP, _FAN = 4, 5, 6  # modes of a primitive that have an area
_MOST_SETS = 4  # of joints and weights a vertex: 16 influences


@dataclass(frozen=True)
class Body:
    """V corners and F triangles at rest.

    Attributes:
        points: In the axes of their mesh, as are the normals.
        normals: Unit length.
        colors: Vertex colours times the base colour factor, as amounts of light (linear), in [0, 1].
        uv: Where the corners lie in the texture; (0, 0) is its upper left corner, (1, 1) its lower right one.
        triangles: Indices of three corners each, anticlockwise seen from outside.
        textures: Index of each triangle's texture, -1 for none.
        frames: Node of each of the K frames that corners follow.
        binds: From the axes of the mesh to those of the frame, at rest (inverse bind matrices).
        skinned: Which frames are joints; the others are nodes that carry a mesh without a skin.
        weights: Skinning weights; rows sum to 1.
    """

    points: Float[Tensor, "V 3"]
    normals: Float[Tensor, "V 3"]
    colors: Float[Tensor, "V 3"]
    uv: Float[Tensor, "V 2"]
    triangles: Int[Tensor, "F 3"]
    textures: Int[Tensor, " F"]
    frames: Int[Tensor, " K"]
    binds: Float[Tensor, "K 4 4"]
    skinned: Bool[Tensor, " K"]
    weights: Float[Tensor, "V K"]


@dataclass(frozen=True)
class Posed:
    """A body at T times, in the world of its file."""

    points: Float[Tensor, "T V 3"]
    normals: Float[Tensor, "T V 3"]  # unit length
    nodes: Float[Tensor, "T N 3"]  # positions of all nodes


@dataclass(frozen=True)
class Figure:
    """Everything of a file that makes a scene.

    Attributes:
        nodes: All nodes.
        body: What is drawn.
        textures: RGB in [0, 1] as stored (sRGB), height x width x 3 each.
        clips: The animations that move a node; at least one.
    """

    nodes: Nodes
    body: Body
    textures: tuple[Tensor, ...]
    clips: tuple[Clip, ...]

    def posed(self, clip: Clip, times: Float[Tensor, " T"]) -> Posed:
        """Linear blend skinning at some times of a clip, seconds."""
        whole, body = node_matrices(self.nodes, clip, times), self.body
        points, normals = [], []
        for frames in whole[:, body.frames] @ body.binds:
            blended = (body.weights @ frames[:, :3].flatten(1)).reshape(-1, 3, 4)
            linear = blended[..., :3]
            points.append((linear @ body.points[..., None])[..., 0] + blended[..., 3])
            normals.append((_cofactors(linear) @ body.normals[..., None])[..., 0])
        return Posed(torch.stack(points), normalize(torch.stack(normals), dim=-1), whole[..., :3, 3])

    def clip(self, where: str, name: str) -> Clip:
        """The clip of that name or index; the only one where the name is empty.

        Raises:
            InputError: There is no such clip, or several where none is named.
        """
        names = [clip.name for clip in self.clips]
        if name in names:
            return self.clips[names.index(name)]
        if name.isdecimal() and int(name) < len(names):
            return self.clips[int(name)]
        if not name and len(names) == 1:
            return self.clips[0]
        what = f"has no clip '{name}'" if name else f"has {len(names)} clips"
        raise InputError(where, what, f"write #CLIP behind the file, one of: {', '.join(names)}")


def read_figure(path: Path) -> Figure:
    """Read a .glb or .gltf file.

    What is drawn is the triangles of its scene, opaque, in the base colours of their materials; morph targets, mirror
    images and everything else about materials is left out.

    Raises:
        InputError: It is missing or damaged, or has no skin, no triangle or no animation.
    """
    try:
        return _figure(path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "give a .glb or .gltf file") from error
    except _FAULTS as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(path, f"is no glTF file, or damaged: {what}", "export it again as .glb") from error


def _figure(path: Path) -> Figure:
    document = Document(path)
    tables = document.tables
    if not tables.skins:
        raise InputError(path, "has no skin: nothing in it follows a skeleton", "give a rigged character")
    nodes = _nodes(tables)
    clips = tuple(clip for clip in _clips(document, nodes) if clip.channels)
    if not clips:
        raise InputError(path, "has no animation that moves a node", "export it with its clips")
    body, pictures = _Gathered(document, nodes).body()
    return Figure(nodes, body, tuple(torch.from_numpy(document.picture(index).copy()) for index in pictures), clips)


def _cofactors(matrices: Float[Tensor, "V 3 3"]) -> Float[Tensor, "V 3 3"]:
    """What turns normals as the matrices turn surfaces: the inverse transposed, times the determinant."""
    a, b, c = matrices.unbind(-1)
    cross = torch.linalg.cross
    return torch.stack([cross(b, c), cross(c, a), cross(a, b)], dim=-1)


def _nodes(tables: Any) -> Nodes:
    count = len(tables.nodes)
    parents = [-1] * count
    for index, node in enumerate(tables.nodes):
        for child in node.children or []:
            if not 0 <= child < count or parents[child] >= 0:
                raise ValueError(f"node {child} has two parents or is none")
            parents[child] = index
    order = [index for index in range(count) if parents[index] < 0]
    for index in order:  # grows while it is read
        order += tables.nodes[index].children or []
    if len(order) != count:
        raise ValueError("nodes are their own ancestors")
    rest = [
        (node.translation or (0, 0, 0), node.rotation or (0, 0, 0, 1), node.scale or (1, 1, 1)) for node in tables.nodes
    ]
    places, turns, sizes = (torch.tensor(part, dtype=torch.float64) for part in zip(*rest, strict=True))
    given = [node.matrix or [torch.nan] * 16 for node in tables.nodes]
    matrices = torch.tensor(given, dtype=torch.float64).reshape(count, 4, 4).mT  # columns come first in the file
    names = _distinct([node.name or f"node {index}" for index, node in enumerate(tables.nodes)])
    return Nodes(names, tuple(parents), tuple(order), places, turns.roll(1, dims=-1), sizes, matrices)


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names with a number behind those that have come before."""
    found: dict[str, None] = {}
    for name in names:
        number, new = 2, name
        while new in found:
            number, new = number + 1, f"{name} {number}"
        found[new] = None
    return tuple(found)


def _clips(document: Document, nodes: Nodes) -> list[Clip]:
    animations = document.tables.animations or []
    names = _distinct([animation.name or f"clip {index}" for index, animation in enumerate(animations)])
    return [
        Clip(
            name,
            tuple(
                _channel(document, channel.target, animation.samplers[channel.sampler])
                for channel in animation.channels
                if channel.target.node is not None and channel.target.path in ("translation", "rotation", "scale")
            ),
        )
        for name, animation in zip(names, animations, strict=True)
    ]


def _channel(document: Document, target: Any, sampler: Any) -> Channel:
    times = torch.from_numpy(document.numbers(sampler.input)[:, 0])
    if bool((times.diff() <= 0).any()):
        raise ValueError("the keys of an animation are not in the order of time")
    interpolation = Interpolation(sampler.interpolation or "LINEAR")
    parts = 3 if interpolation is Interpolation.CUBICSPLINE else 1
    width = 4 if target.path == "rotation" else 3
    values = torch.from_numpy(document.numbers(sampler.output)).reshape(len(times), parts, width)
    if target.path == "rotation":
        values = values.roll(1, dims=-1)
    return Channel(target.node, target.path, times, values, interpolation)


class _Gathered:
    """The primitives of a file, put together one by one."""

    def __init__(self, document: Document, nodes: Nodes) -> None:
        self.document, self.nodes = document, nodes
        self.corners: list[dict[str, Tensor]] = []
        self.triangles: list[Tensor] = []
        self.textures: list[Tensor] = []
        self.follows: list[tuple[Tensor, Tensor]] = []  # frames and weights of each corner
        self.frames: list[int] = []
        self.binds: list[Tensor] = []
        self.skinned: list[bool] = []
        self.pictures: list[int] = []
        self.count = 0

    def body(self) -> tuple[Body, list[int]]:
        """The whole body, and which images are its textures."""
        tables, skins = self.document.tables, dict[int, int]()
        for index in self._shown():
            node = tables.nodes[index]
            if node.mesh is None:
                continue
            if node.skin is None:
                first = self._add_frames([index], torch.eye(4, dtype=torch.float64)[None], skinned=False)
            else:
                if node.skin not in skins:
                    skins[node.skin] = self._add_skin(tables.skins[node.skin])
                first = skins[node.skin]
            for primitive in tables.meshes[node.mesh].primitives:
                if primitive.mode is None or primitive.mode in (_TRIANGLES, _STRIP, _FAN):
                    self._add(primitive, first, skinned=node.skin is not None)
        if not self.triangles or not any(self.skinned):
            raise ValueError("its scene shows no triangles that follow a skeleton")
        weights = torch.zeros(self.count, len(self.frames), dtype=torch.float64)
        start = 0
        for frames, shares in self.follows:
            weights[start : start + len(frames)].scatter_add_(1, frames, shares)
            start += len(frames)
        parts = {name: torch.cat([part[name] for part in self.corners]) for name in self.corners[0]}
        body = Body(
            **parts,
            triangles=torch.cat(self.triangles),
            textures=torch.cat(self.textures),
            frames=torch.tensor(self.frames),
            binds=torch.cat(self.binds),
            skinned=torch.tensor(self.skinned),
            weights=weights,
        )
        return body, self.pictures

    def _shown(self) -> list[int]:
        """The nodes of the scene, in the order of the file."""
        tables = self.document.tables
        if not tables.scenes:
            return list(range(len(tables.nodes)))
        reached = list(tables.scenes[tables.scene or 0].nodes or [])
        for index in reached:  # grows while it is read
            reached += tables.nodes[index].children or []
        return sorted(set(reached))

    def _add_skin(self, skin: Any) -> int:
        joints = list(skin.joints)
        if not all(0 <= joint < len(self.nodes.names) for joint in joints):
            raise IndexError("a joint of a skin is no node")
        binds = torch.eye(4, dtype=torch.float64).repeat(len(joints), 1, 1)
        if skin.inverseBindMatrices is not None:
            rows = torch.from_numpy(self.document.numbers(skin.inverseBindMatrices))
            binds = rows.reshape(-1, 4, 4).mT[: len(joints)]
        if len(binds) != len(joints):
            raise ValueError("a skin has fewer bind matrices than joints")
        return self._add_frames(joints, binds, skinned=True)

    def _add_frames(self, nodes: list[int], binds: Float[Tensor, "k 4 4"], *, skinned: bool) -> int:
        """Number of the first of the new frames."""
        self.frames += nodes
        self.binds.append(binds)
        self.skinned += [skinned] * len(nodes)
        return len(self.frames) - len(nodes)

    def _add(self, primitive: Any, first: int, *, skinned: bool) -> None:
        attributes = primitive.attributes
        points = torch.from_numpy(self.document.numbers(attributes.POSITION))
        indices = torch.arange(len(points))
        if primitive.indices is not None:
            indices = torch.from_numpy(self.document.numbers(primitive.indices)[:, 0]).long()
        if int(indices.max()) >= len(points):
            raise IndexError("a triangle has a corner that is none")
        triangles = _triangles(indices, primitive.mode)
        corners = {"points": points, **self._looks(primitive, len(points))}
        frames, weights = self._follows(attributes, len(points)) if skinned else _alone(len(points))
        if attributes.NORMAL is not None:
            normals = torch.from_numpy(self.document.numbers(attributes.NORMAL))
            corners["normals"] = normalize(normals, dim=-1)
        else:  # flat, as the specification asks: corners are no longer shared
            every = triangles.flatten()
            corners = {name: values[every] for name, values in corners.items()}
            frames, weights = frames[every], weights[every]
            a, b, c = corners["points"].reshape(-1, 3, 3).unbind(1)
            flat = normalize(torch.linalg.cross(b - a, c - a), dim=-1)
            corners["normals"] = flat.repeat_interleave(3, dim=0)
            triangles = torch.arange(len(every)).reshape(-1, 3)
        self.corners.append(corners)
        self.triangles.append(triangles + self.count)
        self.textures.append(torch.full((len(triangles),), self._texture(primitive)))
        self.follows.append((frames + first, weights))
        self.count += len(corners["points"])

    def _looks(self, primitive: Any, count: int) -> dict[str, Tensor]:
        """Colours, and places in the texture, of the corners."""
        base, attributes = self._base(primitive), primitive.attributes
        factor = (base.baseColorFactor if base else None) or [1.0, 1.0, 1.0, 1.0]
        colors = torch.tensor(factor[:3], dtype=torch.float64).expand(count, 3)
        if attributes.COLOR_0 is not None:
            colors = colors * torch.from_numpy(self.document.numbers(attributes.COLOR_0))[:, :3]
        uv = torch.zeros(count, 2, dtype=torch.float64)
        if base and base.baseColorTexture:
            layer = getattr(attributes, f"TEXCOORD_{base.baseColorTexture.texCoord or 0}", None)
            if layer is not None:
                uv = torch.from_numpy(self.document.numbers(layer))
        return {"colors": colors.clamp(0, 1), "uv": uv}

    def _base(self, primitive: Any) -> Any:
        """The base colour of a primitive's material, or None."""
        if primitive.material is None:
            return None
        return self.document.tables.materials[primitive.material].pbrMetallicRoughness

    def _texture(self, primitive: Any) -> int:
        """Number of the primitive's texture, -1 for none."""
        base = self._base(primitive)
        if not base or not base.baseColorTexture:
            return -1
        image = self.document.tables.textures[base.baseColorTexture.index].source
        if image is None:
            return -1
        if image not in self.pictures:
            self.pictures.append(image)
        return self.pictures.index(image)

    def _follows(self, attributes: Any, count: int) -> tuple[Tensor, Tensor]:
        """Joints of the skin that each corner follows, and how much."""
        joints, weights = [], []
        for number in range(_MOST_SETS):
            which, share = (getattr(attributes, f"{name}_{number}", None) for name in ("JOINTS", "WEIGHTS"))
            if which is None or share is None:
                break
            joints.append(torch.from_numpy(self.document.numbers(which)).long())
            weights.append(torch.from_numpy(self.document.numbers(share)))
        if not joints:
            raise ValueError("a mesh with a skin has no joints and weights")
        shares = torch.cat(weights, dim=-1).clamp_min(0)
        total = shares.sum(-1, keepdim=True)
        shares = torch.where(total > 0, shares / total.clamp_min(1e-12), torch.eye(1, shares.shape[1])[0].double())
        return torch.cat(joints, dim=-1), shares


def _alone(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, 1, dtype=torch.int64), torch.ones(count, 1, dtype=torch.float64)


def _triangles(indices: Int[Tensor, " n"], mode: int | None) -> Int[Tensor, "F 3"]:
    """Corners of the triangles of a list, a strip or a fan."""
    if mode in (None, _TRIANGLES):
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return torch.stack([indices[:1].expand(len(indices) - 2), indices[1:-1], indices[2:]], dim=-1)
    strip = torch.stack([indices[:-2], indices[1:-1], indices[2:]], dim=-1)
    strip[1::2] = strip[1::2][:, [1, 0, 2]]  # every other one is the other way round
    return strip
