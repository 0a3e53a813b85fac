"""`.splat` files, parsed by NumPy alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.formats.splat import write_splat
from kg4d.geometry.covariances import covariances_of
from tests import make


@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_the_values_come_back_the_most_visible_first(tmp_path: Path, count: int, seed: int) -> None:
    state = make.random_gaussians(count, seed=seed)
    state = replace(state, colors=1.4 * state.colors - 0.2)
    write_splat(tmp_path / "a.splat", state)
    data = (tmp_path / "a.splat").read_bytes()
    assert len(data) == 32 * count
    numbers = np.frombuffer(data, "<f4").reshape(count, 8)[:, :6]
    octets = np.frombuffer(data, np.uint8).reshape(count, 32)[:, 24:].astype(float)
    seen = state.scales.double().prod(-1) * state.opacities
    order = np.argsort(-seen.numpy(), kind="stable")
    np.testing.assert_array_equal(numbers[:, :3], state.means.numpy()[order])
    np.testing.assert_array_equal(numbers[:, 3:], state.scales.numpy()[order])
    np.testing.assert_allclose(octets[:, :3] / 255, state.colors.clamp(0, 1).numpy()[order], atol=0.51 / 255)
    np.testing.assert_allclose(octets[:, 3] / 255, state.opacities.numpy()[order], atol=0.51 / 255)
    unit = torch.nn.functional.normalize(state.quats, dim=-1).numpy()[order]
    np.testing.assert_allclose((octets[:, 4:] - 128) / 128, unit, atol=1.01 / 128)  # 1 itself does not fit


def test_covariances_become_scales_and_rotations(tmp_path: Path) -> None:
    state = make.random_gaussians(5)
    write_splat(
        tmp_path / "a.splat",
        replace(state, quats=None, scales=None, covariances=covariances_of(state.quats, state.scales)),
    )
    write_splat(tmp_path / "b.splat", state)
    first, second = (
        np.sort(np.frombuffer((tmp_path / name).read_bytes(), "<f4").reshape(5, 8)[:, 3:6], axis=1)
        for name in ("a.splat", "b.splat")
    )
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-4)
