"""`gltf:FILE#CLIP@FRAMES`: a skinned, animated glTF file as a scene in which everything is known exactly."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.batches.batch import step_generator
from kg4d.data.gltf.animation import Clip, node_matrices
from kg4d.data.gltf.drawing import SAMPLES, at_centres, draw, fine_fragments
from kg4d.data.gltf.figure import Body, Figure, read_figure
from kg4d.data.gltf.joints import Skeleton, choose_joints
from kg4d.data.records import Depth, Flow, Scene, Truth
from kg4d.data.turntable import (
    FOV_Y,
    RADIUS,
    RING_VIEWS,
    TEST_AZIMUTHS,
    Drawn,
    Views,
    exact_keypoints,
    ring_cameras,
    video_cameras,
)
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.sampling import pixel_centers
from kg4d.utils.names import name_of_scene

PREFIX = "gltf:"
FRAMES = 16
SURFACE_POINTS = 10_000
_YAW = 40.0  # degrees about +Y: the reference view sees the front, which is +Z in glTF, and a side
_HALF_EXTENT, _IN_FRAME = 0.8, 0.96  # the largest half extent; how much of a picture's half the body may fill
_TRACKED = 32  # times of the clip by which the skeleton is chosen
_LOOP = 0.02  # the ends of a loop are this near to each other, in units of the body's size
_SLACK, _PER_DEPTH, _MOST_SLACK = 0.03, 1.5, 0.18  # how far behind the surface a joint may lie and be visible
_LEAST_VIEWS = 0.5  # of the ring, that must show the body where a keypoint is
_SAME_DEPTH = 0.02  # how far behind the surface at a sample a point of it may lie, world units


class _Request(NamedTuple):
    path: Path
    clip: str
    frames: int


@torch.no_grad()
def make_gltf_scene(name: str, size: int = 256) -> Scene:
    """Render a character of a file, in the same layout as the scenes on disk.

    The reference video is at azimuth 0, the ring has 16 views of frame 0, and there are four test videos around the
    character. It is turned by 40 degrees about +Y, and scaled and moved as a whole so that every camera sees all of it
    at all times. The end of a clip that is a loop is left out. Images hold 8-bit values and flow float16 values, as
    files would.

    Args:
        name: `gltf:FILE#CLIP@FRAMES`; the clip, by name or index, may be left out where there is one, and so may the
            number of frames.
        size: Side of the images, px.

    Raises:
        InputError: The file is missing, damaged, or has no such clip, no skin or no animation.
    """
    path, clip_name, frames = _request(name)
    figure = read_figure(path)
    clip = figure.clip(f"{PREFIX}{path}", clip_name)
    acting = _acted(figure, clip, frames)
    cameras, around, body = video_cameras(size), ring_cameras(size), figure.body
    poses = list(zip(acting.points, acting.normals, strict=True))
    first = draw(body, figure.textures, *poses[0], around)
    skeleton = _skeleton(figure, acting, _covered(acting.nodes[0], around, first))
    truth = acting.nodes[:, list(skeleton.joints)]
    surface = _surface(body, acting.points)
    slack = (_SLACK + _PER_DEPTH * torch.cdist(truth[0], surface[0]).amin(1)).clamp_max(_MOST_SLACK).tolist()

    drawn = [draw(body, figure.textures, points, normals, cameras) for points, normals in poses]
    views = Views.of(cameras, drawn, truth, slack)
    ring = Views.of(around, [first], truth[:1], slack)
    depth = Depth(views.depths[0, ..., 0], views.alphas[0, ..., 0])
    names = tuple(figure.nodes.names[joint] for joint in skeleton.joints)
    return Scene(
        name=name_of_scene(name),
        reference=views.posed_images(range(1), frames),
        ring=ring.posed_images(range(RING_VIEWS), frames),
        keypoints=exact_keypoints(names, skeleton.parents, truth, views, ring),
        flow=_flow(body, acting.points, cameras[0]),
        test=views.posed_images(range(1, 1 + len(TEST_AZIMUTHS)), frames),
        truth=Truth(depth=depth, surface=surface),
    )


def _request(name: str) -> _Request:
    """What a scene's name asks for."""
    asked, at, count = name.removeprefix(PREFIX).rpartition("@")
    if not at or not count.isdecimal():
        asked, count = name.removeprefix(PREFIX), str(FRAMES)
    if int(count) < 2:
        raise InputError(name, f"cannot move in {count} frames", "make at least two")
    path, _, clip = asked.partition("#")
    return _Request(Path(path), clip, int(count))


@dataclass(frozen=True)
class _Acting:
    """A body at T times, world units."""

    points: Float[Tensor, "T V 3"]
    normals: Float[Tensor, "T V 3"]
    nodes: Float[Tensor, "T N 3"]
    tracks: Float[Tensor, "times N 3"]  # of the nodes over the clip, at as many times whatever T is


def _acted(figure: Figure, clip: Clip, frames: int) -> _Acting:
    """The clip at evenly spaced times, turned, scaled and moved so that the cameras see all of it."""
    start, end = clip.span
    ends = figure.posed(clip, torch.tensor([start, end], dtype=torch.float64)).points
    loop = float((ends[1] - ends[0]).norm(dim=-1).max()) < _LOOP * _extent(ends[0])
    times = torch.linspace(start, end, frames + loop, dtype=torch.float64)[:frames]
    tracks = node_matrices(figure.nodes, clip, torch.linspace(start, end, _TRACKED, dtype=torch.float64))[..., :3, 3]
    posed, yaw = figure.posed(clip, times), math.radians(_YAW)
    turn = torch.tensor(
        [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]], dtype=torch.float64
    )
    used = torch.unique(figure.body.triangles)
    points = posed.points @ turn.mT
    low, high = points[:, used].amin((0, 1)), points[:, used].amax((0, 1))
    center = (low + high) / 2
    scale = _fitting_scale((points[:, used] - center).reshape(-1, 3))
    return _Acting(
        ((points - center) * scale).float(),
        (posed.normals @ turn.mT).float(),
        ((posed.nodes @ turn.mT - center) * scale).float(),
        ((tracks @ turn.mT - center) * scale).float(),
    )


def _extent(points: Float[Tensor, "V 3"]) -> float:
    return float((points.amax(0) - points.amin(0)).max())


def _fitting_scale(points: Float[Tensor, "n 3"]) -> float:
    """The largest factor with which cameras at all azimuths see all points, and none is too far from the middle.

    From the side a circle of radius r about the axis reaches to the angle asin(r / d) at distance d. A point of it is
    highest in the image where it is nearest to the camera.
    """
    around, upwards = points[:, [0, 2]].norm(dim=-1), points[:, 1].abs()
    tangent = _IN_FRAME * math.tan(math.radians(FOV_Y / 2))
    sideways = RADIUS * math.sin(math.atan(tangent)) / around.max()
    vertically = RADIUS * tangent / (upwards + tangent * around).max()
    return float(torch.stack([sideways, vertically, _HALF_EXTENT / points.abs().max()]).min())


def _covered(nodes: Float[Tensor, "N 3"], cameras: Cameras, drawn: Drawn) -> Bool[Tensor, " N"]:
    """Whether nodes lie inside of what is drawn in at least half of the views: some rigs have joints in the air."""
    last = torch.tensor([cameras.width, cameras.height]) - 1
    column, row = cameras.project(nodes).pixels.minimum(last).clamp_min(0).long().unbind(-1)
    hit = drawn.images[torch.arange(len(cameras))[:, None], row, column, 3] > 0
    return hit.float().mean(0) >= _LEAST_VIEWS


def _skeleton(figure: Figure, acting: _Acting, inside: Bool[Tensor, " N"]) -> Skeleton:
    body = figure.body
    areas = _areas(body, acting.points[0]) / 3
    corners = torch.zeros(len(body.points)).index_add(0, body.triangles.flatten(), areas.repeat_interleave(3))
    shares = (corners / corners.sum()) @ body.weights.float()
    joints = torch.zeros(len(figure.nodes.names)).index_add(0, body.frames, shares * body.skinned) * inside
    return choose_joints(acting.tracks, figure.nodes.parents, joints, _extent(acting.points[0]))


def _areas(body: Body, points: Float[Tensor, "V 3"]) -> Float[Tensor, " F"]:
    a, b, c = points[body.triangles].unbind(1)
    areas: Tensor = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2
    return areas


def _surface(body: Body, points: Float[Tensor, "T V 3"]) -> Float[Tensor, "T N 3"]:
    """The same points of the surface in all frames, evenly spread over it in the first."""
    generator = step_generator(0, "surface", 0)
    areas = _areas(body, points[0]).double().cumsum(0)
    places = torch.rand(SURFACE_POINTS, generator=generator, dtype=torch.float64) * areas[-1]
    corners = body.triangles[torch.searchsorted(areas, places).clamp_max(len(areas) - 1)]
    first, second = torch.rand(2, SURFACE_POINTS, generator=generator)
    root = first.sqrt()  # uniform on a triangle: Osada et al. 2002, "Shape distributions", section 4.2
    weights = torch.stack([1 - root, root * (1 - second), root * second], dim=-1)
    return torch.stack([(weights[..., None] * frame[corners]).sum(1) for frame in points])


def _flow(body: Body, points: Float[Tensor, "T V 3"], camera: Cameras) -> Flow:
    """Flow of the surface point at each pixel's centre, with weight 1 where it is seen in the next frame too."""
    seen = [fine_fragments(body, frame, camera) for frame in points]
    centers = pixel_centers(camera.height, camera.width)
    flows, weights = [], []
    for frame, fragments in enumerate(seen[:-1]):
        here = at_centres(fragments)
        hit = here.triangles >= 0
        corners = body.triangles[here.triangles[hit]]
        later = camera.project((here.weights[hit][..., None] * points[frame + 1][corners]).sum(1))
        flow, weight = torch.zeros(*hit.shape, 2), torch.zeros(hit.shape)
        flow[hit] = (later.pixels[0] - centers[hit]).half().float()
        weight[hit] = _shown(later.pixels[0], later.depths[0], seen[frame + 1].depths).float()
        flows.append(flow)
        weights.append(weight)
    return Flow(torch.stack(flows), torch.stack(weights))


def _shown(
    pixels: Float[Tensor, "n 2"], depths: Float[Tensor, " n"], surface: Float[Tensor, "fine_h fine_w"]
) -> Bool[Tensor, " n"]:
    """Whether points lie inside the image and on the surface of the sample that is nearest to them."""
    place = (pixels * SAMPLES).floor()
    inside = ((place >= 0) & (place < torch.tensor(surface.shape[::-1]))).all(-1)
    column, row = torch.where(inside[:, None], place, 0.0).long().unbind(-1)
    behind = depths - surface[row, column]
    return inside & behind.isfinite() & (behind < _SAME_DEPTH)
