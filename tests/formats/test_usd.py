"""USD files, read back by usd-core."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pxr import Usd, UsdGeom, UsdVol

from kg4d.data.images import linear_rgb
from kg4d.formats.usd import write_usd
from kg4d.geometry.harmonics import rgb_to_sh0
from tests import make


def read(prim: Usd.Prim, name: str, frame: int) -> np.ndarray:
    return np.array(prim.GetAttribute(name).Get(frame))


def test_every_frame_comes_back(tmp_path: Path) -> None:
    states = [make.random_gaussians(count, sh_degree=2, seed=count) for count in (5, 7, 5)]
    write_usd(tmp_path / "new" / "a.usdc", states, fps=8)
    stage = Usd.Stage.Open(str(tmp_path / "new" / "a.usdc"))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 2, 8)
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    splats, points = (stage.GetPrimAtPath(f"/Gaussians/{name}") for name in ("Splats", "Points"))
    assert splats.IsA(UsdVol.ParticleField3DGaussianSplat)
    assert points.IsA(UsdGeom.Points)
    assert splats.GetAttribute("radiance:sphericalHarmonicsDegree").Get() == 2
    for frame, state in enumerate(states):
        for prim, name in ((splats, "positions"), (points, "points")):
            np.testing.assert_array_equal(read(prim, name, frame), state.means.numpy())
        np.testing.assert_array_equal(read(splats, "scales", frame), state.scales.numpy())
        np.testing.assert_array_equal(read(splats, "opacities", frame), state.opacities.numpy())
        unit = torch.nn.functional.normalize(state.quats, dim=-1).tolist()
        turned = splats.GetAttribute("orientations").Get(frame)
        np.testing.assert_allclose([[q.GetReal(), *q.GetImaginary()] for q in turned], unit, atol=1e-6)
        sh = read(splats, "radiance:sphericalHarmonicsCoefficients", frame).reshape(len(state), 9, 3)
        np.testing.assert_allclose(sh[:, 0], rgb_to_sh0(state.colors).numpy(), atol=1e-6)
        np.testing.assert_array_equal(sh[:, 1:], state.harmonics.numpy())
        widths = read(points, "widths", frame)
        np.testing.assert_allclose((widths / 2) ** 3, state.scales.prod(-1).numpy(), rtol=1e-4)
        np.testing.assert_array_equal(read(points, "primvars:displayOpacity", frame), state.opacities.numpy())
        low, high = UsdGeom.Boundable(splats).GetExtentAttr().Get(frame)
        np.testing.assert_array_less(low, state.means.amin(0).numpy())
        np.testing.assert_array_less(state.means.amax(0).numpy(), high)


def test_colours_of_points_are_amounts_of_light(tmp_path: Path) -> None:
    state = make.random_gaussians(6)
    write_usd(tmp_path / "a.usdc", [state], fps=8)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    colors = UsdGeom.Points(stage.GetPrimAtPath("/Gaussians/Points")).GetDisplayColorPrimvar()
    assert colors.GetInterpolation() == "vertex"
    np.testing.assert_array_equal(np.array(colors.Get(0)), linear_rgb(state.colors).numpy())


def test_no_frame_is_an_error_and_no_gaussian_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_usd(tmp_path / "a.usdc", [], fps=8)
    write_usd(tmp_path / "a.usdc", [make.gaussians(torch.zeros(0, 3)), make.gaussians(torch.zeros(1, 3))], fps=8)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    splats = stage.GetPrimAtPath("/Gaussians/Splats")
    assert [len(read(splats, "positions", frame)) for frame in range(2)] == [0, 1]


def test_without_usd_core_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ImportError, match=r'pip install "kg4d\[usd\]"'):
        write_usd(tmp_path / "a.usdc", [make.gaussians(torch.zeros(1, 3))], fps=8)
    assert not list(tmp_path.iterdir())
