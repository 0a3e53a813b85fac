"""The cuda renderer: does it agree with the cpu one, what does it cost beside raw gsplat, how long do full steps take.

Needs an NVIDIA GPU and gsplat, which builds its kernels when first used (minutes). Elsewhere it says so in a line and
writes no rows.

gsplat computes with fast, less exact maths, and Gaussians of almost equal depth may change places. So the gradients of
the two renderers agree less closely than those of the cpu renderer and of float64; a wrong formula is off by far more.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks._harness import BenchmarkScene, Row, arguments, benchmark_scene, interleaved, report
from benchmarks.step_overhead import PRESET, make_step, one_step
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.static import StaticDataset
from kg4d.data.records import Scene
from kg4d.gaussians.build import build_gaussians
from kg4d.lift.seeding import seed_keypoints
from kg4d.render import build_renderer
from kg4d.render.base import Renderer
from kg4d.render.build import RendererUnavailableError
from kg4d.runs.build import build_run_renderer, build_scene
from kg4d.stages.static import StaticStage

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
    """Forward and backward by our wrapper and by gsplat itself, in turns."""
    from gsplat import rasterization

    scene = benchmark_scene(count, size, channels).on(renderer.device)
    weights = torch.rand(1, size, size, channels, device=renderer.device)

    def timed(render: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            scene.clear()
            render().backward(weights)
            torch.cuda.synchronize()

        return run

    ours = timed(lambda: renderer(scene.gaussians, scene.cameras, features=scene.features).image)
    times = interleaved({"raw": timed(lambda: raw_render(rasterization, scene)), "ours": ours}, runs)
    name = f"{count:,} Gaussians, {size}², {channels} channels"
    return [
        Row(f"{name}: wrapper", times["ours"] / times["raw"], "x", 1.05, "lower", f"raw gsplat 1.5.3, {device}"),
        Row(f"{name}: our time", times["ours"] * 1e3, "ms", None, "lower", f"itself, {device}"),
    ]


def static_step(config: ExperimentConfig, scene: Scene) -> Callable[[], None]:
    """A function that runs one step of the static stage on the renderer's device."""
    assert scene.ring is not None
    assert scene.keypoints is not None
    renderer, ring = build_run_renderer(config), scene.ring
    names, generator = scene.keypoints.names, torch.Generator().manual_seed(0)
    model = build_gaussians(config.gaussians, ring.cameras, ring.images, len(names), generator)
    seed_keypoints(model, ring, scene.keypoints, config.kfc, scene.reference.cameras[0])
    batch = StaticDataset(scene, config.static.data, WHITE, seed=0).batch(0)
    stage = StaticStage(model, renderer, config.static, config.kfc, WHITE, seed=0).to(renderer.device)
    return one_step(stage, batch.to(renderer.device))


def steps(kinds: dict[str, str], runs: int, overrides: list[str]) -> list[Row]:
    """One full step of both stages of the `kg4d` preset with each renderer; `kinds` names the device of each."""
    keys = ["scene=synthetic:walker", *overrides]
    configs = {k: load_config(ExperimentConfig, PRESET, [*keys, f"renderer.kind={k}"]) for k in kinds}
    first = next(iter(configs.values()))
    scene = build_scene(first, build_run_renderer(first))
    batch = DynamicDataset(scene, first.dynamic.data, WHITE, seed=0).batch(0)
    work: dict[str, Callable[[], None]] = {}
    for kind, config in configs.items():
        work[f"static step, {kind}"] = _waited(static_step(config, scene), kind)
        work[f"dynamic step, {kind}"] = _waited(make_step(config, scene, batch)[1], kind)
    times = interleaved(work, runs)
    return [
        Row(name, seconds * 1e3, "ms", None, "lower", f"itself, {kinds[name.rsplit(' ', 1)[1]]}")
        for name, seconds in times.items()
    ]


def _waited(step: Callable[[], None], kind: str) -> Callable[[], None]:
    def run() -> None:
        step()
        if kind == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    try:
        cuda = build_renderer("cuda")
    except RendererUnavailableError as error:
        print(f"nothing measured: {error}")
        report([], args.json)
        return
    cpu, device = build_renderer("cpu"), torch.cuda.get_device_name()
    rows = [row for case in PARITY for row in parity(cpu, cuda, *case)]
    rows += [row for case in OVERHEAD for row in overhead(cuda, device, *case, 10 * args.runs)]
    rows += steps({"cpu": f"{torch.get_num_threads()} threads", "cuda": device}, args.runs, [])
    report(rows, args.json)


if __name__ == "__main__":
    main()
