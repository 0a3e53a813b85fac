"""Transfer around a textured ball that turns on its axis, and what its weights say about the far side."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.priors.keypoints.settings import TransferConfig
from kg4d.priors.keypoints.transfer import ChainTransfer
from tests.priors.textures import SIZE, PatchFeatures

RADIUS = 30.0
AZIMUTHS = torch.deg2rad(torch.tensor([0.0, 10.0, 20.0, 30.0, -30.0, -20.0, -10.0]))  # the support is the first


def ball(azimuth: float) -> Tensor:
    """A ball with a texture of longitude and latitude, from a camera at this azimuth: RGBA."""
    noise = torch.rand(1, 3, 10, 20, generator=torch.Generator().manual_seed(3))
    skin = F.interpolate(torch.cat([noise, noise[..., :1]], dim=-1), (60, 121), mode="bilinear")[0].permute(1, 2, 0)
    x, y = ((pixel_centers(SIZE, SIZE) - SIZE / 2) / RADIUS).unbind(-1)
    depth = (1 - x**2 - y**2).clamp_min(0).sqrt()
    longitude = torch.atan2(x, depth) + azimuth
    texel = torch.stack([longitude / (2 * math.pi) % 1 * 120 + 0.5, (y.clamp(-1, 1).asin() / math.pi + 0.5) * 60], -1)
    alpha = ((1 - (x**2 + y**2).sqrt()) * RADIUS + 0.5).clamp(0, 1)
    return torch.cat([sample_image(skin, texel), alpha[..., None]], dim=-1)


def seen_at(longitude: Tensor, latitude: Tensor, azimuth: float) -> tuple[Tensor, Tensor]:
    """Pixels of points on the ball, and whether they face the camera."""
    angle = longitude - azimuth
    uv = torch.stack([angle.sin() * latitude.cos(), latitude.sin()], dim=-1) * RADIUS + SIZE / 2
    return uv, angle.cos() * latitude.cos() > 0.2


@pytest.fixture(scope="module")
def ring() -> list[Tensor]:
    return [ball(azimuth) for azimuth in AZIMUTHS.tolist()]


LONGITUDE = torch.tensor([0.0, 0.5, -0.5, 0.2, -0.9])
LATITUDE = torch.tensor([0.0, 0.4, -0.5, -0.3, 0.1])


@pytest.fixture(scope="module")
def found(ring: list[Tensor]) -> tuple[Tensor, Tensor]:
    uv, _ = seen_at(LONGITUDE, LATITUDE, 0.0)
    tracks = ChainTransfer(PatchFeatures(), TransferConfig())(ring[0], uv, torch.stack(ring[1:]))
    return tracks.uv, tracks.weights


def truth() -> tuple[Tensor, Tensor]:
    parts = [seen_at(LONGITUDE, LATITUDE, azimuth) for azimuth in AZIMUTHS[1:].tolist()]
    uv, facing = (torch.stack(values) for values in zip(*parts))
    return uv, facing


@pytest.mark.parametrize("neighbour", [0, 1, -2, -1])
def test_views_near_the_support_agree_from_both_sides(found: tuple[Tensor, Tensor], neighbour: int):
    uv, facing = truth()
    error = (found[0] - uv)[neighbour].norm(dim=-1)
    assert facing[neighbour, :4].all()
    assert error[:4].max() < 0.1 * 2 * RADIUS
    assert found[1][neighbour, :4].min() > 0.6


def test_what_turns_away_loses_weight(found: tuple[Tensor, Tensor]):
    _, facing = truth()
    assert facing[:, 4].tolist() == [True, True, False, True, True, True]
    assert found[1][2, 4] < found[1][[0, 1, 3, 4, 5], 4].min()


def test_a_view_of_nothing_and_a_keypoint_off_the_object(ring: list[Tensor]):
    views = torch.stack([ring[1], torch.zeros_like(ring[0]), ring[-1]])
    uv = torch.tensor([[48.0, 48.0], [500.0, -3.0]])
    tracks = ChainTransfer(PatchFeatures(), TransferConfig())(ring[0], uv, views)
    assert tracks.uv.isfinite().all()
    assert (tracks.weights[:, 1] == 0).all()
    assert tracks.weights[1, 0] == 0
    assert tracks.weights[[0, 2], 0].min() > 0.5


def test_one_view_that_is_the_support(ring: list[Tensor]):
    uv, _ = seen_at(LONGITUDE, LATITUDE, 0.0)
    transfer = ChainTransfer(PatchFeatures(), TransferConfig())
    first, second = (transfer(ring[0], uv, ring[0][None]) for _ in range(2))
    assert (first.uv[0] - uv).norm(dim=-1).max() < 1.5
    assert first.weights.min() > 0.8
    assert torch.equal(first.uv, second.uv)
    assert torch.equal(first.weights, second.weights)


def test_the_identity_and_the_config():
    first = ChainTransfer(PatchFeatures(), TransferConfig()).identity()
    assert first != ChainTransfer(PatchFeatures(side=80), TransferConfig()).identity()
    assert first != ChainTransfer(PatchFeatures(), TransferConfig(spread=0.2)).identity()
    with pytest.raises(ValueError, match=r"transfer\.spread"):
        TransferConfig(spread=0.0)
