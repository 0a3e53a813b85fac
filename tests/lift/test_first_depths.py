"""Depths in the first frame from tracks in one view: how far bones lean, and by what is hidden to which side."""

import math

import torch

from kg4d.lift.first_depths import first_depths
from tests import make

PARENTS, OTHERS = torch.tensor([-1, 0, 0, 1, 2]), torch.tensor([-1, 2, 1, 4, 3])
TIMES = torch.linspace(0, 1, 9)
CAMERA = make.cameras(size=128)  # 2 before the origin


def walker() -> tuple[torch.Tensor, torch.Tensor]:
    """A side view: the left leg is behind the right one; both swing in a plane that is turned by 50 degrees."""
    swing = 0.9 * torch.cos(2 * math.pi * TIMES)
    joints = torch.zeros(len(TIMES), 5, 3)
    for hip, side in ((1, -1.0), (2, 1.0)):
        joints[:, hip] = torch.tensor([0.0, 0.0, 0.15 * side])
        along = 0.5 * (side * swing).sin()
        leg = torch.stack([math.cos(0.87) * along, -0.5 * swing.cos(), -math.sin(0.87) * along], -1)
        joints[:, hip + 2] = joints[:, hip] + leg
    joints[:, 0, 1] = 0.3
    weights = torch.ones(len(TIMES), 5)
    weights[:, 1] = 0  # the left hip
    weights[joints[:, 3, 2] < -0.1, 3] = 0  # the left foot, while it is behind
    weights[joints[:, 4, 2] < -0.1, 4] = 0
    return joints, weights


def lifted(joints: torch.Tensor, weights: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = CAMERA.project(joints).pixels[0]
    pixels[weights == 0] = math.nan
    generator = torch.Generator().manual_seed(seed)
    return first_depths(pixels, weights, TIMES, PARENTS, OTHERS, CAMERA, 2.0, generator)


def test_what_is_hidden_is_behind_and_bones_lean_as_they_do() -> None:
    joints, weights = walker()
    truth = CAMERA.project(joints[0]).depths[0]
    uv, depths = lifted(joints, weights)
    assert uv.isfinite().all()
    torch.testing.assert_close(depths.mean(), torch.tensor(2.0))
    assert depths[1] > depths[2]  # the left hip
    off, flat = (depths - depths.mean()) - (truth - truth.mean()), truth - truth.mean()
    assert off.square().mean() < 0.5 * flat.square().mean()


def test_a_body_in_a_plane_stays_in_it() -> None:
    joints, weights = walker()
    joints[..., 2] = 0
    _, depths = lifted(joints, torch.ones_like(weights))
    assert (depths - 2).abs().max() < 0.12


def test_the_same_seed_gives_the_same_bytes() -> None:
    joints, weights = walker()
    assert torch.equal(lifted(joints, weights)[1], lifted(joints, weights)[1])
