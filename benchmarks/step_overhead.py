"""What KFC and WGF add to a dynamic step on the CPU: the same step of the `kg4d` preset with and without them.

A step is the objective, its gradients and the optimiser, on the embedded character at 256² with 5,000 Gaussians and 4
frames; all forms are timed in turns. With the barycentre reading KFC draws nothing; the heatmap reading draws J
channels at a quarter of the image's resolution.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kg4d.utils.before_torch  # noqa: F401  (before torch, as in every command)

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, arguments, in_turns, ratio, report
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.batches.batch import DynamicBatch, StaticBatch
from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.records import Scene
from kg4d.gaussians.build import build_gaussians
from kg4d.lift.seeding import seed_keypoints
from kg4d.losses.flow.observations import random_flow_pixels
from kg4d.optim.objective import Objective
from kg4d.ot.flow_targets import flow_field
from kg4d.runs.build import build_run_renderer, build_run_representation, build_scene
from kg4d.stages.base import Stage
from kg4d.stages.dynamic import DynamicStage, MotionLosses

PRESET = Path(__file__).parent.parent / "experiments" / "kg4d.yaml"
FORMS = {
    "neither": ["kfc.weight=0", "wgf.weight=0"],
    "barycentre": ["kfc.mode=barycentre"],
    "heatmap": ["kfc.mode=heatmap"],
}


def make_step(config: ExperimentConfig, scene: Scene, batch: DynamicBatch) -> tuple[DynamicStage, Callable[[], None]]:
    """A stage and a function that runs one step of it, half-way through the stage."""
    assert scene.ring is not None
    assert scene.keypoints is not None
    torch.manual_seed(0)
    renderer = build_run_renderer(config)
    generator = torch.Generator().manual_seed(0)
    ring = scene.ring
    model = build_gaussians(config.gaussians, ring.cameras, ring.images, len(scene.keypoints.names), generator)
    parents = seed_keypoints(model, ring, scene.keypoints, config.kfc, scene.reference.cameras[0]).parents
    losses = MotionLosses(config.kfc, config.wgf, config.rigidity, config.bones)
    representation = build_run_representation(config, model)
    stage = DynamicStage(representation, renderer, config.dynamic, losses, parents, torch.ones(3), seed=0)
    stage.to(renderer.device)
    return stage, one_step(stage, batch.to(renderer.device))


def one_step(stage: Stage[Any], batch: StaticBatch | DynamicBatch) -> Callable[[], None]:
    """A function that runs one step of a stage half-way through it; stage and batch are on the renderer's device."""
    stage.on_train_start()
    optimizer = stage.configure_optimizers()

    def step() -> None:
        objective = Objective(progress=0.5)
        stage.objective(batch, objective)
        assert objective.total is not None
        objective.total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def contributors_call(config: ExperimentConfig, stage: DynamicStage, batch: DynamicBatch) -> Callable[[], object]:
    """The look-up of WGF's contributors for all pairs of a step, on renders made beforehand."""
    moving = stage.representation.states(batch.times)
    renders = [
        (stage.renderer(moving.at(b), batch.cameras[b]), batch.keypoints[b].nan_to_num())
        for b in batch.pairs[:, 0].tolist()
    ]
    assert batch.flow is not None
    assert batch.flow_weights is not None
    field = flow_field(batch.flow[0], batch.flow_weights[0])
    flow_pixels = random_flow_pixels(field, config.wgf.random_pixels, torch.Generator())
    asked = [(output, torch.cat([keypoints, flow_pixels])) for output, keypoints in renders]

    def call() -> None:
        for output, pixels in asked:
            cameras = torch.zeros(len(pixels), dtype=torch.int64)
            stage.renderer.contributors(output, cameras, pixels, config.wgf.contributors)

    return call


def main() -> None:
    """Time all forms."""
    args = arguments(__doc__)
    configs = {
        name: load_config(ExperimentConfig, PRESET, ["scene=synthetic:walker", *keys]) for name, keys in FORMS.items()
    }
    base = configs["barycentre"]
    scene = build_scene(base, build_run_renderer(base))
    batch = next(iter(DynamicDataset(scene, base.dynamic.data, torch.ones(3), seed=0)))
    made = {name: make_step(config, scene, batch) for name, config in configs.items()}
    lookup = contributors_call(base, made["barycentre"][0], batch)
    seconds = in_turns({name: step for name, (_, step) in made.items()} | {"lookup": lookup}, 8 * args.runs)
    off, share = seconds["neither"], 100 * ratio(seconds["lookup"], seconds["barycentre"])
    against, threads = "the step with neither", torch.get_num_threads()
    report(
        [
            Row("KFC (barycentre) and WGF", ratio(seconds["barycentre"], off), "x", 1.10, "lower", against),
            Row("KFC (heatmap) and WGF", ratio(seconds["heatmap"], off), "x", 1.30, "lower", against),
            Row("look-up of contributors", share, "%", 2, "lower", "the step"),
            Row("step with neither", 1e3 * statistics.median(off), "ms", None, "lower", f"itself, {threads} threads"),
        ],
        args.json,
    )


if __name__ == "__main__":
    main()
