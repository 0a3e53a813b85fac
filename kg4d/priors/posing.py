"""Cameras of the input and of its views: they stand around the origin and look at it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from kg4d.data.synthetic import FOV_Y, RADIUS
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit


def posed(
    azimuths: Sequence[float], elevations: Sequence[float], width: int, height: int, fov_y: float | None = None
) -> Cameras:
    """The camera of the input, and those of its other images.

    Args:
        azimuths: Degrees, one a camera, that of the input first.
        elevations: Degrees above the horizon.
        width: Image width in pixels.
        height: Image height in pixels.
        fov_y: Vertical field of view of all but the first, degrees; that of the first when None. They stand where the
            object is as large in the image as in the first.
    """
    fov_y = FOV_Y if fov_y is None else fov_y
    radius = RADIUS * math.tan(math.radians(FOV_Y / 2)) / math.tan(math.radians(fov_y / 2))
    first = orbit(azimuths[:1], elevations[:1], RADIUS, FOV_Y, width, height)
    others = orbit(azimuths[1:], elevations[1:], radius, fov_y, width, height)
    return replace(first, viewmats=torch.cat([first.viewmats, others.viewmats]), Ks=torch.cat([first.Ks, others.Ks]))
