"""The first Gaussians, as the configuration asks for them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.gaussians.far_side import MirroredFarSide
from kg4d.gaussians.init import inflate_matte, initial_state, points_in_ball, visual_hull
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.points import PointCloud, read_points, without_outliers
from kg4d.gaussians.settings import FarSide, GaussiansConfig, InitKind
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.degrees import harmonics_count

_log = logging.getLogger(__name__)

_CUT = 0.01  # share of the first Gaussians in the outermost voxels of the hull's grid that is worth a warning
_ABOUT = {
    InitKind.HULL: "in the visual hull of the views",
    InitKind.INFLATED: "on the only view of the first frame, inflated: what it does not show is a guess",
    InitKind.BALL: "in a ball",
    InitKind.POINTS: "at the points of the scene",
}


def build_gaussians(
    config: GaussiansConfig,
    cameras: Cameras | None,
    images: Float[Tensor, "R H W 4"] | None,
    keypoints: int,
    generator: torch.Generator,
    normalised: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]] = lambda points: points,
    middle: Float[Tensor, "H W"] | None = None,
    cloud: PointCloud | None = None,
) -> GaussianModel:
    """Make the model that the first stage trains.

    Args:
        config: How many Gaussians, and where they start.
        cameras: Of the R views of the first frame; None where there are none.
        images: These views, RGBA in [0, 1], colours not premultiplied; None where there are none.
        keypoints: Number of keypoint logits of each Gaussian.
        generator: Source of randomness (CPU).
        normalised: From the world of the point cloud of `init: points` to that of the cameras.
        middle: Depths of the surface about which a view is inflated, world units; None is the plane through the origin.
        cloud: Points of the scene, where it has any; `init: points` takes them unless `points` names a file.

    Raises:
        InputError: The config asks for a start that the input does not allow.
    """
    views = (cameras, images) if cameras is not None and images is not None else None
    kind = settled_init(config.init, cameras, cloud)
    if config.init is InitKind.AUTO:
        _log.info("first Gaussians: %s (gaussians.init: auto)", _ABOUT[kind])
    start = _points(config, kind, views, generator, normalised, middle, cloud)
    opacity = config.initial_opacity
    if opacity is None:
        opacity = 0.1 if kind is InitKind.BALL else 0.5
    state = initial_state(start.points, start.colors, opacity, keypoints, generator)
    if config.sh_degree > 0:
        state = replace(state, harmonics=state.means.new_zeros(len(state), harmonics_count(config.sh_degree), 3))
    return GaussianModel.from_state(state, config.isotropic)


def far_side_of(
    config: GaussiansConfig,
    cameras: Cameras | None,
    images: Float[Tensor, "R H W 4"] | None,
    middle: Float[Tensor, "H W"] | None = None,
) -> MirroredFarSide | None:
    """What ties the far side to the near one, where Gaussians start from the only view, inflated; else None.

    `build_gaussians` then makes the near side alone, with half of the Gaussians.

    Args:
        config: How Gaussians start.
        cameras: Of the views of the first frame; None where there are none.
        images: These views, as for `build_gaussians`.
        middle: As for `build_gaussians`.
    """
    if cameras is None or images is None or settled_init(config.init, cameras) is not InitKind.INFLATED:
        return None
    if config.far_side is not FarSide.MIRRORED:
        return None
    if middle is None:  # as in `inflate_matte`
        middle = cameras.viewmats[0, 2, 3].expand(cameras.height, cameras.width)
    return MirroredFarSide(cameras[0], middle, images[0, ..., :3])


def settled_init(kind: InitKind, cameras: Cameras | None, cloud: PointCloud | None = None) -> InitKind:
    """Where Gaussians start, with `auto` decided by points or views of the first frame (None: there are none)."""
    if kind is not InitKind.AUTO:
        return kind
    if cloud is not None:
        return InitKind.POINTS
    if cameras is None:
        return InitKind.BALL
    return InitKind.HULL if len(cameras) >= 2 else InitKind.INFLATED


def _points(
    config: GaussiansConfig,
    kind: InitKind,
    views: tuple[Cameras, Tensor] | None,
    generator: torch.Generator,
    normalised: Callable[[Tensor], Tensor],
    middle: Float[Tensor, "H W"] | None,
    cloud: PointCloud | None,
) -> PointCloud:
    match kind:
        case InitKind.HULL:
            if views is None:
                raise InputError("gaussians.init", "a hull needs views with masks", "set gaussians.init=ball")
            return PointCloud(_hull(config, views, generator), None)
        case InitKind.INFLATED:
            if views is None:
                raise InputError("gaussians.init", "there is no view to inflate", "set gaussians.init=ball")
            try:
                near = config.far_side is FarSide.MIRRORED
                count = -(-config.count // 2) if near else config.count
                return inflate_matte(views[0][0], views[1][0], count, generator, front_only=near, middle=middle)
            except ValueError as error:
                raise InputError("gaussians.init", str(error), "check the matte, or set gaussians.init=ball") from error
        case InitKind.BALL:
            return PointCloud(points_in_ball(config.count, config.ball_radius, generator), None)
        case InitKind.POINTS:
            return _thin(_given(config, normalised, cloud), config.count, generator)
        case InitKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def _given(config: GaussiansConfig, normalised: Callable[[Tensor], Tensor], cloud: PointCloud | None) -> PointCloud:
    """The points of a file, or those of the scene."""
    if config.points is not None:
        read = read_points(config.points)
        return read._replace(points=normalised(read.points))
    if cloud is None:
        remedy = "name a .ply or .npy file, or set another init"
        raise InputError("gaussians.points", "no file given, and the scene has no points", remedy)
    return without_outliers(cloud)


def _hull(config: GaussiansConfig, views: tuple[Cameras, Tensor], generator: torch.Generator) -> Tensor:
    half = config.hull_half_extent
    try:
        cameras, images = views
        points = visual_hull(
            cameras,
            images[..., 3:],
            config.count,
            generator,
            resolution=config.hull_resolution,
            half_extent=half,
        )
    except ValueError as error:
        raise InputError("gaussians.init", str(error), "check masks and cameras, or set gaussians.init=ball") from error
    cut = float((points.abs().amax(-1) > half * (1 - 2 / config.hull_resolution)).float().mean())
    if cut > _CUT:
        what = "%.0f %% of the first Gaussians lie at the border of the hull's grid, which cuts off what is beyond"
        _log.warning(f"{what}: raise gaussians.hull_half_extent above %g", 100 * cut, half)
    return points


def _thin(cloud: PointCloud, count: int, generator: torch.Generator) -> PointCloud:
    if len(cloud.points) <= count:
        return cloud
    rows = torch.randperm(len(cloud.points), generator=generator)[:count]
    return PointCloud(cloud.points[rows], None if cloud.colors is None else cloud.colors[rows])
