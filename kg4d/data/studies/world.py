"""The same scene in another world: turned, scaled, moved, slower, or seen in a mirror.

The images stay as they are (flipped, in the mirror), so no result may depend on it: for studies that check this, and
for comparisons in which nothing may hang on an axis.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene, Truth
from kg4d.data.studies.settings import WorldConfig
from kg4d.geometry.cameras import Cameras


def in_world(scene: Scene, config: WorldConfig) -> Scene:
    """The scene in the world that the settings describe; itself where they change nothing."""
    if config.mirrored:
        scene = mirrored(scene)
    if config.slower != 1:
        scene = slower(scene, config.slower)
    if config.scale != 1 or any(config.turn) or any(config.shift):
        scene = moved(scene, turn(config.turn, math.hypot(*config.turn)), config.scale, config.shift)
    return scene


def turn(axis: Sequence[float | int], degrees: float) -> Float[Tensor, "3 3"]:
    """Rotation matrix (float64) about an axis, of any length but 0 unless the angle is 0."""
    x, y, z = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    angle = math.radians(degrees)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def moved(
    scene: Scene,
    rotation: Float[Tensor, "3 3"] | None = None,
    scale: float = 1.0,
    shift: Sequence[float | int] = (0.0, 0.0, 0.0),
) -> Scene:
    """What was at x is at scale R x + shift.

    Args:
        scene: Not modified.
        rotation: R, float64; none when None.
        scale: > 0.
        shift: Three numbers, in units of the scaled world.
    """
    R = torch.eye(3, dtype=torch.float64) if rotation is None else rotation
    offset = torch.tensor(shift, dtype=torch.float64)

    def placed(cameras: Cameras) -> Cameras:
        viewmats = cameras.viewmats.double()
        viewmats[:, :3, :3] = viewmats[:, :3, :3] @ R.T
        viewmats[:, :3, 3] = scale * viewmats[:, :3, 3] - viewmats[:, :3, :3] @ offset
        return replace(cameras, viewmats=viewmats.float())

    def there(points: Tensor) -> Tensor:
        return (scale * points.double() @ R.T + offset).float()

    near_far = scene.depth_range and (scale * scene.depth_range[0], scale * scene.depth_range[1])
    truth = scene.truth
    if truth is not None and truth.depth is not None:
        truth = replace(truth, depth=replace(truth.depth, depth=scale * truth.depth.depth))
    scene = replace(scene, depth_range=near_far, truth=truth)
    return _changed(scene, lambda images: replace(images, cameras=placed(images.cameras)), there)


def slower(scene: Scene, factor: float) -> Scene:
    """What happened at t happens at factor t."""
    return _changed(scene, lambda images: replace(images, times=images.times * factor), lambda points: points)


def mirrored(scene: Scene) -> Scene:
    """Left is right: in the world, along x, and in the images. Left and right keypoints keep their names."""

    def flipped(images: PosedImages) -> PosedImages:
        viewmats, Ks = images.cameras.viewmats.clone(), images.cameras.Ks.clone()
        viewmats[:, 0] *= -1  # x of the camera, and x of the world: the matrix stays a rotation
        viewmats[:, :, 0] *= -1
        Ks[:, 0, 2] = images.cameras.width - Ks[:, 0, 2]
        return replace(images, cameras=replace(images.cameras, viewmats=viewmats, Ks=Ks), images=images.images.flip(2))

    other = _changed(scene, flipped, lambda points: points * torch.tensor([-1.0, 1.0, 1.0]))
    return replace(
        other,
        flow=scene.flow and _flipped_flow(scene.flow),
        keypoints=other.keypoints and _flipped(other.keypoints, scene),
        regions={name: masks.flip(2) for name, masks in scene.regions.items()},
        truth=other.truth and _flipped_truth(other.truth),
    )


def _flipped_flow(flow: Flow) -> Flow:
    return Flow(flow.flow.flip(2) * torch.tensor([-1.0, 1.0]), flow.weights.flip(2))


def _flipped_truth(truth: Truth) -> Truth:
    depth = truth.depth and replace(truth.depth, depth=truth.depth.depth.flip(2), weights=truth.depth.weights.flip(2))
    moving = None if truth.moving is None else truth.moving.flip(2)
    return replace(truth, depth=depth, flow=truth.flow and _flipped_flow(truth.flow), moving=moving)


def _flipped(keypoints: Keypoints, scene: Scene) -> Keypoints:
    """Keypoints at the mirrored pixels of each set of images."""

    def pixels(uv: Tensor, images: PosedImages | None) -> Tensor:
        width = (images or scene.reference).cameras.width
        return torch.stack([width - uv[..., 0], uv[..., 1]], dim=-1)

    return replace(
        keypoints,
        uv=pixels(keypoints.uv, scene.reference),
        ring_uv=None if keypoints.ring_uv is None else pixels(keypoints.ring_uv, scene.ring),
        test_uv=None if keypoints.test_uv is None else pixels(keypoints.test_uv, scene.test),
    )


def _changed(scene: Scene, images: Callable[[PosedImages], PosedImages], points: Callable[[Tensor], Tensor]) -> Scene:
    """The scene with all its images and all its world positions changed."""
    keypoints = scene.keypoints
    if keypoints is not None and keypoints.truth is not None:
        keypoints = replace(keypoints, truth=points(keypoints.truth))
    truth = scene.truth
    if truth is not None and truth.surface is not None:
        truth = replace(truth, surface=points(truth.surface))
    return replace(
        scene,
        reference=images(scene.reference),
        ring=scene.ring and images(scene.ring),
        test=scene.test and images(scene.test),
        keypoints=keypoints,
        points=scene.points and scene.points._replace(points=points(scene.points.points)),
        truth=truth,
    )
