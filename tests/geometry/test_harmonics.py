import pytest
import torch
from scipy.special import sph_harm_y

from kg4d.geometry.harmonics import SH_C0, rgb_to_sh0


def test_constant_is_that_of_scipy() -> None:
    assert pytest.approx(sph_harm_y(0, 0, 0.3, 0.7).real) == SH_C0


def test_grey_is_zero_and_other_colours_are_what_the_harmonic_adds_to_it() -> None:
    assert rgb_to_sh0(torch.full((3,), 0.5)).tolist() == [0.0, 0.0, 0.0]
    rgb = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(0.5 + SH_C0 * rgb_to_sh0(rgb), rgb)
