"""A small body that moves as its bones allow, what a camera sees of it, and its lift."""

import math

import torch
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rotations import quat_rotate
from kg4d.lift.record import Lift
from kg4d.lift.settings import LiftConfig
from kg4d.lift.solve import lift_keypoints
from kg4d.lift.surface import SurfaceTracks

FRAMES, SIZE = 9, 256
TIMES = torch.arange(FRAMES) / (FRAMES - 1)
SLOW = 3.7  # weight of the accelerations of bodies that need a whole clip for a turn or a bend
CONFIG = LiftConfig(steps=150, hypotheses=3, acceleration=SLOW)
# A trunk of three joints and a limb of two bones. Every bone leans towards the camera or away from it, so that pixels
# and lengths determine on which side it moves.
BODY = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.25], [0.0, 0.4, -0.2], [-0.3, 0.1, 0.2], [-0.3, -0.15, 0.35]])
PARENTS = torch.tensor([-1, 0, 0, 0, 3])


def cameras(radius: float = 2.0) -> Cameras:
    """One that stands still on +Z; far away, with a narrow field of view, it is as good as orthographic."""
    fov = 2 * math.degrees(math.atan(math.tan(math.radians(24.5)) * 2 / radius))
    return orbit([0.0], [0.0], radius, fov, SIZE, SIZE)[torch.zeros(FRAMES, dtype=torch.int64)]


def seen(tracks: Tensor, view: Cameras) -> Tensor:
    return torch.stack([view[t].project(tracks[t]).pixels[0] for t in range(len(tracks))])


def rotation_about(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """T quaternions, from none to all of a rotation about an axis."""
    half = torch.deg2rad(degrees * TIMES) / 2
    return torch.cat([half.cos()[:, None], half.sin()[:, None] * torch.tensor(axis)], dim=-1)


def rotating_body() -> Tensor:
    """The body rotates about the vertical and moves sideways."""
    quats = rotation_about((0.0, 1.0, 0.0), 50.0)[:, None].expand(-1, 5, -1)
    return quat_rotate(quats, BODY.expand(FRAMES, -1, -1)) + TIMES[:, None, None] * torch.tensor([0.2, 0.1, 0.0])


def bending_limb() -> Tensor:
    """The trunk stands still; the second bone of the limb swings towards the camera."""
    tracks = BODY.repeat(FRAMES, 1, 1)
    bone = (BODY[4] - BODY[3]).expand(FRAMES, 3)
    tracks[:, 4] = BODY[3] + quat_rotate(rotation_about((-1.0, 0.0, 0.0), 60.0), bone)
    return tracks


def lift(
    pixels: Tensor,
    weights: Tensor | None = None,
    view: Cameras | None = None,
    config: LiftConfig = CONFIG,
    seed: int = 0,
    surface: SurfaceTracks | None = None,
) -> Lift:
    return lift_keypoints(
        config,
        rest=BODY,
        parents=PARENTS,
        pixels=pixels,
        weights=torch.ones(FRAMES, 5) if weights is None else weights,
        cameras=cameras() if view is None else view,
        times=TIMES,
        generator=torch.Generator().manual_seed(seed),
        surface=surface,
    )


def error(found: Lift, truth: Tensor) -> float:
    return float((found.tracks - truth).norm(dim=-1).mean())


def noisy(pixels: Tensor, deviation: float, seed: int = 3) -> Tensor:
    return pixels + deviation * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
