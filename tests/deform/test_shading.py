from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from kg4d.deform.settings import SkinnedConfig
from kg4d.deform.shading import Shading
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.normals import outward_normals
from kg4d.geometry.rotations import quat_rotate
from tests import make

WIDTH = 0.3
QUARTER = torch.tensor([0.5**0.5, 0.0, 0.0, -(0.5**0.5)])  # about z: what looked along y looks along x


def sphere(count: int = 400) -> GaussianState:
    g = torch.Generator().manual_seed(0)
    points = normalize(torch.randn(count, 3, generator=g), dim=-1)
    return make.gaussians(points, scales=0.1, colors=torch.rand(count, 3, generator=g))


def lit(light: torch.Tensor) -> Shading:
    shading = Shading(WIDTH)
    shading.light.data = light
    return shading


def test_a_lamp_above_darkens_what_turns_away_from_it() -> None:
    state = sphere()
    normals = outward_normals(state.means, state.opacities, WIDTH)
    above = torch.zeros(3, 3)
    above[1] = torch.tensor([0.5, 0.4, 0.3])
    gains = lit(above)(state, QUARTER.expand(1, len(state), 4))[0]
    after = quat_rotate(QUARTER.expand(len(state), 4), normals)
    expected = (1 + after[:, 1:2] * above[1]) / (1 + normals[:, 1:2] * above[1])
    torch.testing.assert_close(gains, expected)
    top = normals[:, 1] > 0.9
    assert gains[top].max() < 0.9


def test_what_does_not_turn_keeps_its_colour_to_the_bit_under_any_light() -> None:
    still = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(2, 400, 4)
    gains = lit(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))(sphere(), still)
    assert torch.equal(gains, torch.ones(2, 400, 3))


def test_no_light_is_negative() -> None:
    strong = lit(torch.full((3, 3), 5.0))
    gains = strong(sphere(), QUARTER.expand(1, 400, 4))
    assert gains.min() > 0
    assert gains.isfinite().all()


def test_the_light_is_found_from_the_colours_of_a_sphere_that_turns() -> None:
    state = sphere()
    g = torch.Generator().manual_seed(2)
    turns = normalize(torch.randn(4, 1, 4, generator=g), dim=-1).expand(4, len(state), 4)
    true = 0.2 * torch.randn(3, 3, generator=g)
    target = lit(true)(state, turns).detach()
    shading = Shading(WIDTH)
    optimizer = torch.optim.Adam(shading.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        (shading(state, turns) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(shading.light.detach(), true, atol=5e-3, rtol=0)


def test_directions_are_found_again_where_the_gaussians_moved() -> None:
    state, shading = sphere(), lit(0.3 * torch.eye(3))
    turns = QUARTER.expand(1, len(state), 4)
    before = shading(state, turns)
    state.means.mul_(torch.tensor([1.0, 0.2, 1.0]))  # in place: the same tensor
    flat = shading(state, turns)
    assert not torch.allclose(before, flat, atol=1e-3)
    assert torch.equal(flat, lit(0.3 * torch.eye(3))(replace(state, means=state.means.clone()), turns))


def test_colours_of_a_shaded_motion_keep_their_gradient() -> None:
    """The refine stage learns the colours of frame 0 through those of all frames."""
    state = sphere(20)
    colors = state.colors.requires_grad_()
    deformation = SkinnedDeformation(SkinnedConfig(shading=True, normal_width=WIDTH), 1)
    rest = torch.zeros(1, 3)
    quats = torch.stack([torch.tensor([1.0, 0.0, 0.0, 0.0]), QUARTER])[:, None]
    deformation.set_keys(torch.tensor([0.0, 1.0]), rest, rest.expand(2, 1, 3), quats)
    assert deformation.shading is not None
    deformation.shading.light.data[1] = 0.5
    state = replace(state, skinning_logits=torch.zeros(len(state), 1))
    shown = deformation.requires_grad_(False)(replace(state, colors=colors), torch.ones(1)).at(0).colors
    shown.sum().backward()
    torch.testing.assert_close(colors.grad * colors.detach(), shown.detach())
    assert not torch.allclose(shown, colors, atol=1e-2)


def test_a_window_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Shading(0.0)
