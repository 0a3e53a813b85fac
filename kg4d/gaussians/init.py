"""Initial Gaussians: from the visual hull of masks, from a single inflated matte, in a ball, or from a point cloud."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.gaussians.middle import between_pixels
from kg4d.gaussians.points import PointCloud
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.point_sets import nearest_neighbours


def points_in_ball(count: int, radius: float, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """Points drawn uniformly from a ball at the origin; world units."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return directions * radius * torch.rand(count, 1, generator=generator).pow(1 / 3)


@torch.no_grad()
def visual_hull(
    cameras: Cameras,
    alphas: Float[Tensor, "R H W 1"],
    count: int,
    generator: torch.Generator,
    *,
    resolution: int = 96,
    half_extent: float = 0.85,
    threshold: float = 0.5,
) -> Float[Tensor, "count 3"]:
    """Draw points near the surface of the visual hull (Laurentini 1994): the space whose projections all masks cover.

    A voxel of a cube at the origin is inside when its centre projects into all masks; outside the image there is no
    mask. Points are drawn uniformly within the inside voxels that touch the outside.

    Args:
        cameras: Of the R views, all at one time.
        alphas: Their mattes in [0, 1].
        count: Points to draw.
        generator: Source of randomness.
        resolution: Voxels along each axis of the cube.
        half_extent: Half the side of the cube, world units.
        threshold: A pixel is covered where its matte is above this.

    Raises:
        ValueError: There are fewer than two views, or no voxel is inside all masks.
    """
    if len(cameras) < 2:
        raise ValueError(f"a visual hull needs at least two views, got {len(cameras)}")
    inside = _carve(cameras, alphas, resolution, half_extent, threshold)
    outside = (~inside).float()[None, None]
    padded = torch.nn.functional.pad(outside, (1,) * 6, value=1.0)
    surface = inside & (torch.nn.functional.max_pool3d(padded, 3, stride=1)[0, 0] > 0)
    voxels = surface.nonzero().cpu()
    if not len(voxels):
        raise ValueError("the visual hull is empty: the masks are blank, or they and the cameras do not agree")
    chosen = voxels[torch.randint(len(voxels), (count,), generator=generator)]
    cells = chosen + torch.rand(count, 3, generator=generator)
    return cells * (2 * half_extent / resolution) - half_extent


@torch.no_grad()
def inflate_matte(
    camera: Cameras,
    image: Float[Tensor, "H W 4"],
    count: int,
    generator: torch.Generator,
    *,
    threshold: float = 0.5,
    front_only: bool = False,
    middle: Float[Tensor, "H W"] | None = None,
) -> PointCloud:
    """Draw points evenly on front and back of a rounded body with the outline of a matte; colours are the image's.

    The body is symmetric about a surface, by default the plane through the world's origin that faces the camera. Its
    half thickness is that of Poisson inflation, sqrt(u / 2) with laplacian(u) = -4 inside the matte and u = 0 outside,
    which gives a straight limb a round cross section (Baran and Lehtinen 2009, "Notes on inflating curves").

    Args:
        camera: One view.
        image: That view, RGBA in [0, 1], colours not premultiplied.
        count: Points to draw.
        generator: Source of randomness.
        threshold: A pixel is covered where its matte is above this.
        front_only: Draw on the front alone.
        middle: Depth of that surface in each pixel, world units.

    Raises:
        ValueError: The matte is blank.
    """
    inside = image[..., 3] > threshold
    pixels = inside.nonzero().cpu()  # row, column
    if not len(pixels):
        raise ValueError("the matte is blank")
    thickness = _thickness(inside.cpu())
    areas = _areas(thickness)[inside.cpu()]  # the rim is steep: a pixel there shows more of the body
    chosen = pixels[torch.multinomial(areas, count, replacement=True, generator=generator)]
    rows, columns = chosen.unbind(-1)
    positions = chosen.flip(-1) + torch.rand(count, 2, generator=generator)
    thickness = between_pixels(thickness, positions)
    sides = torch.randint(2, (count,), generator=generator) * 2 - 1
    if front_only:
        sides = torch.full_like(sides, -1)
    camera = camera.to("cpu")
    depth_of_origin = camera.viewmats[0, 2, 3]
    surface = depth_of_origin if middle is None else between_pixels(middle, positions)
    depths = surface + depth_of_origin * sides * thickness / camera.Ks[0, 0, 0]
    return PointCloud(camera.unproject(positions[None], depths[None])[0], image[..., :3].cpu()[rows, columns])


def _thickness(inside: Bool[Tensor, "H W"], finest: int = 128, iterations: int = 3000) -> Float[Tensor, "H W"]:
    """Half thickness of the inflated matte in px, by Jacobi iteration on a grid of at most `finest` px."""
    height, width = inside.shape
    factor = max(1.0, max(height, width) / finest)
    grid = (max(1, round(height / factor)), max(1, round(width / factor)))
    mask = (torch.nn.functional.adaptive_avg_pool2d(inside[None, None].float(), grid) > 0.5).float()
    u = torch.zeros_like(mask)
    for _ in range(iterations):
        around = torch.nn.functional.pad(u, (1, 1, 1, 1))
        neighbours = around[..., 2:, 1:-1] + around[..., :-2, 1:-1] + around[..., 1:-1, 2:] + around[..., 1:-1, :-2]
        u = (neighbours / 4 + 1) * mask
    half = torch.nn.functional.interpolate((u / 2).sqrt(), (height, width), mode="bilinear", align_corners=False)
    return half[0, 0] * factor


def _areas(thickness: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Area of the body's surface in each pixel, px²."""
    around = torch.nn.functional.pad(thickness, (1, 1, 1, 1))
    down, right = (around[2:, 1:-1] - around[:-2, 1:-1]) / 2, (around[1:-1, 2:] - around[1:-1, :-2]) / 2
    return (1 + down.square() + right.square()).sqrt()


def _carve(
    cameras: Cameras, alphas: Tensor, resolution: int, half_extent: float, threshold: float
) -> Bool[Tensor, "X Y Z"]:
    """Which voxels project into every mask. Each view tests only the voxels that are left: later views cost little."""
    line = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * half_extent
    centers = torch.cartesian_prod(line, line, line).to(alphas.device)
    alive = torch.arange(len(centers), device=alphas.device)
    size = alphas.new_tensor([cameras.width, cameras.height])
    for view in range(len(cameras)):
        pixels, depths = cameras[view].project(centers[alive])
        grid = (pixels / size * 2 - 1)[None]
        matte = torch.nn.functional.grid_sample(alphas[view].permute(2, 0, 1)[None], grid, align_corners=False)
        alive = alive[(matte.flatten() > threshold) & (depths[0] > 0)]
    inside = torch.zeros(len(centers), dtype=torch.bool, device=alphas.device)
    inside[alive] = True
    return inside.view(resolution, resolution, resolution)


def initial_state(
    points: Float[Tensor, "N 3"],
    colors: Float[Tensor, "N 3"] | None,
    opacity: float,
    keypoints: int,
    generator: torch.Generator,
) -> GaussianState:
    """Isotropic Gaussians, rotated at random, that just overlap their neighbours.

    Args:
        points: Centres, world units.
        colors: RGB in [0, 1]; grey where None.
        opacity: Of every Gaussian, in (0, 1).
        keypoints: Number J of keypoint logits, which start at 0.
        generator: Source of randomness.

    Raises:
        ValueError: There is no point, or the opacity is not in (0, 1).
    """
    count = len(points)
    if not count or not 0 < opacity < 1:
        raise ValueError(f"need points and an opacity in (0, 1), got {count} points and {opacity}")
    # 0.8 of the mean distance to three neighbours: the splats of a surface close, and its edge is not blurred
    spacing = nearest_neighbours(points, min(3, count - 1)).distances.mean(-1) if count > 1 else points.new_ones(1)
    scales = 0.8 * spacing.clamp_min(1e-3)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    return GaussianState(
        means=points,
        quats=quats.to(points),
        scales=scales[:, None].repeat(1, 3),
        opacities=points.new_full((count,), opacity),
        colors=points.new_full((count, 3), 0.5) if colors is None else colors.to(points),
        keypoint_logits=points.new_zeros(count, keypoints),
    )
