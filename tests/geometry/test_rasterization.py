import torch

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rasterization import rasterize

CAMERA = Cameras(torch.eye(4)[None], torch.tensor([[[8.0, 0, 8], [0, 8.0, 8], [0, 0, 1]]]), 16, 16)


def test_a_slanted_triangle_has_the_depth_of_its_plane():
    points = torch.tensor([[-4.0, -4.0, 2.0], [12.0, -4.0, 6.0], [-4.0, 12.0, 4.0]])
    found = rasterize(points, torch.tensor([[0, 1, 2]]), CAMERA)
    hit = found.triangles == 0
    assert hit.any()
    shown = (found.weights[hit][..., None] * points).sum(1)
    rows, columns = torch.nonzero(hit).unbind(-1)
    centers = torch.stack([columns, rows], -1) + 0.5
    assert torch.allclose(CAMERA.project(shown).pixels[0], centers, atol=1e-4)  # perspective-correct
    assert torch.allclose(found.depths[hit], shown[:, 2], atol=1e-5)
    assert torch.allclose(found.weights[hit].sum(-1), torch.ones(1))
    assert found.depths[~hit].isinf().all()


def test_the_nearer_surface_is_seen_and_no_crack_between_neighbours():
    square = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]])
    far = square * torch.tensor([5.0, 5, 2])
    triangles = torch.tensor([[4, 5, 6], [4, 6, 7], [0, 1, 2], [0, 2, 3]])
    found = rasterize(torch.cat([square, far]), triangles, CAMERA)
    assert (found.triangles[4:12, 4:12] >= 2).all()
    assert (found.triangles >= 0).all()
    assert set(found.depths.unique().tolist()) == {2.0, 4.0}


def test_nothing_is_seen_behind_the_camera_or_edge_on():
    behind = torch.tensor([[-1.0, -1, -2], [1, -1, 2], [1, 1, 2], [0, 0, 2], [0, 1, 2], [0, 2, 2]])
    found = rasterize(behind, torch.tensor([[0, 1, 2], [3, 4, 5]]), CAMERA)
    assert (found.triangles == -1).all()


def test_a_ball_covers_what_it_should():
    theta, phi = torch.meshgrid(torch.linspace(0, torch.pi, 41), torch.linspace(0, 2 * torch.pi, 81), indexing="ij")
    ball = 0.5 * torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1).reshape(-1, 3)
    first = (torch.arange(40)[:, None] * 81 + torch.arange(80)).flatten()
    triangles = torch.cat(
        [torch.stack([first, first + 1, first + 82], -1), torch.stack([first, first + 82, first + 81], -1)]
    )
    camera = orbit([30.0], [20.0], 2.0, 49.1, 128, 128)
    found = rasterize(ball, triangles, camera)
    radius = float(camera.Ks[0, 0, 0]) * 0.5 / (4 - 0.25) ** 0.5  # of the outline of a sphere in the image
    assert abs((found.triangles >= 0).sum() / (torch.pi * radius**2) - 1) < 0.01
    assert abs(found.depths.min() - 1.5) < 1e-3
