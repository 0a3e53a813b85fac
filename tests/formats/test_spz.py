import sys
from dataclasses import replace

import gsply
import numpy as np
import pytest
import torch

from kg4d.formats.spz import write_spz
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.degrees import harmonics_count
from tests import make


def grid_state(extent: float) -> GaussianState:
    steps = torch.linspace(-extent, extent, 64)
    quats = torch.nn.functional.normalize(torch.stack([steps, steps.flip(0), steps + 1, 2 - steps], dim=-1), dim=-1)
    return make.gaussians(
        torch.stack([steps, steps.flip(0), steps.roll(7)], dim=-1),
        quats=quats,
        scales=torch.linspace(0.002, 0.2, 64)[:, None] * torch.tensor([1.0, 2.0, 0.5]),
        opacities=torch.linspace(0.02, 0.98, 64),
        colors=torch.rand(64, 3, generator=torch.Generator().manual_seed(0)),
    )


@pytest.mark.parametrize(("extent", "step"), [(0.8, 2.0**-16), (100.0, 2.0**-16), (1000.0, 2.0**-13)])
def test_values_survive_to_the_stated_precision(tmp_path, extent, step):
    state = grid_state(extent)
    write_spz(tmp_path / "a.spz", state)
    data = gsply.read_spz(tmp_path / "a.spz")
    np.testing.assert_allclose(data.means, state.means.numpy(), atol=0.51 * step, rtol=1e-6)
    np.testing.assert_allclose(data.scales, state.scales.log().numpy(), atol=0.51 / 16)
    np.testing.assert_allclose(1 / (1 + np.exp(-data.opacities)), state.opacities.numpy(), atol=0.51 / 255)
    np.testing.assert_allclose(gsply.sh2rgb(data.sh0), state.colors.numpy(), atol=0.51 * 0.2821 / (0.15 * 255))
    cosines = np.abs((data.quats * state.quats.numpy()).sum(-1))
    assert cosines.min() > 1 - 1e-5


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_keep_seven_bits_after_the_point(tmp_path, degree):
    state = grid_state(0.8)
    drawn = torch.rand(64, harmonics_count(degree), 3, generator=torch.Generator().manual_seed(1))
    write_spz(tmp_path / "a.spz", replace(state, harmonics=1.9 * drawn - 1))
    data = gsply.read_spz(tmp_path / "a.spz")
    assert data.get_sh_degree() == degree
    np.testing.assert_allclose(data.shN, 1.9 * drawn.numpy() - 1, atol=0.51 / 128)
    np.testing.assert_allclose(gsply.sh2rgb(data.sh0), state.colors.numpy(), atol=0.51 * 0.2821 / (0.15 * 255))


def test_the_file_is_small(tmp_path):
    write_spz(tmp_path / "a.spz", grid_state(1.0))
    assert (tmp_path / "a.spz").stat().st_size < 64 * 20 + 100


def test_without_gsply_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(ImportError, match=r'pip install "kg4d\[spz\]"'):
        write_spz(tmp_path / "a.spz", grid_state(1.0))
    assert not list(tmp_path.iterdir())
