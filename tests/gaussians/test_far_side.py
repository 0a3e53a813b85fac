"""The far side of an object that one view shows: the near side in a mirror across the line of sight."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kg4d.data.batches.batch import StaticBatch
from kg4d.gaussians.far_side import MirroredFarSide
from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rotations import quat_to_matrix
from kg4d.losses.settings import KfcConfig
from kg4d.render.build import build_renderer
from kg4d.stages.settings import StaticConfig
from kg4d.stages.static import StaticStage
from tests.make import random_gaussians

SIZE = 48
MIDDLE = torch.full((SIZE, SIZE), 2.0)  # the plane through the origin
GREY = torch.full((SIZE, SIZE, 3), 0.5)


def view() -> Cameras:
    return orbit([37.0], [12.0], 2.0, 49.1, SIZE, SIZE)


def halves(near: GaussianState) -> tuple[GaussianState, GaussianState]:
    both = MirroredFarSide(view(), MIDDLE, GREY).completed(near)
    count = len(near)
    return both.map(lambda rows: rows[:count]), both.map(lambda rows: rows[count:])


def covariances_in_view(state: GaussianState) -> torch.Tensor:
    axes = view().viewmats[0, :3, :3] @ quat_to_matrix(state.quats) * state.scales[:, None, :]
    return axes @ axes.mT


def test_the_far_side_lies_at_the_same_pixels_as_far_behind_the_middle() -> None:
    near = random_gaussians(40, spread=0.2, frames=None, seed=1)
    kept, far = halves(near)
    torch.testing.assert_close(kept.means, near.means)
    here, there = view().project(near.means), view().project(far.means)
    torch.testing.assert_close(there.pixels, here.pixels, atol=1e-3, rtol=0)
    torch.testing.assert_close(there.depths + here.depths, torch.full_like(here.depths, 4.0))
    assert torch.equal(far.colors, near.colors)


def test_a_mirrored_gaussian_is_flipped_along_the_axis_and_as_large_in_the_image() -> None:
    near = random_gaussians(40, spread=0.2, frames=None, seed=2)
    _, far = halves(near)
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    ratio = (view().project(far.means).depths / view().project(near.means).depths)[0, :, None, None]
    expected = flip @ covariances_in_view(near) @ flip * ratio.square()
    torch.testing.assert_close(covariances_in_view(far), expected, atol=1e-6, rtol=1e-4)


def test_the_mirror_of_the_mirror_is_the_near_side() -> None:
    near = random_gaussians(40, spread=0.2, frames=None, seed=3)
    _, far = halves(near)
    _, again = halves(far)
    torch.testing.assert_close(again.means, near.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(covariances_in_view(again), covariances_in_view(near), atol=1e-6, rtol=1e-4)


def test_training_moves_nothing_along_the_line_of_sight() -> None:
    camera = orbit([0.0], [0.0], 2.0, 49.1, SIZE, SIZE)  # as a fit is normalised
    near = random_gaussians(40, spread=0.2, frames=None, seed=4)
    model, side = GaussianModel.from_state(near), MirroredFarSide(camera, MIDDLE, GREY)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
    for _ in range(3):
        optimizer.zero_grad()
        (build_renderer()(side.completed(model.state()), camera).image - 0.3).square().mean().backward()
        optimizer.step()
    assert torch.equal(model.means[:, 2], near.means[:, 2])
    assert not torch.equal(model.means[:, 0], near.means[:, 0])


def test_a_completed_model_draws_both_sides_from_then_on() -> None:
    near = random_gaussians(40, spread=0.2, frames=None, seed=5)
    for isotropic in (False, True):
        model, side = GaussianModel.from_state(near, isotropic), MirroredFarSide(view(), MIDDLE, GREY)
        expected = side.completed(model.state())
        side.complete(model)
        assert len(model) == 80
        assert {len(model.get_parameter(name)) for name in PARAMETERS} == {80}
        torch.testing.assert_close(model.state().means, expected.means)
        torch.testing.assert_close(model.state().scales, expected.scales)
        torch.testing.assert_close(model.state().opacities, expected.opacities)


def test_a_checkpoint_says_whether_its_gaussians_are_the_near_side_alone() -> None:
    def stage() -> StaticStage:
        model = GaussianModel.from_state(random_gaussians(4, frames=None))
        side, white = MirroredFarSide(view(), MIDDLE, GREY), torch.ones(3)
        return StaticStage(model, build_renderer(), StaticConfig(), KfcConfig(), white, 0, far_side=side)

    kept: dict[str, Any] = {}
    stage().save_state(kept)
    again, earlier = stage(), stage()
    again.load_state(kept)
    assert again.far_side is not None
    earlier.load_state({"density": kept["density"]})  # of a version that knew no near side: it must not be doubled
    assert earlier.far_side is None


def test_what_is_expected_draws_as_an_error_in_one_pixel_does() -> None:
    near = random_gaussians(40, spread=0.1, frames=None, seed=6)
    model, side = GaussianModel.from_state(near), MirroredFarSide(view(), MIDDLE, torch.ones(SIZE, SIZE, 3))
    with torch.no_grad():
        model.colors.copy_(torch.full_like(model.colors, 0.4))
    state = model.state()
    unexpected = side.unexpected(state)
    (gradient,) = torch.autograd.grad(unexpected, model.colors)
    pixels = torch.zeros(SIZE, SIZE, 3, requires_grad=True)
    (one_pixel,) = torch.autograd.grad((pixels - 1).abs().mean(), pixels)
    torch.testing.assert_close(gradient, one_pixel[0, 0].expand_as(gradient))
    expected = (0.6 - 0.025 + 1 - state.opacities).sum() / SIZE**2  # the knee takes off half of itself
    torch.testing.assert_close(unexpected, expected)


def test_a_gaussian_has_the_colour_of_its_pixel_and_nothing_is_unexpected() -> None:
    near = random_gaussians(40, spread=0.1, frames=None, seed=7)
    image = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(7))
    pixels = view().project(near.means).pixels[0]
    grid = (pixels / SIZE * 2 - 1)[None, None]
    colors = torch.nn.functional.grid_sample(image.movedim(-1, 0)[None], grid, align_corners=False)[0, :, 0].mT
    there = replace(near, colors=colors, opacities=torch.ones_like(near.opacities))
    assert MirroredFarSide(view(), MIDDLE, image).unexpected(there) < 1e-6


@pytest.mark.parametrize("expected", [0.0, 2.0])
def test_what_hides_behind_others_keeps_the_colour_of_its_pixel(expected: float) -> None:
    """A grey wall before a grey wall: light through the first changes the second, unless its colour is expected."""
    rows = torch.linspace(-0.3, 0.3, 9)
    wall = torch.cartesian_prod(rows, rows)
    means = torch.cat([torch.cat([wall, torch.full_like(wall[:, :1], z)], 1) for z in (0.4, 0.3)])
    count = len(means)
    state = replace(
        random_gaussians(count, frames=None),
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        scales=torch.full((count, 3), 0.06),
        opacities=torch.full((count,), 0.9),
        colors=torch.full((count, 3), 0.5),
    )
    camera = orbit([0.0], [0.0], 2.0, 49.1, SIZE, SIZE)
    image = torch.zeros(SIZE, SIZE, 4)
    image[14:34, 14:34] = torch.tensor([0.5, 0.5, 0.5, 1.0])
    image[14:34:4, 14:34, :3] = 0.8
    model, config = GaussianModel.from_state(state), StaticConfig(steps=60)
    side = MirroredFarSide(camera, MIDDLE, torch.full((SIZE, SIZE, 3), 0.5))
    stage = StaticStage(
        model, build_renderer(), config, KfcConfig(weight=0.0), torch.ones(3), 0, far_side=side, expected=expected
    )
    colours = image[None, ..., :3] + 1 - image[None, ..., 3:]
    batch = StaticBatch(0, camera, colours, image[None, ..., 3:], torch.zeros(1, 0, 2), torch.zeros(1, 0), False)
    stage.begin()
    optimizer = stage.configure_optimizers()
    for _ in range(60):
        stage.take_step(batch, optimizer)
    off = (model.colors[count // 2 :].detach() - 0.5).abs().mean()
    assert (off > 0.3) if expected == 0 else (off < 0.1)
