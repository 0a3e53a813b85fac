"""The native file: it comes back as what was drawn, small, and nothing else is read as one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from kg4d.data.normalisation import Normalisation
from kg4d.errors import InputError
from kg4d.formats.base import ExportSource
from kg4d.formats.native import NAME, export_native, read_native
from kg4d.geometry.covariances import covariances_of
from kg4d.render.reference import ReferenceRenderer
from kg4d.runs.fitted_model import FittedModel
from tests import make
from tests.formats.test_build import Rising
from tests.representation.test_spacetime import build, tracks

TURNED = Normalisation(
    torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64),
    unit=3.0,
)


def spacetime(tmp_path: Path) -> FittedModel:
    made = build(20, windows=2, segments=4)
    made.start(tracks())
    model = FittedModel(made, ReferenceRenderer(), torch.ones(3), TURNED)
    scene = make.tiny_scene()
    export_native(ExportSource(model, replace(scene, keypoints=None), fps=6), tmp_path)
    return model


@pytest.mark.parametrize("time", [0.0, 0.37, 1.0])
def test_gaussians_in_space_and_time_can_be_drawn_at_any_time(tmp_path: Path, time: float) -> None:
    model = spacetime(tmp_path)
    read = read_native(tmp_path / NAME)
    assert read.frames is None
    assert read.pieces is not None
    found, drawn = read.pieces.at(time), model.states(torch.tensor([time]))[0]
    torch.testing.assert_close(found.means, drawn.means, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.opacities, drawn.opacities, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(found.colors, drawn.colors, rtol=1e-3, atol=1e-3)
    assert drawn.covariances is not None
    size = drawn.covariances.abs().max()
    assert (covariances_of(*found.ellipsoids) - drawn.covariances).abs().max() < 5e-3 * size


def test_frames_keep_what_moves_and_once_what_does_not(tmp_path: Path) -> None:
    scene, model = make.tiny_scene(), Rising()
    export_native(ExportSource(model, scene, fps=6), tmp_path)
    stored = load_file(tmp_path / NAME)
    assert stored["means"].shape == (4, 1, 3)
    assert stored["colors"].shape == (1, 3)
    assert stored["quats"].shape == (1, 4)
    read = read_native(tmp_path / NAME)
    assert read.frames is not None
    assert scene.keypoints is not None
    assert (read.fps, read.names, read.parents) == (6, scene.keypoints.names, scene.keypoints.parents)
    torch.testing.assert_close(read.keypoints, model.keypoints(scene.reference.times))
    for one, other in zip(read.frames, model.states(scene.reference.times), strict=True):
        torch.testing.assert_close(one.means, other.means)
        torch.testing.assert_close(one.ellipsoids.scales, other.ellipsoids.scales, rtol=3e-3, atol=0)
        torch.testing.assert_close(one.opacities, other.opacities, rtol=1e-3, atol=1e-3)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    spacetime(tmp_path)
    whole = (tmp_path / NAME).read_bytes()
    wrong = {"cut": whole[:-10], "empty": b"", "text": b"not a model"}
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
    save_file({"means": np.zeros((1, 3), np.float32)}, tmp_path / "other")
    for name in (*wrong, "other", "missing"):
        with pytest.raises(InputError, match="no model of kg4d"):
            read_native(tmp_path / name)
