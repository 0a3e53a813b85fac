"""The examples of docs/extending.md, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d.data.images import write_png
from kg4d.formats.base import ExportSource
from kg4d.gaussians.model import GaussianModel
from kg4d.optim.build import build_optimizer
from kg4d.optim.objective import Objective
from kg4d.optim.settings import OptimizerConfig
from kg4d.priors.cache.store import PriorCache
from kg4d.render.build import build_renderer
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.runs.fitted_model import FittedModel
from tests import make

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page defines, after all of its examples have run in their order."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    names: dict[str, Any] = {"__name__": "extending"}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    return names


def test_the_deformation_is_rest_at_birth_and_learns_with_its_prior(page: dict[str, Any]) -> None:
    state, times = make.random_gaussians(6), torch.tensor([0.0, 0.25, 0.75])
    sway = page["Sway"](page["SwayConfig"](calm=0.01))
    assert torch.equal(sway(state, times).means, state.means.expand(3, -1, -1))
    optimizer = build_optimizer(OptimizerConfig(), sway.parameter_groups())
    truth = torch.tensor([0.2, 0.0, -0.1])
    for _ in range(100):
        objective = Objective(progress=0.5)
        offsets = sway(state, times).means - state.means
        objective.add("data", (offsets[1] - truth).square().sum(), 1.0)
        sway.regularisers(objective, times)
        objective.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(sway.amplitude.detach(), truth / 1.01, atol=5e-3, rtol=0)


def test_the_reader_reads_what_it_recognises(page: dict[str, Any], tmp_path: Path) -> None:
    reader = page["Turntable"]()
    assert not reader.recognises(tmp_path)
    (tmp_path / "turntable.txt").write_text("20")
    for index in range(4):
        write_png(tmp_path / "frames" / f"{index}.png", torch.rand(16, 16, 4))
    assert reader.recognises(tmp_path)
    video = reader.read(tmp_path, 8).reference
    assert video.images.shape == (4, 8, 8, 4)
    height = video.cameras.centers[:, 1]
    torch.testing.assert_close(height, 2.0 * torch.sin(torch.deg2rad(torch.full((4,), 20.0))))


def test_the_export_writes_what_the_model_says(page: dict[str, Any], tmp_path: Path) -> None:
    sway = page["Sway"](page["SwayConfig"]())
    moving = CanonicalGaussians(GaussianModel.from_state(make.random_gaussians(6)), sway, 0.1)
    fitted, scene = FittedModel(moving, build_renderer("reference"), torch.ones(3)), make.tiny_scene()
    made = page["export_xyz"](ExportSource(fitted, scene, fps=8), tmp_path)
    states = fitted.states(scene.reference.times)
    for file, state in zip(sorted(made.paths[0].iterdir()), states, strict=True):
        rows = [[float(number) for number in line.split()] for line in file.read_text().splitlines()]
        torch.testing.assert_close(torch.tensor(rows), state.means, atol=1e-6, rtol=0)


def test_the_prior_is_computed_once_for_an_input(page: dict[str, Any], tmp_path: Path) -> None:
    cache, rgb = PriorCache(tmp_path), torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    made = page["cached_mattes"](cache, rgb)
    assert torch.equal(made, (rgb.mean(-1, keepdim=True) < 0.5).float())
    page["matting"].__class__.__call__ = None  # type: ignore[method-assign]  # what is kept is not made again
    assert torch.equal(page["cached_mattes"](cache, rgb), made)
