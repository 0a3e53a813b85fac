"""The axes, origin and units that a fit works in, which follow from what its cameras see.

Optimisers that step along each coordinate, grids, harmonics of coordinates and all lengths among the settings depend on
axes and units, and a world has neither by nature. So a fit works in the axes of its first camera, around what the
cameras look at, at a size that the settings are made for; its results are turned back. The same video in a world that
is turned, moved or scaled then gives the same fit.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.readers.viewpoints import looked_at, seen_radius
from kg4d.data.records import PosedImages, Scene
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.covariances import rotated_covariances
from kg4d.geometry.harmonics import rotated_harmonics
from kg4d.geometry.rotations import matrix_to_quat, nearest_rotation, quat_multiply

_log = logging.getLogger(__name__)

_DISTANCE = 2.0  # of the first camera from what it looks at, units of the fit, as far as the next two allow
_LEAST_RADIUS, _LARGEST_RADIUS = 0.3, 0.85  # of what is seen, units of the fit
_MOST = 0.9  # share of the points of a place that lie within 1 unit


@dataclass(frozen=True)
class Normalisation:
    """Where a fit's axes, origin and units lie in the world of its scene: x = center + unit rotationᵀ y.

    Attributes:
        rotation: World directions to those of the fit.
        center: The origin of the fit, world units.
        unit: The fit's unit of length, world units, > 0.
        duration: The fit's unit of time, in that of the scene, > 0.
        depth_range: Nothing is drawn nearer to a camera or farther from it, units of the fit; None for no such bounds.
    """

    rotation: Float[Tensor, "3 3"]
    center: Float[Tensor, " 3"]
    unit: float = 1.0
    duration: float = 1.0
    depth_range: tuple[float, float] | None = None

    @classmethod
    def none(cls) -> "Normalisation":
        """The fit works in the axes and units of the world."""
        return cls(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Normalisation":
        """The normalisation that `state` was taken from.

        Raises:
            ValueError: It is none: no rotation, a unit that is not positive, or a range that is none. KeyError,
                TypeError: It has other keys or values.
        """
        rotation, center = (torch.tensor(state[name], dtype=torch.float64) for name in ("rotation", "center"))
        bounds = state.get("depth_range")  # earlier versions had none
        near, far = (0.0, math.inf) if bounds is None else map(float, bounds)
        found = cls(rotation, center, float(state["unit"]), float(state["duration"]))
        if rotation.shape != (3, 3) or center.shape != (3,) or not bool(center.isfinite().all()):
            raise ValueError("rotation or center is no rotation or point")
        turned = torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-4)
        if not turned or not all(0 < length < math.inf for length in (found.unit, found.duration)):
            raise ValueError("rotation is no rotation, or unit or duration is not positive")
        if bounds is None:
            return found
        if not 0 < near < far < math.inf:
            raise ValueError("depth_range is no range")
        return replace(found, depth_range=(near, far))

    def state(self) -> dict[str, Any]:
        """Plain numbers for a file; `from_state` reads them."""
        lists = {"rotation": self.rotation.tolist(), "center": self.center.tolist()}
        bounds = None if self.depth_range is None else list(self.depth_range)
        return {**lists, "unit": self.unit, "duration": self.duration, "depth_range": bounds}

    def times(self, times: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Times of the scene in the fit's unit."""
        return times / self.duration

    def points(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """World positions in the axes and units of the fit."""
        rotation, center = self.rotation.to(points.device), self.center.to(points.device)
        moved: Tensor = (points.double() - center) @ (rotation.mT / self.unit)
        return moved.to(points.dtype)

    def cameras(self, cameras: Cameras) -> Cameras:
        """The cameras of the world in the axes and units of the fit; they see the same."""
        rotation, center = self.rotation.to(cameras.viewmats.device), self.center.to(cameras.viewmats.device)
        viewmats = cameras.viewmats.double()
        viewmats[:, :3, 3] = (viewmats[:, :3, :3] @ center + viewmats[:, :3, 3]) / self.unit
        viewmats[:, :3, :3] = viewmats[:, :3, :3] @ rotation.mT
        return replace(cameras, viewmats=viewmats.to(cameras.viewmats.dtype))

    def images(self, images: PosedImages) -> PosedImages:
        """The same images with cameras and times of the fit; the matrices are rounded to a millionth of its unit.

        Where a coordinate has no gradient, Adam would step by the signs of rounding errors, which the world decides.
        """
        cameras = self.cameras(images.cameras)
        rounded = replace(cameras, viewmats=cameras.viewmats.double().round(decimals=6).to(cameras.viewmats.dtype))
        return replace(images, cameras=rounded, times=self.times(images.times))

    def scene(self, scene: Scene) -> Scene:
        """The same scene as the fit sees it."""
        keypoints = scene.keypoints
        if keypoints is not None and keypoints.truth is not None:
            keypoints = replace(keypoints, truth=self.points(keypoints.truth))
        return replace(
            scene,
            reference=self.images(scene.reference),
            ring=scene.ring and self.images(scene.ring),
            test=scene.test and self.images(scene.test),
            videos=scene.videos and self.images(scene.videos),
            keypoints=keypoints,
            points=scene.points and scene.points._replace(points=self.points(scene.points.points)),
        )

    def world_points(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Positions of the fit in the world."""
        rotation, center = self.rotation.to(points.device), self.center.to(points.device)
        moved: Tensor = points.double() @ (rotation * self.unit) + center
        return moved.to(points.dtype)

    def world_state(self, state: GaussianState) -> GaussianState:
        """Gaussians of the fit in the world."""
        rotation = self.rotation.mT.to(state.means)
        if state.covariances is None:
            quats, scales = state.ellipsoids
            shape = {"quats": quat_multiply(matrix_to_quat(rotation), quats), "scales": scales * self.unit}
        else:
            shape = {"covariances": rotated_covariances(state.covariances, rotation) * self.unit**2}
        return replace(
            state,
            means=self.world_points(state.means),
            **shape,
            harmonics=None if state.harmonics is None else rotated_harmonics(state.harmonics, self.rotation.mT),
        )


def normalisation_of(scene: Scene) -> Normalisation:
    """The normalisation that a scene asks for, with the range of depths that it states."""
    found = _normalisation_of(scene)
    if scene.depth_range is None:
        return found
    near, far = scene.depth_range
    _log.info("%s: nothing is drawn nearer than %.3g or farther than %.3g, as the scene says", scene.name, near, far)
    return replace(found, depth_range=(near / found.unit, far / found.unit))


def _normalisation_of(scene: Scene) -> Normalisation:
    """The normalisation that a scene asks for, without its range of depths.

    The first camera of the reference video looks along -Z with +Y up in its image. The origin is what the cameras of
    the video and of the ring look at (`looked_at`). The first camera is 2 units away from it, unless what is seen
    (`seen_radius`) would then have a radius outside of 0.3 to 0.85, to which it is brought. The video ends at time 1.

    A whole place has the median of its points as the origin, and nine tenths of them within 1 unit.
    """
    rotation, duration = _upright(scene.reference.cameras[0]), float(scene.reference.times[-1])
    if scene.backdrop and scene.points is not None:
        points = scene.points.points.double() @ rotation.mT  # medians along the axes of the fit, not of the world
        center = points.median(0).values
        unit = float((points - center).norm(dim=-1).quantile(_MOST))
        if unit > 0:  # else they are all one point, and tell nothing
            return Normalisation(rotation, center @ rotation, unit, duration)
    parts = [scene.reference] if scene.ring is None else [scene.reference, scene.ring]
    center, first = looked_at([part.cameras for part in parts]).double(), scene.reference.cameras[0]
    radius = seen_radius(parts, center.float())
    away = (first.centers[0].double() - center).norm().item() / _DISTANCE
    unit = min(max(away, radius / _LARGEST_RADIUS), radius / _LEAST_RADIUS) if radius > 0 else away
    if abs(unit - 1) > 0.01:
        _log.info(
            "%s: the fit works in units of %.3g, around (%.3g, %.3g, %.3g); what is seen has a radius of %.2g units",
            scene.name,
            unit,
            *center.tolist(),
            radius / unit,
        )
    return Normalisation(rotation, center, unit, duration)


def _upright(camera: Cameras) -> Float[Tensor, "3 3"]:
    """The rotation after which a camera looks along -Z with +Y up in its image."""
    opengl = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    return nearest_rotation(opengl[:, None] * camera.viewmats[0, :3, :3].double())
