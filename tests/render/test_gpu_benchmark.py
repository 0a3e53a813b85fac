"""What `benchmarks/gpu.py` measures, on the renderers that a CPU has."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks._harness import benchmark_scene
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render import build_renderer
from kg4d.render.base import Renderer, RenderOutput
from kg4d.render.cpu import CpuRenderer
from kg4d.render.reference import ReferenceRenderer
from tests.render import fake_gsplat


class Larger(CpuRenderer):
    """Draws every Gaussian a little too large."""

    def __call__(self, gaussians: GaussianState, cameras: Cameras, **rest: object) -> RenderOutput:
        return super().__call__(replace(gaussians, scales=1.02 * gaussians.scales), cameras, **rest)  # type: ignore[arg-type]


def test_renderers_that_agree_meet_every_bar() -> None:
    rows = gpu.parity(CpuRenderer(1), ReferenceRenderer(), 300, 48, 3)
    assert len(rows) == 4
    assert all(row.met == "yes" for row in rows)
    assert all(row.value > 0 for row in rows)  # two renderers were drawn, not one twice


def test_a_small_difference_is_found() -> None:
    rows = gpu.parity(CpuRenderer(1), Larger(1), 300, 48, 3)
    assert all(row.met == "NO" for row in rows)


def test_the_raw_call_draws_what_the_renderers_draw() -> None:
    scene = benchmark_scene(300, 48, 5)
    image = gpu.raw_render(fake_gsplat.rasterization, scene)
    expected = build_renderer("cpu", threads=1)(scene.gaussians, scene.cameras, features=scene.features).image
    assert torch.allclose(image, expected, atol=1e-5)


SMALL = ["image_size=32", "gaussians.count=200", "static.data.views_per_step=2", "dynamic.data.frames_per_step=2"]


def test_full_steps_run_and_are_timed_against_their_renders() -> None:
    rows = gpu.steps({"cpu": "one thread", "reference": "plain torch"}, 1, SMALL)
    stages = ("static step, cpu", "dynamic step, cpu", "static step, reference", "dynamic step, reference")
    assert [row.claim for row in rows] == [f"{name}{end}" for name in stages for end in ("", ": time")]
    assert all(row.value > 0 for row in rows)
    assert all(row.value > 1 for row in rows[:4:2])  # a step is more than its renders


def test_score_distillation_is_timed_on_networks_of_random_weights() -> None:
    pytest.importorskip("diffusers")
    small = gpu.Sizes(unet=(16, 32), vae=(8, 8, 8, 8), layers=1, width=16, groups=4, side=32)
    rows = gpu.distillation(torch.device("cpu"), "one thread", 1, small)
    assert len(rows) == 3
    assert all(row.value > 0 and row.bar is not None for row in rows)


@pytest.mark.slow
def test_a_whole_fit_is_timed() -> None:
    brief = ["static.steps=2", "dynamic.steps=2", "refine.steps=1", "gaussians.hull_resolution=24"]
    rows = gpu.whole_fit("one thread", "cpu", [*SMALL, *brief, "evaluation.networks=false", "export.formats=[]"])
    assert [row.unit for row in rows] == ["s", "MiB"]
    assert all(row.value > 0 for row in rows)


@pytest.mark.slow
def test_tests_that_fail_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\npytestmark = pytest.mark.gpu\ndef test_a():\n    assert False\ndef test_b(): pass\n"
    )
    row = gpu.failed_tests(str(file))
    assert row.value == (1.0 if torch.cuda.is_available() else 0.0)  # without a GPU they are skipped
    assert row.bar == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is something to measure")
def test_without_a_gpu_it_says_so_and_writes_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py", "--json", str(tmp_path / "gpu.json")])
    gpu.main()
    assert json.loads((tmp_path / "gpu.json").read_text()) == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "GPU" in lines[0]


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    cuda: Renderer = build_renderer("cuda")
    rows = gpu.parity(CpuRenderer(), cuda, 5_000, 256, 3)
    assert all(row.met == "yes" for row in rows), rows
