from dataclasses import replace

import torch

from kg4d.gaussians.moving import MovingGaussians
from tests import make


def test_what_stands_still_is_the_same_at_all_times() -> None:
    base = make.random_gaussians(4)
    moving = MovingGaussians.still(base, 3)
    assert len(moving) == 3
    for state in moving.states():
        for name in ("means", "quats", "scales", "opacities", "colors", "harmonics", "keypoint_logits"):
            assert torch.equal(getattr(state, name), getattr(base, name)), name


def test_only_what_changes_in_time_differs_from_the_base() -> None:
    base = make.random_gaussians(4)
    colors, opacities = torch.rand(2, 4, 3), torch.rand(2, 4)
    moving = replace(MovingGaussians.still(base, 2), colors=colors, opacities=opacities)
    assert torch.equal(moving.at(1).colors, colors[1])
    assert torch.equal(moving.at(1).opacities, opacities[1])
    assert torch.equal(moving.at(1).means, base.means)


def test_only_those_that_are_there_are_present() -> None:
    state = make.random_gaussians(4)
    faded = replace(state, opacities=torch.tensor([0.5, 0.0, 1e-30, 0.0]))
    assert torch.equal(faded.present().means, state.means[[0, 2]])
    assert state.present() is state
