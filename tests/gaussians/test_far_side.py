"""The far side of an object that one view shows: the near side in a mirror across the line of sight."""

from typing import Any

import torch

from kg4d.gaussians.far_side import MirroredFarSide
from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rotations import quat_to_matrix
from kg4d.losses.kfc import KfcConfig
from kg4d.render.build import build_renderer
from kg4d.stages.static import StaticConfig, StaticStage
from tests.make import random_gaussians

SIZE = 48
MIDDLE = torch.full((SIZE, SIZE), 2.0)  # the plane through the origin


def view() -> Cameras:
    return orbit([37.0], [12.0], 2.0, 49.1, SIZE, SIZE)


def halves(near: GaussianState) -> tuple[GaussianState, GaussianState]:
    both = MirroredFarSide(view(), MIDDLE).completed(near)
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
    model, side = GaussianModel.from_state(near), MirroredFarSide(camera, MIDDLE)
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
        model, side = GaussianModel.from_state(near, isotropic), MirroredFarSide(view(), MIDDLE)
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
        side, white = MirroredFarSide(view(), MIDDLE), torch.ones(3)
        return StaticStage(model, build_renderer(), StaticConfig(), KfcConfig(), white, 0, far_side=side)

    kept: dict[str, Any] = {}
    stage().save_state(kept)
    again, earlier = stage(), stage()
    again.load_state(kept)
    assert again.far_side is not None
    earlier.load_state({"density": kept["density"]})  # of a version that knew no near side: it must not be doubled
    assert earlier.far_side is None
