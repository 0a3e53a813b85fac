"""Camera poses: orbits around the origin, look-at matrices, and conversion from OpenGL axes."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.rotations import quat_to_matrix


def intrinsics_from_fov(fov_y_degrees: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Pinhole matrix in pixels: square pixels, principal point at the image centre (width / 2, height / 2).

    Args:
        fov_y_degrees: Full vertical field of view, in (0, 180).
        width: Image width in pixels.
        height: Image height in pixels.

    Raises:
        ValueError: The field of view is outside (0, 180).

    >>> intrinsics_from_fov(90.0, 64, 32)[0]
    tensor([16.,  0., 32.])
    """
    if not 0 < fov_y_degrees < 180:
        raise ValueError(f"fov_y_degrees must lie in (0, 180), got {fov_y_degrees}")
    focal = height / 2 / math.tan(math.radians(fov_y_degrees) / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def look_at(eyes: Float[Tensor, "C 3"], target: Float[Tensor, " 3"], up: Float[Tensor, " 3"]) -> Float[Tensor, "C 4 4"]:
    """World-to-camera matrices of cameras at `eyes` that look at `target`, with `up` upwards in the image.

    Args:
        eyes: Camera centres, world units.
        target: The point that every camera has in its principal point.
        up: A direction of any length, not parallel to any line of sight.

    Raises:
        ValueError: An eye is at the target, or a line of sight is parallel to `up`.
    """
    forward = normalize(target - eyes, dim=-1)
    right = torch.linalg.cross(forward, normalize(up, dim=-1).expand_as(forward))
    if (right.norm(dim=-1) < 1e-6).any():
        raise ValueError("a camera stands at its target or looks along the up direction")
    right = normalize(right, dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    return _rigid(rotation, -(rotation @ eyes[..., None]))


def orbit(
    azimuths_degrees: Sequence[float] | Float[Tensor, " C"],
    elevations_degrees: Sequence[float] | Float[Tensor, " C"],
    radius: float,
    fov_y_degrees: float,
    width: int,
    height: int,
) -> Cameras:
    """Cameras on a sphere around the origin, looking at it, with +Y up.

    Azimuth a and elevation e stand at radius (sin a cos e, sin e, cos a cos e): azimuth 0 is on +Z, 90 on +X.

    Args:
        azimuths_degrees: One per camera.
        elevations_degrees: One per camera, in (-90, 90).
        radius: Distance to the origin, world units, > 0.
        fov_y_degrees: Full vertical field of view.
        width: Image width in pixels.
        height: Image height in pixels.

    Raises:
        ValueError: The two lists differ in length, the radius is not positive, or a camera is at a pole.

    >>> orbit([90.0], [0.0], 2.0, 49.1, 64, 64).project(torch.zeros(3))
    Projected(pixels=tensor([[32., 32.]]), depths=tensor([2.]))
    """
    if radius <= 0:
        raise ValueError(f"radius must be positive, got {radius}")
    if len(azimuths_degrees) != len(elevations_degrees):
        raise ValueError(f"got {len(azimuths_degrees)} azimuths but {len(elevations_degrees)} elevations")
    azimuths = torch.deg2rad(torch.as_tensor(azimuths_degrees, dtype=torch.float64))
    elevations = torch.deg2rad(torch.as_tensor(elevations_degrees, dtype=torch.float64))
    level = elevations.cos()
    eyes = radius * torch.stack([azimuths.sin() * level, elevations.sin(), azimuths.cos() * level], dim=-1)
    viewmats = look_at(eyes, eyes.new_zeros(3), eyes.new_tensor([0.0, 1.0, 0.0])).float()
    K = intrinsics_from_fov(fov_y_degrees, width, height)
    return Cameras(viewmats, K.repeat(len(viewmats), 1, 1), width, height)


def turned(
    camera: Cameras, degrees: Float[Tensor, " C"], center: Float[Tensor, " 3"], axis: Float[Tensor, " 3"]
) -> Cameras:
    """One camera, carried around an axis, to the right of its image for positive angles where the axis points upwards.

    Args:
        camera: A single one; at 0 degrees the result is this camera.
        degrees: Angles.
        center: A point of the axis, world units; what the image shows of it stays the same.
        axis: Direction of the axis, of any length above 0.
    """
    half = torch.deg2rad(degrees.double()) / 2
    quats = torch.cat([half.cos()[:, None], half.sin()[:, None] * normalize(axis.double(), dim=-1)], dim=-1)
    viewmat = camera.viewmats[0].double()
    rotation = viewmat[:3, :3] @ quat_to_matrix(quats).mT
    seen = viewmat[:3, :3] @ center.double() + viewmat[:3, 3]  # the centre, in every camera
    viewmats = _rigid(rotation, (seen - rotation @ center.double())[..., None]).to(camera.viewmats)
    return replace(camera, viewmats=viewmats, Ks=camera.Ks.expand(len(degrees), 3, 3))


def viewmats_from_opengl(camera_to_world: Float[Tensor, "C 4 4"]) -> Float[Tensor, "C 4 4"]:
    """World-to-camera matrices in OpenCV axes from camera-to-world matrices in OpenGL axes (+Y up, looking along -Z).

    This is `transform_matrix` of the NeRF, D-NeRF and Blender layouts.

    Raises:
        ValueError: A matrix is not a rotation with a translation (it scales, mirrors or shears).
    """
    rotation = camera_to_world[:, :3, :3] * camera_to_world.new_tensor([1.0, -1.0, -1.0])
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    if ((rotation.mT @ rotation - identity).abs() > 1e-3).any() or (torch.linalg.det(rotation) < 0).any():
        raise ValueError("camera_to_world must hold rotations and translations only")
    return _rigid(rotation.mT, -(rotation.mT @ camera_to_world[:, :3, 3:]))


def _rigid(rotation: Float[Tensor, "C 3 3"], translation: Float[Tensor, "C 3 1"]) -> Float[Tensor, "C 4 4"]:
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, translation], dim=-1), last], dim=-2)
