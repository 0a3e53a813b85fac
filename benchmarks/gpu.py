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
from collections.abc import Callable, Sequence
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
from kg4d.losses.sds import Viewpoint, sds_loss
from kg4d.pipeline import fit
from kg4d.priors.diffusion.camera_projection import CLIPCameraProjection
from kg4d.priors.diffusion.checkpoint import Checkpoint
from kg4d.priors.diffusion.noise_predictor import Zero123Noise
from kg4d.priors.diffusion.settings import Zero123Kind
from kg4d.priors.diffusion.zero123 import Condition, Zero123
from kg4d.render import build_renderer
from kg4d.render.base import Renderer, RenderOutput
from kg4d.render.build import RendererUnavailableError
from kg4d.runs.build import build_run_renderer, build_scene
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.static import StaticStage

ROOT = Path(__file__).parent.parent
STEP_TARGETS = {"static": 10.0, "dynamic": 20.0}  # ms; 500 of each are half of the 30 s of a whole fit
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
            target = STEP_TARGETS[name.split()[0]]
            rows.append(Row(f"{name}: time", seconds * 1e3, "ms", target, "lower", f"itself, {device}"))
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


class Sizes(NamedTuple):
    """Sizes of the networks of Zero-1-to-3; by default the real ones."""

    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    vae: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    width: int = 768  # of the embeddings
    groups: int = 32
    side: int = 256  # of the images, px


def random_zero123(device: torch.device, sizes: Sizes) -> Zero123Noise:
    """A noise predictor of those sizes whose weights are random: it takes as long as one that was trained."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    kinds, levels = {"norm_num_groups": sizes.groups, "layers_per_block": sizes.layers}, len(sizes.vae)
    unet = UNet2DConditionModel(
        sample_size=sizes.side // 2 ** (levels - 1),
        in_channels=8,
        out_channels=4,
        block_out_channels=sizes.unet,
        down_block_types=("CrossAttnDownBlock2D",) * (len(sizes.unet) - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(sizes.unet) - 1),
        cross_attention_dim=sizes.width,
        **kinds,
    )
    vae = AutoencoderKL(
        block_out_channels=sizes.vae,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        sample_size=sizes.side,
        **kinds,
    )
    network = Zero123(Zero123Kind.ZERO123, Checkpoint("guidance.model", "random", Path()), device)
    parts = {"_unet": unet, "_vae": vae, "_projection": CLIPCameraProjection(sizes.width)}
    for name, part in parts.items():  # in the place of those that are loaded at their first use
        vars(network)[name] = part.to(device, network.dtype).eval().requires_grad_(False)
    vars(network)["scheduler"] = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    model, side = Zero123Noise(network, torch.rand(1, sizes.side, sizes.side, 3), 5.0), unet.config.sample_size
    condition = Condition(torch.randn(1, 1, sizes.width), torch.randn(1, 4, side, side))
    vars(model)["_condition"] = condition.to(device, network.dtype)
    return model


def distillation(device: torch.device, name: str, runs: int, sizes: Sizes) -> list[Row]:
    """The loss of score distillation and its gradient: one view, four in one batch, and four one after the other."""
    model = random_zero123(device, sizes)
    images = torch.rand(4, sizes.side, sizes.side, 3, device=device, requires_grad=True)

    def judged(parts: Sequence[Tensor]) -> Callable[[], None]:
        def run() -> None:
            for part in parts:
                views = [Viewpoint(0, 30.0 * view, 0.0) for view in range(len(part))]
                sds_loss(model, part, views, [500] * len(part), torch.Generator().manual_seed(0)).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    times = interleaved(
        {"one": judged(images[:1].split(1)), "batch": judged([images]), "each": judged(images.split(1))}, runs
    )
    against = f"itself, {name}"
    return [
        Row("score distillation, one view", times["one"] * 1e3, "ms", 100.0, "lower", against),
        Row("score distillation, four views in one batch", times["batch"] * 1e3, "ms", 250.0, "lower", against),
        Row("four views in one batch", times["batch"] / times["each"], "x", 0.6, "lower", f"one by one, {name}"),
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
    rows += distillation(cuda.device, device, args.runs, Sizes())
    rows += whole_fit(device, "cuda", [])
    report(rows, args.json)


if __name__ == "__main__":
    main()
