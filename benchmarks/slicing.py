"""What Gaussians in space and time cost on the CPU: a slice against a render, a step against a static step."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, arguments, benchmark_scene, in_turns, ratio, report
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.spacetime import SpacetimeModel
from kg4d.geometry.cameras import joined
from kg4d.losses.photometric import photometric_loss
from kg4d.losses.settings import PhotometricConfig
from kg4d.render import build_renderer

LEAST_WEIGHT = 0.05
SEGMENTS = 8
IMAGES = 4  # of a step
TIMES = torch.tensor([0.1, 0.35, 0.6, 0.9])


def in_spacetime(count: int, size: int) -> SpacetimeModel:
    """The pieces of `count` Gaussians along time, at rest."""
    scene = benchmark_scene(count, size, 3)
    state = replace(scene.gaussians, colors=scene.features).detach()
    deviation = 0.5 / (SEGMENTS - 1)
    return SpacetimeModel.from_moving(MovingGaussians.still(state, SEGMENTS), torch.linspace(0, 1, SEGMENTS), deviation)


def slice_against_render(count: int, size: int, runs: int) -> Row:
    """Forward and backward of both, for as many Gaussians, at one time, on one thread."""
    model, renderer = in_spacetime(count // SEGMENTS, size), build_renderer("cpu", threads=1)
    scene = benchmark_scene(len(model), size, 3)
    time, weights = TIMES[:1], torch.rand(1, size, size, 3)
    v_means, v_shapes = torch.rand(1, len(model), 3), torch.rand(1, len(model), 6)

    def cut() -> None:
        model.zero_grad()
        moving = model.states(time, LEAST_WEIGHT)
        assert moving.covariances is not None
        assert moving.opacities is not None
        outputs = [moving.means, moving.covariances, moving.opacities]
        torch.autograd.backward(outputs, [v_means, v_shapes, v_means[..., 0]])

    def draw() -> None:
        scene.clear()
        renderer(scene.gaussians, scene.cameras, features=scene.features).image.backward(weights)

    times = in_turns({"slice": cut, "render": draw}, runs)
    claim = f"slice of {len(model):,} Gaussians: time"
    return Row(claim, 100 * ratio(times["slice"], times["render"]), "%", 15, "lower", f"their render at {size}²")


def step_against_static(count: int, size: int, runs: int) -> list[Row]:
    """Steps of 4 images with the image loss and Adam: at 4 times, and of a static model of as many as are seen."""
    renderer = build_renderer("cpu", threads=1)
    moving = in_spacetime(count, size)
    with torch.no_grad():
        there = moving.states(TIMES, LEAST_WEIGHT).opacities
    assert there is not None
    seen = int((there > 0).sum(1).float().mean())
    scene = benchmark_scene(seen, size, 3)
    static = GaussianModel.from_state(replace(scene.gaussians, colors=scene.features).detach())
    cameras = joined([scene.cameras] * IMAGES)
    target, alphas = torch.rand(IMAGES, size, size, 3), torch.rand(IMAGES, size, size, 1)
    config = PhotometricConfig()
    optimizers = {model: torch.optim.Adam(model.parameters(), 1e-5) for model in (moving, static)}

    def finish(output: object, model: torch.nn.Module) -> None:
        photometric_loss(output.image, target, output.alpha, alphas, config).backward()  # type: ignore[attr-defined]
        optimizers[model].step()  # type: ignore[index]
        optimizers[model].zero_grad()  # type: ignore[index]

    contestants = {
        "spacetime": lambda: finish(renderer.frames(moving.states(TIMES, LEAST_WEIGHT), cameras), moving),
        "static": lambda: finish(renderer(static.state(), cameras), static),
    }
    times = in_turns(contestants, runs)
    name = f"step with {seen:,} of {len(moving):,} Gaussians seen, {IMAGES} images of {size}²"
    return [Row(f"{name}: time", ratio(times["spacetime"], times["static"]), "x", 1.5, "lower", "a static step")]


def main() -> None:
    """Run all cases."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report([slice_against_render(50_000, 512, args.runs), *step_against_static(2_000, 256, args.runs)], args.json)


if __name__ == "__main__":
    main()
