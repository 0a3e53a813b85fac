"""Fits on an NVIDIA GPU: does the renderer agree with that of the CPU, what does kg4d add to it, how long do fits take.

Needs an NVIDIA GPU and gsplat, which builds its kernels when first used (minutes). Elsewhere it says so in a line and
writes no rows. Everything together is meant to take less than ten minutes once the kernels are built.

gsplat computes with fast, less exact maths, and Gaussians of almost equal depth may change places. So the gradients of
the two renderers agree less closely than those of the cpu renderer and of float64; a wrong formula is off by far more.
"""

import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks._harness import BenchmarkScene, Row, arguments, benchmark_scene, interleaved, report
from benchmarks.step_overhead import PRESET, make_step, one_step
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.batches.batch import DynamicBatch, StaticBatch
from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.static import StaticDataset
from kg4d.data.records import Scene
from kg4d.gaussians.build import build_gaussians
from kg4d.lift.seeding import seed_keypoints
from kg4d.pipeline import fit
from kg4d.render import build_renderer
from kg4d.render.base import Renderer, RenderOutput
from kg4d.render.build import RendererUnavailableError
from kg4d.runs.build import build_run_renderer, build_scene
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.static import StaticStage

ROOT = Path(__file__).parent.parent
PARITY = ((5_000, 256, 3), (5_000, 256, 17), (20_000, 512, 3))
OVERHEAD = ((5_000, 256, 3), (5_000, 256, 17), (100_000, 512, 3))
WHITE = torch.ones(3)


class Difference(NamedTuple):
    """How far two renderers are apart on one scene."""

    image: float  # mean absolute difference
    alpha: float  # the same
    depth: float  # the same where at least half of the pixel is covered, world units
    gradients: dict[str, float]  # L2 norm of the difference over that of the first


def difference(first: Renderer, second: Renderer, scene: BenchmarkScene) -> Difference:
    """Render the scene with both, take the same random gradients back, and compare everything."""
    images, alphas, depths, gradients = [], [], [], []
    for renderer in (first, second):
        own = scene.on(renderer.device)
        output = renderer(own.gaussians, own.cameras, features=own.features, depth=True)
        assert output.depth is not None
        generator = torch.Generator().manual_seed(0)
        outputs = (output.image, output.alpha)
        weights = [torch.rand(t.shape, generator=generator).to(renderer.device) for t in outputs]
        torch.autograd.backward(outputs, weights)
        images.append(output.image.detach().cpu())
        alphas.append(output.alpha.detach().cpu())
        depths.append(output.depth.detach().cpu())
        gradients.append({name: _gradient(leaf) for name, leaf in own.leaves().items()})
    covered = alphas[0] >= 0.5
    return Difference(
        float((images[0] - images[1]).abs().mean()),
        float((alphas[0] - alphas[1]).abs().mean()),
        float((depths[0] - depths[1])[covered].abs().mean()),
        {name: float((found - gradients[1][name]).norm() / found.norm()) for name, found in gradients[0].items()},
    )


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad.cpu()


def parity(first: Renderer, second: Renderer, count: int, size: int, channels: int) -> list[Row]:
    """Rows of one `difference`."""
    found = difference(first, second, benchmark_scene(count, size, channels))
    worst = max(found.gradients, key=lambda name: found.gradients[name])
    name, against = f"{count:,} Gaussians, {size}², {channels} channels", f"the {first.name} renderer"
    return [
        Row(f"{name}: mean difference of the image", found.image, "", 1e-5, "lower", against),
        Row(f"{name}: mean difference of alpha", found.alpha, "", 1e-5, "lower", against),
        Row(f"{name}: mean difference of depth", found.depth, "", 1e-4, "lower", against),
        Row(f"{name}: gradient difference, {worst}", found.gradients[worst], "", 1e-3, "lower", against),
    ]


def raw_render(rasterization: Callable[..., tuple[Tensor, Tensor, object]], scene: BenchmarkScene) -> Tensor:
    """The scene by gsplat alone, called as its users call it; (1, H, W, D)."""
    g, cameras = scene.gaussians, scene.cameras
    image, _, _ = rasterization(
        *(g.means, g.quats, g.scales, g.opacities, scene.features),
        *(cameras.viewmats, cameras.Ks, cameras.width, cameras.height),
        packed=False,
    )
    return image


def overhead(renderer: Renderer, device: str, count: int, size: int, channels: int, runs: int) -> list[Row]:
    """Forward and backward by our wrapper, by gsplat itself and by the cpu renderer, in turns."""
    from gsplat import rasterization

    on_gpu, on_cpu = benchmark_scene(count, size, channels).on(renderer.device), benchmark_scene(count, size, channels)
    weights, cpu = torch.rand(1, size, size, channels), build_renderer("cpu")

    def timed(scene: BenchmarkScene, render: Callable[[], Tensor]) -> Callable[[], None]:
        back = weights.to(scene.features.device)

        def run() -> None:
            scene.clear()
            render().backward(back)
            if back.is_cuda:
                torch.cuda.synchronize(back.device)

        return run

    times = interleaved(
        {
            "raw": timed(on_gpu, lambda: raw_render(rasterization, on_gpu)),
            "ours": timed(on_gpu, lambda: drawn(renderer, on_gpu)),
            "cpu": timed(on_cpu, lambda: drawn(cpu, on_cpu)),
        },
        runs,
    )
    name = f"{count:,} Gaussians, {size}², {channels} channels"
    return [
        Row(f"{name}: wrapper", times["ours"] / times["raw"], "x", 1.05, "lower", f"raw gsplat 1.5.3, {device}"),
        Row(f"{name}: speed", times["cpu"] / times["ours"], "x", 5.0, "higher", f"the cpu renderer, {device}"),
    ]


def drawn(renderer: Renderer, scene: BenchmarkScene) -> Tensor:
    """The scene by one of our renderers; (1, H, W, D)."""
    return renderer(scene.gaussians, scene.cameras, features=scene.features).image


def static_stage(config: ExperimentConfig, scene: Scene) -> tuple[StaticStage, StaticBatch]:
    """A static stage and one of its batches, on the renderer's device."""
    assert scene.ring is not None
    assert scene.keypoints is not None
    renderer, ring = build_run_renderer(config), scene.ring
    names, generator = scene.keypoints.names, torch.Generator().manual_seed(0)
    model = build_gaussians(config.gaussians, ring.cameras, ring.images, len(names), generator)
    seed_keypoints(model, ring, scene.keypoints, config.kfc, scene.reference.cameras[0])
    batch = StaticDataset(scene, config.static.data, WHITE, seed=0).batch(0)
    stage = StaticStage(model, renderer, config.static, config.kfc, WHITE, seed=0).to(renderer.device)
    return stage, batch.to(renderer.device)


def renders_alone(draw: Callable[[], RenderOutput]) -> Callable[[], None]:
    """The renders of a step and their gradients, with nothing around them."""

    def run() -> None:
        output = draw()
        torch.autograd.backward([output.image, output.alpha], [output.image.detach(), output.alpha.detach()])

    return run


def steps(kinds: dict[str, str], runs: int, overrides: list[str]) -> list[Row]:
    """One full step of both stages of the `kg4d` preset with each renderer, against its renders alone.

    Args:
        kinds: The renderers, with the name of the device of each.
        runs: How many of each.
        overrides: Of the preset.
    """
    keys = ["scene=synthetic:walker", *overrides]
    configs = {k: load_config(ExperimentConfig, PRESET, [*keys, f"renderer.kind={k}"]) for k in kinds}
    first = next(iter(configs.values()))
    scene = build_scene(first, build_run_renderer(first))
    frames = DynamicDataset(scene, first.dynamic.data, WHITE, seed=0).batch(0)
    work: dict[str, Callable[[], None]] = {}
    for kind, config in configs.items():
        static, views = static_stage(config, scene)
        dynamic, step = make_step(config, scene, frames)
        here = frames.to(dynamic.renderer.device)
        still, moving = partial(_draw_views, static, views), partial(_draw_frames, dynamic, here)
        work[f"static step, {kind}"] = _waited(one_step(static, views), kind)
        work[f"static renders, {kind}"] = _waited(renders_alone(still), kind)
        work[f"dynamic step, {kind}"] = _waited(step, kind)
        work[f"dynamic renders, {kind}"] = _waited(renders_alone(moving), kind)
    times = interleaved(work, runs)
    rows = []
    for name, seconds in times.items():
        if " step, " in name:
            alone, device = times[name.replace("step", "renders")], kinds[name.rsplit(" ", 1)[1]]
            rows.append(Row(name, seconds / alone, "x", 1.6, "lower", f"its renders alone, {device}"))
            rows.append(Row(f"{name}: time", seconds * 1e3, "ms", None, "lower", f"itself, {device}"))
    return rows


def _draw_views(stage: StaticStage, batch: StaticBatch) -> RenderOutput:
    return stage.renderer(stage.model.state(), batch.cameras, background=stage.background)


def _draw_frames(stage: DynamicStage, batch: DynamicBatch) -> RenderOutput:
    moving = stage.representation.states(batch.times)
    return stage.renderer.frames(moving, batch.cameras, background=stage.background)


def _waited(step: Callable[[], None], kind: str) -> Callable[[], None]:
    def run() -> None:
        step()
        if kind == "cuda":
            torch.cuda.synchronize()

    return run


def whole_fit(device: str, kind: str, overrides: list[str]) -> list[Row]:
    """Seconds of a fit of the `kg4d` preset from its request to its metrics, and the memory that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        keys = ["scene=synthetic:walker", "tracking.wandb.mode=disabled", "trainer.progress_bar=false"]
        keys += [f"output={folder}", f"renderer.kind={kind}", *overrides]
        start = time.perf_counter()
        run = fit(load_config(ExperimentConfig, PRESET, keys))
        seconds = time.perf_counter() - start
        memory = json.loads((run / "run.json").read_text())["peak_memory_bytes"]
    used = memory["device"] if kind == "cuda" else memory["host"]
    return [
        Row(f"whole fit, {kind}", seconds, "s", 30.0, "lower", f"itself, {device}"),
        Row(f"whole fit, {kind}: memory", used / 2**20, "MiB", 2048.0, "lower", f"itself, {device}"),
    ]


def failed_tests(where: str) -> Row:
    """How many of the tests that need a GPU do not pass."""
    with tempfile.TemporaryDirectory() as folder:
        report_file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", where, f"--junitxml={report_file}"]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        suites = ElementTree.parse(report_file).getroot().iter("testsuite")
        failed = sum(int(suite.get(kind, "0")) for suite in suites for kind in ("failures", "errors"))
    return Row("tests that need a GPU and fail", float(failed), "", 0.0, "lower", where)


def device_name() -> str:
    """The GPU with its driver, and the CUDA that torch is built for."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        found = []
    driver = found[0] if found else "unknown"
    return f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}"


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    try:
        cuda = build_renderer("cuda")
    except RendererUnavailableError as error:
        print(f"nothing measured: {error}")
        report([], args.json)
        return
    cpu, device = build_renderer("cpu"), device_name()
    rows = [failed_tests("tests/render")]
    rows += [row for case in PARITY for row in parity(cpu, cuda, *case)]
    rows += [row for case in OVERHEAD for row in overhead(cuda, device, *case, 3 * args.runs)]
    rows += steps({"cuda": device}, 3 * args.runs, [])
    rows += whole_fit(device, "cuda", [])
    report(rows, args.json)


if __name__ == "__main__":
    main()
