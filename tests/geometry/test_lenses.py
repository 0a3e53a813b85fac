"""Undistorted pixels are where a pinhole camera sees what OpenCV projects through the lens."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kg4d.geometry.lenses import Lens, Undistortion
from kg4d.geometry.sampling import pixel_centers

WIDTH, HEIGHT = 96, 64
K = torch.tensor([[75.0, 0, 50], [0, 78.0, 31], [0, 0, 1]])


def radial(*coefficients: float) -> Lens:
    """By k1, k2, p1, p2, k3, ...; the rest is 0."""
    return Lens(False, tuple(map(float, (*coefficients, *[0] * (8 - len(coefficients))))))


def fisheye(*coefficients: float) -> Lens:
    return Lens(True, tuple(map(float, (*coefficients, *[0] * (4 - len(coefficients))))))


LENSES = {
    "barrel": radial(-0.35, 0.12),
    "pincushion": radial(0.2, 0.05),
    "tangential": radial(-0.1, 0.02, 0.01, -0.008, 0.003),
    "rational": radial(0.3, 0.1, 0.001, 0, 0.01, 0.5, 0.1, 0.02),
    "fisheye": fisheye(0.05, -0.02, 0.01, -0.002),
    "bare fisheye": fisheye(),
}


def through_lens(lens: Lens, points: Tensor) -> Tensor:
    """Pixels of points in camera space, (n, 3), by OpenCV, from its own arguments."""
    world, none, matrix = points.double().numpy(), np.zeros(3), K.double().numpy()
    project = cv2.fisheye.projectPoints if lens.fisheye else cv2.projectPoints
    if lens.fisheye:
        found, _ = project(world[:, None], none, none, matrix, np.array(lens.coefficients, float))
    else:
        found, _ = project(world, none, none, matrix, np.array(lens.coefficients, float))
    return torch.from_numpy(found).reshape(-1, 2)


def seen_points(generator: torch.Generator) -> Tensor:
    xy = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.7]) - torch.tensor(
        [0.5, 0.35]
    )
    z = 1 + 2 * torch.rand(200, 1, generator=generator, dtype=torch.float64)
    return torch.cat([xy * z, z], dim=-1)


@pytest.mark.parametrize("name", LENSES)
def test_points_are_where_the_pinhole_sees_them(name: str):
    points = seen_points(torch.Generator().manual_seed(0))
    undistortion = Undistortion.of(LENSES[name], K, WIDTH, HEIGHT)
    pinhole = points @ undistortion.pinhole.double().T
    expected = pinhole[:, :2] / pinhole[:, 2:]
    distorted = through_lens(LENSES[name], points)
    assert (distorted - (points @ K.double().T)[:, :2] / points[:, 2:]).norm(dim=-1).max() > 0.5
    assert (undistortion.points(distorted) - expected).norm(dim=-1).max() < 1e-3


@pytest.mark.parametrize("name", LENSES)
def test_each_pixel_of_the_pinhole_comes_from_its_ray(name: str):
    undistortion = Undistortion.of(LENSES[name], K, WIDTH, HEIGHT)
    pixels = pixel_centers(HEIGHT, WIDTH).double().reshape(-1, 2)
    rays = torch.cat([pixels, torch.ones(len(pixels), 1)], dim=-1) @ torch.linalg.inv(undistortion.pinhole.double()).T
    assert (through_lens(LENSES[name], rays) - undistortion.source.reshape(-1, 2)).abs().max() < 1e-3


@pytest.mark.parametrize("name", LENSES)
def test_the_view_is_as_large_as_the_image_allows(name: str):
    """All that the pinhole camera sees lies in the image, and somewhere it reaches the border."""
    undistortion = Undistortion.of(LENSES[name], K, WIDTH, HEIGHT)
    inverse = torch.linalg.inv(undistortion.pinhole.double())
    x, y = torch.linspace(0, WIDTH, 200).double(), torch.linspace(0, HEIGHT, 200).double()
    one = torch.ones_like(x)
    edges = [(x, 0 * one), (x, HEIGHT * one), (0 * one, y), (WIDTH * one, y)]
    border = torch.cat([torch.stack([across, down, one], dim=-1) for across, down in edges])
    met = through_lens(LENSES[name], border @ inverse.T)
    room = torch.stack([met.amin(0), torch.tensor([WIDTH, HEIGHT]) - met.amax(0)])
    assert room.min() > -0.05
    assert room.min() < 0.3
    focal = undistortion.pinhole.diagonal()[:2]
    assert torch.allclose(focal / K.diagonal()[:2], focal[:1] / K[0, 0])  # pixels keep their shape


def test_a_fisheye_that_sees_all_around_becomes_a_view_of_130_degrees():
    lens, focal = fisheye(), 32 / math.radians(95)
    around = torch.tensor([[focal, 0, 32], [0, focal, 32], [0, 0, 1]])
    undistortion = Undistortion.of(lens, around, 64, 64)
    assert math.isclose(undistortion.pinhole[0, 0].item(), 32 / math.tan(math.radians(65)), rel_tol=1e-5)
    assert torch.allclose(undistortion.pinhole[:2, 2], torch.tensor(32.0), atol=1e-4)
    angle = math.radians(40)  # r = f theta
    seen = undistortion.points(torch.tensor([[32 + focal * angle, 32.0], [63.9, 32.0]]))
    assert math.isclose(seen[0, 0].item() - 32, undistortion.pinhole[0, 0].item() * math.tan(angle), rel_tol=1e-4)
    assert seen[1].isnan().all()  # behind the camera


@pytest.mark.parametrize(
    "lens", [radial(-0.8), radial(1, 2, 3, 4, 5, 6, 7, 8), radial(1e9)], ids=lambda lens: lens.coefficients[0]
)
def test_a_distortion_without_inverse_is_refused(lens: Lens):
    with pytest.raises(ValueError, match=r"no ray meets|two rays|no room|magnified"):
        Undistortion.of(lens, K, WIDTH, HEIGHT)


def test_only_a_radial_lens_without_coefficients_is_a_pinhole():
    assert not radial().bends
    assert fisheye().bends
    assert radial(0, 0, 0, 1e-3).bends


def test_no_points_are_no_points():
    undistortion = Undistortion.of(LENSES["barrel"], K, WIDTH, HEIGHT)
    assert undistortion.points(torch.zeros(0, 3, 2)).shape == (0, 3, 2)
