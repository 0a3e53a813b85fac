"""The commands as a person calls them, at tiny size."""

from pathlib import Path

from kg4d import fit, prepare
from kg4d.utils.cli import run

ROOT = Path(__file__).parents[2]
TINY_PRIORS = ("framing.size=32", "keypoints.count=6", "progress_bar=false")
TINY_FIT = (
    "image_size=32",
    "gaussians.count=120",
    "static.steps=2",
    "dynamic.steps=2",
    "refine.steps=1",
    "lift.steps=2",
    "lift.hypotheses=2",
    "lift.surface=20",
    "lift.mirrors=1",
    "lift.trial_steps=2",
    "wgf.random_pixels=16",
    "rigidity.samples=20",
    "rigidity.neighbours=4",
    "trainer.progress_bar=false",
    "tracking.wandb.mode=disabled",
    "evaluation.networks=false",
    "export.formats=[]",
)


def prepared(source: Path, out: Path, *words: str) -> int:
    """Exit status of `python -m kg4d.prepare`."""
    return run(prepare.main, prepare.parser(), ["--input", str(source), "--out", str(out), *TINY_PRIORS, *words])


def fitted(experiment: str, scene: Path, output: Path, *words: str) -> int:
    """Exit status of `python -m kg4d.fit`."""
    priors = [f"priors.{word}" for word in TINY_PRIORS]
    given = ["--config", str(ROOT / f"experiments/{experiment}.yaml"), f"scene={scene}", f"output={output}"]
    return run(fit.main, fit.parser(), [*given, *priors, *TINY_FIT, *words])


def tiny_video(folder: Path) -> list[str]:
    """Settings that make a video with the model in `folder`."""
    return [f"video.model={folder}", "video.size=64", "video.frames=3", "video.steps=1"]


def tiny_views(folder: Path) -> list[str]:
    """Settings that make views with the model in `folder`."""
    return ["views.kind=zero123", f"views.model={folder}", "views.steps=1", "views.azimuths=[90.0,180.0]"]
