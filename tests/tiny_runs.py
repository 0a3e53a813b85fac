"""Fits of seconds: the settings that make every experiment file small, a stop in their middle, what they leave."""

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import PosedImages
from kg4d.stages.base import Stage

ROOT = Path(__file__).parents[1]
TINY = (
    "image_size=32",
    "gaussians.count=150",
    "gaussians.hull_resolution=24",
    "lift.hypotheses=2",
    "lift.surface=30",
    "lift.mirrors=1",
    "lift.trial_steps=2",
    "static.steps=6",
    "dynamic.steps=6",
    "refine.steps=2",
    "wgf.random_pixels=16",
    "deformation.control_points.count=12",
    "representation.spacetime.carry_steps=2",
    "rigidity.samples=50",
    "rigidity.neighbours=4",
    "trainer.progress_bar=false",
    "trainer.checkpoint_every=2",
    "tracking.wandb.mode=disabled",
    "evaluation.networks=false",
    "export.formats=[ply]",
)


def tiny(output: Path, *overrides: str, file: str = "kg4d") -> ExperimentConfig:
    words = (*TINY, f"output={output}", *overrides)
    config = expand(ExperimentConfig, ROOT / f"experiments/{file}.yaml", words)[0].config
    return config if any(word.startswith("lift.steps=") for word in overrides) else lifted_briefly(config)


def lifted_briefly(config: ExperimentConfig) -> ExperimentConfig:
    """The same with a short lift, where there is one."""
    return replace(config, lift=replace(config.lift, steps=min(config.lift.steps, 12)))


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Send this process SIGTERM in the middle of that step."""
    original: Callable[..., Any] = Stage.training_step

    def step(self: Stage[Any], batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        if self.name == stage and batch.step == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Stage, "training_step", step)


def stages_of(run: Path) -> dict[str, Any]:
    stages: dict[str, Any] = json.loads((run / "run.json").read_text())["stages"]
    return stages


def terms_of(run: Path, stage: str) -> set[str]:
    """Names of the terms of the loss that a stage wrote to the history."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        written = {name for row in csv.DictReader(lines) for name, value in row.items() if value}
    return {name.removeprefix(f"{stage}/") for name in written if name.startswith(f"{stage}/")}


def blank_psnr(views: PosedImages) -> float:
    """The PSNR of white images: what a method scores that draws nothing."""
    truth = views.composited(torch.ones(3))
    return float(-10 * (1 - truth).square().mean((1, 2, 3)).log10().mean())
