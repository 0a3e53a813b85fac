"""Cameras of the reference that do not agree with the first Gaussians are told, with the numbers."""

import logging
from dataclasses import replace

import pytest
import torch

from kg4d.data.records import PosedImages
from kg4d.gaussians.build import build_gaussians
from kg4d.gaussians.settings import GaussiansConfig, InitKind
from kg4d.gaussians.state import GaussianState
from kg4d.render.build import build_renderer
from kg4d.runs.first_overlap import overlap, warn_of_little_overlap
from tests import make


@pytest.fixture(scope="module")
def hull() -> GaussianState:
    ring = make.tiny_scene().ring
    config, generator = GaussiansConfig(count=400, hull_resolution=32), torch.Generator().manual_seed(0)
    return build_gaussians(config, ring.cameras, ring.images, 0, generator).state().detach()


def away(factor: float) -> PosedImages:
    """The reference video, with cameras `factor` times as far."""
    reference = make.tiny_scene().reference
    viewmats = reference.cameras.viewmats.clone()
    viewmats[:, :3, 3] *= factor
    return replace(reference, cameras=replace(reference.cameras, viewmats=viewmats))


def half_image(alpha: float) -> PosedImages:
    """Images of a wall that fills the view, whose matte is `alpha` on the left and 0 on the right."""
    reference = make.tiny_scene().reference
    images = torch.ones_like(reference.images)
    images[..., 3] = 0
    images[:, :, :8, 3] = alpha
    return replace(reference, images=images)


def test_overlap_of_a_wall_and_half_of_the_image():
    wall = make.gaussians(torch.zeros(1, 3), scales=(100.0, 100.0, 0.01), opacities=0.8)
    found = overlap(build_renderer("reference"), wall, half_image(0.4))
    assert found.covered == pytest.approx(1, abs=1e-3)
    assert found.outside == pytest.approx(1 - 0.4 / 0.8 / 2, abs=1e-3)
    found = overlap(build_renderer("reference"), wall, half_image(1.0))
    assert found.covered == pytest.approx(0.8, abs=1e-3)


def test_nothing_drawn_covers_nothing():
    behind = make.gaussians(torch.tensor([[0.0, 0, 9]]))
    assert overlap(build_renderer("reference"), behind, half_image(1.0)) == (0, 0)


CASES = {
    "agree": (1.0, InitKind.HULL, None),
    "far": (
        60.0,
        InitKind.HULL,
        "the first Gaussians cover 30 % of the reference's matte: check that transforms_train",
    ),
    "near": (0.5, InitKind.HULL, "of the first Gaussians lie outside of the reference's matte: check that transforms"),
    "near, a ball": (0.5, InitKind.BALL, None),
    "far, points": (60.0, InitKind.POINTS, "check that gaussians.points has the units"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_warning_has_the_number_and_what_to_check(hull: GaussianState, name: str, caplog: pytest.LogCaptureFixture):
    factor, kind, words = CASES[name]
    with caplog.at_level(logging.WARNING, "kg4d"):
        warn_of_little_overlap(build_renderer("cpu"), hull, away(factor), kind)
    if words is None:
        assert not caplog.records
    else:
        assert words in caplog.text
