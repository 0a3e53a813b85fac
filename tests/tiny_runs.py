"""Fits of seconds: the settings that make every experiment file small."""

from pathlib import Path

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig

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
