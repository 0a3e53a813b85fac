"""Moving Gaussians as one USD file with a time sample a frame.

`/Gaussians/Splats` is a ParticleField3DGaussianSplat, with the purpose `render`; `/Gaussians/Points` are UsdGeomPoints,
with the purpose `proxy`, for programs that do not know splats: balls as wide as two standard deviations. World axes are
not changed: the file says +Y up and a metre a unit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kg4d.data.images import linear_rgb
from kg4d.formats.base import Exported, ExportSource
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.degrees import harmonics_degree
from kg4d.geometry.harmonics import rgb_to_sh0
from kg4d.utils.files import replacing

if TYPE_CHECKING:
    from pxr import Usd

_REACH = 3.0  # standard deviations that the extent of a splat covers


def write_usd(path: str | Path, states: Sequence[GaussianState], fps: int | float) -> None:
    """Write one binary file; it appears complete or not at all.

    Args:
        path: The `.usdc` file; parent folders are created.
        states: The Gaussians of the frames, at least one frame; their number may change.
        fps: Frames per second, > 0; time codes are frames.

    Raises:
        ValueError: There is no frame, or `fps` is not positive.
        ImportError: The package usd-core is not installed, or is too old to know splats.
    """
    if not states or fps <= 0:
        raise ValueError(f"need at least one frame and fps > 0, got {len(states)} and {fps}")
    try:
        from pxr import Usd, UsdGeom
        from pxr.UsdVol import ParticleField3DGaussianSplat
    except ImportError as error:
        raise ImportError('writing USD needs usd-core: pip install "kg4d[usd]"') from error
    with replacing(path) as part:
        stage = Usd.Stage.CreateNew(str(part))
        stage.SetTimeCodesPerSecond(fps)
        stage.SetFramesPerSecond(fps)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(states) - 1)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/Gaussians").GetPrim())
        splats = ParticleField3DGaussianSplat.Define(stage, "/Gaussians/Splats").GetPrim()
        points = UsdGeom.Points.Define(stage, "/Gaussians/Points").GetPrim()
        UsdGeom.Imageable(splats).CreatePurposeAttr(UsdGeom.Tokens.render)
        UsdGeom.Imageable(points).CreatePurposeAttr(UsdGeom.Tokens.proxy)
        for name in ("displayColor", "displayOpacity"):
            UsdGeom.PrimvarsAPI(points).GetPrimvar(name).SetInterpolation(UsdGeom.Tokens.vertex)
        harmonics = states[0].harmonics
        degree = 0 if harmonics is None else harmonics_degree(harmonics.shape[1])
        splats.GetAttribute("radiance:sphericalHarmonicsDegree").Set(degree)
        for frame, state in enumerate(states):
            _sample(splats, points, frame, state.detach().to("cpu"))
        stage.GetRootLayer().Save()


def _sample(splats: "Usd.Prim", points: "Usd.Prim", frame: int, state: GaussianState) -> None:
    from pxr import Vt

    quats, scales = state.ellipsoids
    unit = torch.nn.functional.normalize(quats, dim=-1)
    sh = rgb_to_sh0(state.colors)[:, None]
    sh = sh if state.harmonics is None else torch.cat([sh, state.harmonics], dim=1)
    width = 2 * scales.log().mean(-1).exp()  # of the ball of the same volume
    vectors, numbers = Vt.Vec3fArray.FromNumpy, Vt.FloatArray.FromNumpy

    def put(prim: "Usd.Prim", name: str, values: torch.Tensor, kind: Any) -> None:
        rows = np.ascontiguousarray(values.numpy().astype(np.float32))
        prim.GetAttribute(name).Set(kind(rows), frame)

    put(splats, "positions", state.means, vectors)
    put(splats, "orientations", unit.roll(-1, dims=-1), Vt.QuatfArray.FromNumpy)  # the real part comes last
    put(splats, "scales", scales, vectors)
    put(splats, "opacities", state.opacities, numbers)
    put(splats, "radiance:sphericalHarmonicsCoefficients", sh.flatten(0, 1), vectors)
    put(points, "points", state.means, vectors)
    put(points, "widths", width, numbers)
    put(points, "primvars:displayColor", linear_rgb(state.colors), vectors)
    put(points, "primvars:displayOpacity", state.opacities, numbers)
    for prim, reach in ((splats, _REACH * scales.amax(-1)), (points, width / 2)):
        if len(state):
            low, high = state.means - reach[:, None], state.means + reach[:, None]
            put(prim, "extent", torch.stack([low.amin(0), high.amax(0)]), vectors)


def export_usd(source: ExportSource, folder: Path) -> Exported:
    """Write `gaussians.usdc`.

    Raises:
        ImportError: The package usd-core is not installed, or is too old to know splats.
    """
    path = folder / "gaussians.usdc"
    write_usd(path, source.model.states(source.scene.reference.times), source.fps)
    return Exported([path])
