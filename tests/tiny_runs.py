"""Fits of seconds: the settings that make every experiment file small, a stop in their middle, and their record."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.stages.base import Stage

ROOT = Path(__file__).parents[1]
TINY = (
    "image_size=32",
    "gaussians.count=150",
    "gaussians.hull_resolution=24",
    "static.steps=6",
    "dynamic.steps=6",
    "refine.steps=2",
    "wgf.random_pixels=16",
    "deformation.control_points.count=12",
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
    return expand(ExperimentConfig, ROOT / f"experiments/{file}.yaml", words)[0].config


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
