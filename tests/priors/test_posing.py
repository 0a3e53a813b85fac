"""Cameras of the input and its views."""

import pytest
import torch

from kg4d.geometry.orbits import orbit
from kg4d.priors.framing import cameras_at


def test_without_another_lens_they_are_an_orbit() -> None:
    cameras, expected = cameras_at([0.0, 90.0], [5.0, 25.0], 64, 64), orbit([0.0, 90.0], [5.0, 25.0], 2.0, 49.1, 64, 64)
    assert torch.equal(cameras.viewmats, expected.viewmats)
    assert torch.equal(cameras.Ks, expected.Ks)


def test_another_lens_sees_the_object_as_large_as_the_input_does() -> None:
    cameras = cameras_at([0.0, 30.0, 90.0], [0.0, 0.0, 0.0], 64, 64, fov_y=30.0)
    fovs = 2 * torch.atan(32 / cameras.Ks[:, 1, 1]).rad2deg()
    assert fovs.tolist() == pytest.approx([49.1, 30.0, 30.0])
    top = cameras.project(torch.tensor([0.0, 0.7, 0.0])).pixels  # at the object's own distance
    assert torch.allclose(top, top[:1].expand(3, 2), atol=1e-3)
    assert cameras.centers.norm(dim=-1).tolist() == pytest.approx([2.0, 3.409, 3.409], abs=1e-3)


def test_an_input_without_other_images() -> None:
    assert len(cameras_at([0.0], [0.0], 8, 8, fov_y=30.0)) == 1
