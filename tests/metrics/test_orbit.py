"""Specks and holes on pictures whose roughness and gaps are known."""

import pytest
import torch

from kg4d.metrics.orbit import Holes, Specks, holes, outline, roughness, specks
from kg4d.metrics.state import measured


def disc(size: int, radius: float) -> torch.Tensor:
    """Coverage of a disc of `radius` shares of the image, in its middle."""
    at = (torch.arange(size) + 0.5) / size - 0.5
    return ((at[:, None] ** 2 + at**2).sqrt() < radius).float()[None]


def ramp(size: int, steepness: float) -> torch.Tensor:
    """Grey that grows by `steepness` over the image, from left to right."""
    return (steepness * torch.arange(size) / size).expand(3, size, size)


@pytest.mark.parametrize("size", [96, 192])
def test_the_roughness_of_a_ramp_is_its_slope_whatever_is_outside(size):
    alpha = disc(size, 0.35)
    image = ramp(size, 0.8) * alpha + (1 - alpha)
    assert roughness(image, alpha).item() * size == pytest.approx(0.8 * 3**0.5, rel=1e-4)


def test_specks_are_the_ratio_to_the_view_that_was_seen():
    alpha = disc(192, 0.35)
    images = torch.stack([ramp(192, 0.9), ramp(192, 0.3)])
    seen, cover = ramp(192, 0.6)[None].expand(2, -1, -1, -1), alpha[None].expand(2, -1, -1, -1)
    torch.testing.assert_close(specks(images, cover, seen, cover), torch.tensor([1.5, 0.5]), atol=1e-4, rtol=0)
    assert measured(Specks(), images, cover, seen, cover).item() == pytest.approx(1.0, abs=1e-4)


def test_specks_on_an_even_surface_are_told():
    alpha, generator = disc(192, 0.35), torch.Generator().manual_seed(0)
    even = ramp(192, 0.5)
    dots = (torch.rand(192, 192, generator=generator) < 0.01).float()
    pair = torch.stack([even, even * (1 - dots)]), alpha[None].expand(2, -1, -1, -1)
    clean, specked = specks(*pair, even[None].expand(2, -1, -1, -1), pair[1]).tolist()
    assert clean == pytest.approx(1.0)
    assert specked > 2


@pytest.mark.parametrize("size", [96, 192, 384])
def test_holes_are_the_share_that_a_smaller_disc_leaves_open(size):
    whole, hole = disc(size, 0.4), disc(size, 0.2)
    assert holes(whole[None]).item() == 0
    assert holes((whole - hole)[None]).item() == pytest.approx(0.25, abs=0.01)
    assert holes((whole - 0.3 * hole)[None]).item() == pytest.approx(0.25, abs=0.01)  # seen through by 30 %
    assert holes((whole - 0.1 * hole)[None]).item() == 0


def test_crumbs_beside_the_object_are_no_part_of_its_outline():
    alpha = disc(192, 0.3)
    crumb = alpha.clone()
    crumb[0, 4:7, 4:7] = 1
    assert torch.equal(outline(crumb[0]), outline(alpha[0]))
    assert outline(alpha[0])[96, 96]


def test_an_empty_view_counts_for_nothing():
    empty, alpha = torch.zeros(1, 64, 64), disc(64, 0.4)
    image = ramp(64, 0.5)
    assert holes(empty[None]).isnan().all()
    both = torch.stack([empty, alpha])
    assert measured(Holes(), both).item() == 0
    values = specks(image.expand(2, 3, 64, 64), both, image.expand(2, 3, 64, 64), both)
    assert values[0].isnan()
    assert values[1].item() == pytest.approx(1.0)
