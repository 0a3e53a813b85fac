import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch import Tensor

from kg4d.errors import InputError
from kg4d.gaussians.build import build_gaussians
from kg4d.gaussians.init import inflate_matte, initial_state, points_in_ball, visual_hull
from kg4d.gaussians.points import PointCloud, read_points, without_outliers
from kg4d.gaussians.settings import FarSide, GaussiansConfig, InitKind
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.point_sets import nearest_neighbours
from tests import make


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(count: int, size: int = 64, distance: float = 2.0) -> Cameras:
    """Cameras at height 0 around the origin, and one from above, so that the hull of a ball is nearly a ball."""
    views = []
    for angle in [2 * math.pi * i / (count - 1) for i in range(count - 1)]:
        back = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
        views.append((torch.tensor([0.0, 1.0, 0.0]), back))
    views.append((torch.tensor([0.0, 0.0, -1.0]), torch.tensor([0.0, 1.0, 0.0])))
    matrices = []
    for up, back in views:
        matrix = torch.eye(4)
        matrix[:3, :3] = torch.stack([torch.linalg.cross(up, back), -up, -back])
        matrix[2, 3] = distance
        matrices.append(matrix)
    focal = 1.1 * size
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Cameras(torch.stack(matrices), K.expand(count, 3, 3), size, size)


def ball_mattes(cameras: Cameras, center: Tensor, radius: float) -> Tensor:
    """Silhouettes of a ball: pixels whose ray passes its centre at less than its radius."""
    axis = torch.arange(cameras.width) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(cameras.Ks).mT[:, None]
    local = cameras.viewmats[:, :3, :3] @ center + cameras.viewmats[:, :3, 3]
    miss = torch.linalg.cross(rays, local[:, None, None].expand_as(rays)).norm(dim=-1) / rays.norm(dim=-1)
    return (miss < radius).float()[..., None]


CENTER = torch.tensor([0.1, -0.05, 0.15])


def test_hull_of_a_ball_is_its_surface() -> None:
    cameras = ring(9)
    points = visual_hull(cameras, ball_mattes(cameras, CENTER, 0.4), 2000, generator(), resolution=64)
    distances = (points - CENTER).norm(dim=-1)
    voxel = 2 * 0.85 / 64
    assert distances.min() > 0.4 - 3 * voxel  # a voxel, its jitter, and half a pixel of the masks
    assert distances.max() < 0.4 * 1.2  # the hull of nine views bulges beyond the ball between them
    assert (points.mean(0) - CENTER).norm() < 0.03


def test_no_point_of_the_hull_is_off_a_mask() -> None:
    cameras = ring(5)
    mattes = ball_mattes(cameras, CENTER, 0.3)
    points = visual_hull(cameras, mattes, 500, generator(), resolution=96)
    pixels = cameras.project(points).pixels
    spread = torch.nn.functional.max_pool2d(mattes[..., 0][:, None], 5, 1, 2)[:, 0]  # a voxel is about one pixel
    x, y = pixels.floor().long().unbind(-1)
    assert (spread[torch.arange(5)[:, None], y, x] > 0).all()


def test_hull_repeats_under_the_same_seed() -> None:
    cameras = ring(4)
    mattes = ball_mattes(cameras, CENTER, 0.3)
    draws = [visual_hull(cameras, mattes, 50, generator(seed), resolution=24) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_points_behind_a_camera_are_not_in_the_hull() -> None:
    cameras = ring(3, distance=0.5)[:2]  # face to face, inside the cube, which reaches behind both
    points = visual_hull(cameras, torch.ones(2, 64, 64, 1), 2000, generator(), resolution=32)
    voxel = 2 * 0.85 / 32
    assert cameras.project(points).depths.min() > -voxel


def test_masks_that_disagree_and_too_few_views_are_errors() -> None:
    cameras = ring(4)
    mattes = ball_mattes(cameras, CENTER, 0.3)
    blank = mattes.clone()
    blank[2] = 0
    with pytest.raises(ValueError, match="hull is empty"):
        visual_hull(cameras, blank, 10, generator(), resolution=24)
    with pytest.raises(ValueError, match="at least two views"):
        visual_hull(cameras[0], mattes[:1], 10, generator())


def test_ball_is_uniform() -> None:
    points = points_in_ball(20000, 0.5, generator())
    radii = points.norm(dim=-1) / 0.5
    assert radii.max() <= 1
    torch.testing.assert_close((radii**3).mean(), torch.tensor(0.5), rtol=0.02, atol=0)
    assert points.mean(0).abs().max() < 0.01


@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 100))
def test_neighbours_agree_with_a_tree(count: int, k: int, seed: int) -> None:
    k = min(k, count - 1)
    points = torch.randn(count, 3, generator=generator(seed))
    ours = nearest_neighbours(points, k, chunk=7)
    distances, ids = cKDTree(points.double().numpy()).query(points.double().numpy(), k + 1)
    torch.testing.assert_close(ours.distances.double(), torch.from_numpy(distances[:, 1:]), rtol=1e-5, atol=1e-6)
    assert torch.equal(ours.ids, torch.from_numpy(ids[:, 1:]))


def test_neighbours_of_coinciding_points_are_the_others() -> None:
    near = nearest_neighbours(torch.tensor([[1e3, 0.0], [1e3, 0.0], [1e3, 1e-3]]), 1)
    assert near.ids[:2, 0].tolist() == [1, 0]
    assert near.distances[:2, 0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="between 1 and 2 neighbours"):
        nearest_neighbours(torch.zeros(3, 2), 3)


def test_first_gaussians_overlap_their_neighbours() -> None:
    axis = torch.arange(4.0) * 0.3
    grid = torch.cartesian_prod(axis, axis, axis)
    state = initial_state(grid, None, 0.5, 7, generator())
    torch.testing.assert_close(state.scales, torch.full((64, 3), 0.8 * 0.3))
    assert state.colors.unique().tolist() == [0.5]
    assert state.keypoint_logits.shape == (64, 7)
    torch.testing.assert_close(state.quats.norm(dim=-1), torch.ones(64))


def test_few_and_coinciding_points_have_scales() -> None:
    for points in (torch.zeros(1, 3), torch.zeros(2, 3), torch.zeros(5, 3)):
        assert initial_state(points, None, 0.5, 0, generator()).scales.min() > 0
    with pytest.raises(ValueError, match="need points"):
        initial_state(torch.zeros(0, 3), None, 0.5, 0, generator())
    with pytest.raises(ValueError, match="opacity"):
        initial_state(torch.zeros(2, 3), None, 1.0, 0, generator())


def write_ply(path: Path, form: str, points: np.ndarray, colors: np.ndarray) -> None:
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    header = f"ply\nformat {form} 1.0\ncomment made here\nelement vertex {len(points)}\nproperty float x\n"
    header += "property float y\nproperty float z\nproperty double quality\nproperty uchar red\nproperty uchar green\n"
    header += "property uchar blue\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [(*point, 0.5, *color) for point, color in zip(points.tolist(), colors.tolist(), strict=True)]
    if form == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in [*rows, (3, 0, 1, 2)]).encode()
    else:
        dtype = [*((name, order + "f4") for name in "xyz"), ("quality", order + "f8"), ("rgb", "u1", 3)]
        body = np.array([(*row[:4], row[4:]) for row in rows], dtype).tobytes() + b"\x03" + bytes(12)
    path.write_bytes(header.encode() + body)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_is_read(tmp_path: Path, form: str) -> None:
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    colors = np.arange(15).reshape(5, 3) * 17
    write_ply(tmp_path / "cloud.ply", form, points, colors)
    cloud = read_points(tmp_path / "cloud.ply")
    torch.testing.assert_close(cloud.points, torch.from_numpy(points))
    torch.testing.assert_close(cloud.colors, torch.from_numpy(colors / 255).float())


def test_npy_is_read_with_and_without_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 6))
    np.save(tmp_path / "six.npy", values)
    np.save(tmp_path / "three.npy", values[:, :3])
    six, three = read_points(tmp_path / "six.npy"), read_points(tmp_path / "three.npy")
    torch.testing.assert_close(six.colors, torch.from_numpy(values[:, 3:]).float())
    assert torch.equal(six.points, three.points)
    assert three.colors is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.ply", None, "no such file"),
        ("cloud.xyz", b"0 0 0", "not a point cloud"),
        ("cloud.ply", b"PK\x03\x04", "cannot be read"),
        ("cloud.ply", b"ply\nformat ascii 1.0\nelement vertex 2\n", "no end"),
        ("cloud.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "cannot be read"),
        (
            "cloud.ply",
            b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n1",
            "read",
        ),
        ("cloud.npy", b"", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_points(tmp_path / name)
    assert name in str(caught.value)


def test_empty_and_infinite_clouds_are_refused(tmp_path: Path) -> None:
    for values in (np.zeros((0, 3)), np.full((2, 3), np.nan)):
        np.save(tmp_path / "cloud.npy", values)
        with pytest.raises(InputError, match="no points"):
            read_points(tmp_path / "cloud.npy")


def coloured(mattes: Tensor) -> Tensor:
    """Images of these mattes; red grows to the right, green downwards."""
    share = torch.arange(mattes.shape[1]) / mattes.shape[1]
    red, green = share.expand(mattes.shape[1], -1), share[:, None].expand(-1, mattes.shape[1])
    rgb = torch.stack([red, green, torch.zeros_like(red)], dim=-1).expand(len(mattes), -1, -1, -1)
    return torch.cat([rgb, mattes], dim=-1)


def inflated_px(matte: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of drawn points, how far they lie off the middle plane in px, and their colours."""
    camera = ring(2)[0]
    cloud = inflate_matte(camera, coloured(matte[None, ..., None])[0], 4000, generator())
    pixels, depths = camera.project(cloud.points)
    assert cloud.colors is not None
    return pixels[0], (depths[0] - 2.0) / 2.0 * camera.Ks[0, 0, 0], cloud.colors


def test_a_straight_limb_is_inflated_to_a_round_one() -> None:
    matte = torch.zeros(64, 64)
    matte[2:62, 22:42] = 1
    pixels, off, colors = inflated_px(matte)
    assert (pixels[:, 0] >= 22 - 1e-3).all()
    assert (pixels[:, 0] <= 42 + 1e-3).all()
    middle = (pixels[:, 1] - 32).abs() < 8  # far from its ends
    expected = (100 - (pixels[middle, 0] - 32) ** 2).clamp_min(0).sqrt()
    inner = expected > 7
    torch.testing.assert_close(off[middle].abs()[inner], expected[inner], atol=0.7, rtol=0)
    assert 0.4 < (off > 0).float().mean() < 0.6  # a front and a back
    torch.testing.assert_close(colors[:, 0], pixels[:, 0].floor() / 64, atol=1e-4, rtol=0)


def test_a_disc_is_inflated_to_an_ellipsoid() -> None:
    axis = torch.arange(64) + 0.5 - 32
    pixels, off, _ = inflated_px(((axis**2 + axis[:, None] ** 2) < 20**2).float())
    expected = ((400 - (pixels - 32).pow(2).sum(-1)) / 2).clamp_min(0).sqrt()  # u = 400 - r^2 solves it
    inner = expected > 9
    torch.testing.assert_close(off.abs()[inner], expected[inner], atol=0.7, rtol=0)
    with pytest.raises(ValueError, match="blank"):
        inflated_px(torch.zeros(64, 64))


def test_points_of_an_inflated_matte_are_drawn_by_area() -> None:
    matte = torch.zeros(64, 64)
    matte[2:62, 22:42] = 1
    pixels, off, _ = inflated_px(matte)
    middle = (pixels[:, 1] - 32).abs() < 20
    angles = torch.atan2(off[middle], pixels[middle, 0] - 32)  # around a round limb
    counts = torch.histc(angles, 8, -torch.pi, torch.pi)
    assert counts.min() > 0.75 * counts.mean()  # by pixel, the two at the rim would have half


def test_auto_is_the_hull_where_there_are_views() -> None:
    cameras = ring(6)
    mattes = coloured(ball_mattes(cameras, CENTER, 0.3))
    config = GaussiansConfig(count=200, hull_resolution=32)
    carved = build_gaussians(config, cameras, mattes, 3, generator())
    assert (carved.means - CENTER).norm(dim=-1).min() > 0.15
    torch.testing.assert_close(carved.state().opacities, torch.full((200,), 0.5))
    filled = build_gaussians(config, None, None, 3, generator())
    assert torch.equal(filled.means, points_in_ball(200, 0.5, generator()))
    torch.testing.assert_close(filled.state().opacities, torch.full((200,), 0.1))
    single = build_gaussians(config, cameras[0], mattes[:1], 3, generator())
    front = inflate_matte(cameras[0], mattes[0], 100, generator(), front_only=True)
    assert torch.equal(single.means, front.points)  # the other half is its mirror image
    config.far_side = FarSide.FREE
    whole = build_gaussians(config, cameras[0], mattes[:1], 3, generator())
    assert torch.equal(whole.means, inflate_matte(cameras[0], mattes[0], 200, generator()).points)
    torch.testing.assert_close(whole.state().opacities, torch.full((200,), 0.5))


def test_a_point_cloud_is_thinned_to_the_count(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 6))
    np.save(tmp_path / "cloud.npy", values)
    config = GaussiansConfig(count=20, init=InitKind.POINTS, points=str(tmp_path / "cloud.npy"), isotropic=True)
    model = build_gaussians(config, None, None, 0, generator())
    assert len(model) == 20
    assert model.log_scales.shape == (20, 1)
    given_rows = torch.from_numpy(values).float()
    rows = torch.cdist(model.means.detach(), given_rows[:, :3]).argmin(-1)
    assert len(rows.unique()) == 20
    assert torch.equal(model.colors, given_rows[rows, 3:])


def test_a_start_that_the_input_does_not_allow_is_a_request_error() -> None:
    cameras = ring(3)
    with pytest.raises(InputError, match=r"gaussians\.init.*needs views"):
        build_gaussians(GaussiansConfig(init=InitKind.HULL), None, None, 0, generator())
    with pytest.raises(InputError, match=r"gaussians\.init.*empty"):
        build_gaussians(GaussiansConfig(hull_resolution=16), cameras, torch.zeros(3, 64, 64, 4), 0, generator())
    with pytest.raises(InputError, match=r"gaussians\.init.*blank"):
        build_gaussians(GaussiansConfig(), cameras[0], torch.zeros(1, 64, 64, 4), 0, generator())
    with pytest.raises(InputError, match=r"gaussians\.init.*no view to inflate"):
        build_gaussians(GaussiansConfig(init=InitKind.INFLATED), None, None, 0, generator())
    with pytest.raises(InputError, match=r"gaussians\.points"):
        build_gaussians(GaussiansConfig(init=InitKind.POINTS), None, None, 0, generator())


def test_a_hull_that_its_grid_cuts_off_is_said(caplog: pytest.LogCaptureFixture) -> None:
    scene = make.tiny_scene()
    for half, said in ((0.85, False), (0.2, True)):
        config = GaussiansConfig(50, hull_resolution=24, hull_half_extent=half)
        caplog.clear()
        build_gaussians(config, scene.ring.cameras, scene.ring.images, 0, generator())
        assert ("raise gaussians.hull_half_extent above 0.2" in caplog.text) == said


def test_points_that_are_alone_are_left_out():
    g = generator()
    surface = torch.nn.functional.normalize(torch.randn(400, 3, generator=g), dim=-1)
    cloud = PointCloud(torch.cat([surface, torch.tensor([[4.0, 0, 0], [0, -5.0, 1]])]), torch.rand(402, 3, generator=g))
    kept = without_outliers(cloud)
    assert float(kept.points.norm(dim=-1).max()) < 1.01
    assert len(kept.points) > 0.9 * 400
    assert kept.colors is not None
    assert torch.equal(kept.colors[:10], cloud.colors[:10])
    model = build_gaussians(GaussiansConfig(count=1000), None, None, 0, g, cloud=cloud)
    assert len(model) == len(kept.points)
    assert torch.equal(model.state().colors, kept.colors)


def test_harmonics_are_there_and_zero_where_they_are_asked_for() -> None:
    for degree, count in ((0, 0), (1, 3), (2, 8), (3, 15)):
        config = GaussiansConfig(count=7, init=InitKind.BALL, sh_degree=degree)
        model = build_gaussians(config, None, None, 3, generator())
        assert model.harmonics.shape == (7, count, 3)
        assert not model.harmonics.any()
