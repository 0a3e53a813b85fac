"""Depths of pixels from those of bones."""

import torch

from kg4d.gaussians.middle import between_pixels, depths_of_bones


def test_bones_in_a_plane_give_that_plane() -> None:
    uv = torch.tensor([[4.5, 4.5], [20.5, 9.5], [8.5, 28.5]])
    depths = depths_of_bones(uv, torch.full((3,), 2.5), torch.tensor([-1, 0, 0]), 32, 32)
    torch.testing.assert_close(depths, torch.full((32, 32), 2.5))


def test_on_a_bone_the_depth_goes_evenly_from_end_to_end_and_stays_beyond_them() -> None:
    uv = torch.tensor([[4.5, 10.5], [24.5, 10.5]])
    depths = depths_of_bones(uv, torch.tensor([2.0, 3.0]), torch.tensor([-1, 0]), 32, 20)
    assert depths.shape == (20, 32)
    torch.testing.assert_close(depths[10, [4, 9, 14, 24]], torch.tensor([2.0, 2.25, 2.5, 3.0]))
    torch.testing.assert_close(depths[2], depths[18])  # alike on both sides
    assert depths[10, 31] == 3.0


def test_each_pixel_follows_the_bone_next_to_it() -> None:
    uv = torch.tensor([[4.5, 4.5], [28.5, 4.5], [4.5, 28.5], [28.5, 28.5]])
    depths = depths_of_bones(uv, torch.tensor([2.0, 2.0, 3.0, 3.0]), torch.tensor([-1, 0, -1, 2]), 32, 32)
    assert depths[5, 16] < 2.01
    assert depths[28, 16] > 2.99


def test_values_are_read_at_the_centres_of_pixels() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    at = torch.tensor([[0.5, 0.5], [3.5, 2.5], [1.0, 0.5], [-9.0, 0.5]])
    torch.testing.assert_close(between_pixels(values, at), torch.tensor([0.0, 11.0, 0.5, 0.0]))
