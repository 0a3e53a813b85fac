"""The same scene in another world: turned, scaled, moved, slower, or seen in a mirror. Its images stay the same."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kg4d.data.records import Flow, PosedImages, Scene
from kg4d.geometry.cameras import Cameras


def turn(axis: Sequence[float], degrees: float) -> Tensor:
    """Rotation matrix about an axis, of any length but 0."""
    x, y, z = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    angle = math.radians(degrees)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def moved(
    scene: Scene, rotation: Tensor | None = None, scale: float = 1.0, shift: Sequence[float] = (0.0, 0.0, 0.0)
) -> Scene:
    """What was at x is at scale R x + shift."""
    R = torch.eye(3, dtype=torch.float64) if rotation is None else rotation
    offset = torch.tensor(shift, dtype=torch.float64)

    def placed(cameras: Cameras) -> Cameras:
        viewmats = cameras.viewmats.double()
        viewmats[:, :3, :3] = viewmats[:, :3, :3] @ R.T
        viewmats[:, :3, 3] = scale * viewmats[:, :3, 3] - viewmats[:, :3, :3] @ offset
        return replace(cameras, viewmats=viewmats.float())

    def there(points: Tensor) -> Tensor:
        return (scale * points.double() @ R.T + offset).float()

    return _changed(scene, lambda images: replace(images, cameras=placed(images.cameras)), there)


def slower(scene: Scene, factor: float) -> Scene:
    """What happened at t happens at factor t."""
    return _changed(scene, lambda images: replace(images, times=images.times * factor), lambda points: points)


def mirrored(scene: Scene) -> Scene:
    """Left is right: in the world, along x, and in the images. Left and right keypoints keep their names."""
    width = scene.reference.cameras.width

    def flipped(images: PosedImages) -> PosedImages:
        viewmats, Ks = images.cameras.viewmats.clone(), images.cameras.Ks.clone()
        viewmats[:, 0] *= -1  # x of the camera, and x of the world: the matrix stays a rotation
        viewmats[:, :, 0] *= -1
        Ks[:, 0, 2] = width - Ks[:, 0, 2]
        return replace(images, cameras=replace(images.cameras, viewmats=viewmats, Ks=Ks), images=images.images.flip(2))

    def pixels(uv: Tensor | None) -> Tensor | None:
        return None if uv is None else torch.stack([width - uv[..., 0], uv[..., 1]], dim=-1)

    other = _changed(scene, flipped, lambda points: points * torch.tensor([-1.0, 1.0, 1.0]))
    keypoints, flow = other.keypoints, other.flow
    if keypoints is not None:
        uv = pixels(keypoints.uv)
        assert uv is not None
        keypoints = replace(keypoints, uv=uv, ring_uv=pixels(keypoints.ring_uv), test_uv=pixels(keypoints.test_uv))
    if flow is not None:
        flow = Flow(flow.flow.flip(2) * torch.tensor([-1.0, 1.0]), flow.weights.flip(2))
    return replace(other, keypoints=keypoints, flow=flow)


def _changed(scene: Scene, images: Callable[[PosedImages], PosedImages], points: Callable[[Tensor], Tensor]) -> Scene:
    keypoints = scene.keypoints
    if keypoints is not None and keypoints.truth is not None:
        keypoints = replace(keypoints, truth=points(keypoints.truth))
    return replace(
        scene,
        reference=images(scene.reference),
        ring=scene.ring and images(scene.ring),
        test=scene.test and images(scene.test),
        keypoints=keypoints,
    )
