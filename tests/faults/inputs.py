"""One sound input of each kind, and how the commands read it."""

import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kg4d.config.load import Run, expand
from kg4d.config.schema import ExperimentConfig
from kg4d.data.images import write_png
from kg4d.data.normalisation import normalisation_of
from kg4d.data.records import view_grid
from kg4d.data.scene_writer import write_scene
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.gaussians.points import read_points
from kg4d.metrics.folders import read_folders
from kg4d.pipeline import fit
from kg4d.priors.base import Identity
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.files import read_masks
from kg4d.priors.keypoints.marked import SupportKeypoints, read_support, write_support
from kg4d.render.base import Renderer
from kg4d.render.build import build_renderer
from kg4d.runs.build import build_run, build_scene
from kg4d.runs.folder import RunFolder
from kg4d.runs.read_back import load_run
from kg4d.runs.results import gather
from kg4d.tracking.history import History
from tests import make
from tests.priors.clips import save_video
from tests.tiny_runs import tiny

SMALL = ("image_size=16", "gaussians.count=40", "gaussians.hull_resolution=12", "static.steps=2", "dynamic.steps=2")


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        file: The one to be damaged, inside the folder of all that belongs to it.
        read: Reads it, given that folder and the file, as the commands do.
    """

    file: str
    read: Callable[[Path, Path], Any]


def content(value: Any) -> Any:
    """What was read as nested lists, dicts, tensors and plain values, for `tree_hash`."""
    if is_dataclass(value):
        return {field.name: content(getattr(value, field.name)) for field in fields(value) if field.name != "files"}
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@cache
def _renderer() -> Renderer:
    return build_renderer("cpu")


@cache
def _config() -> ExperimentConfig:
    return tiny(Path("runs"), *SMALL)


def _scene(folder: Path, _: Path) -> Any:
    scene = build_scene(replace(_config(), scene=str(folder / "tiny")), _renderer())
    return scene, view_grid(scene.test), normalisation_of(scene)


def _words(folder: Path, file: Path) -> Any:
    config = expand(ExperimentConfig, folder / "experiment.yaml", [file.read_text()])[0].config
    return build_run(config).config


def _experiment(folder: Path, file: Path) -> Any:
    config = expand(ExperimentConfig, file)[0].config
    build_run(config)
    return config


def _run_folder(folder: Path) -> Path:
    return folder / "kg4d/full/seed0"


def _loaded(folder: Path, _: Path) -> Any:
    run = load_run(_run_folder(folder))
    return run.fitted.representation.state_dict(), run.fitted.normalisation, run.config.name, run.scene


def _resumed(folder: Path, _: Path) -> Any:
    config = replace(_fitted_config(), output=str(folder), scene=RunFolder(_run_folder(folder)).read_config().scene)
    done = RunFolder(fit(config, resume=True))
    return gather([Run("scene", "full", 0, config)]), done.record.stat().st_size > 0


def _rows(_: Path, file: Path) -> Any:
    """A history that has lost its end may be continued: what is there must be the beginning of the sound one."""
    rows = History(file)._read()
    return rows if rows != SOUND_ROWS[: len(rows)] else SOUND_ROWS


SOUND_ROWS: list[dict[str, Any]] = []


class Doubler:
    name = "doubler"

    def identity(self) -> Identity:
        return {"factor": 2}


def _cached(folder: Path, _: Path) -> Tensor:
    return PriorCache(folder).get_or_make(Doubler(), {"x": torch.ones(300)}, lambda: {"y": torch.full((300,), 2.0)})[
        "y"
    ]


KINDS = {
    **{
        name: Kind(f"tiny/{name}", _scene)
        for name in (
            *("transforms_train.json", "transforms_ring.json", "transforms_test.json"),
            *("keypoints.npz", "flow.npz", "scene.json"),
        )
    },
    "picture of a scene": Kind("tiny/train/r_001.png", _scene),
    "picture to evaluate": Kind("pred/v0_1.png", lambda folder, _: read_folders(folder / "pred", folder / "target")),
    "picture to prepare": Kind("picture.png", lambda _, file: read_clip(file, Span(4))),
    "video": Kind("video.mp4", lambda _, file: read_clip(file, Span(4))),
    "mask": Kind(
        "masks/m_0.png", lambda folder, file: read_masks(file.parent, read_clip(folder / "picture.png", Span(4)))
    ),
    "points.ply": Kind("points.ply", lambda _, file: read_points(file)),
    "points.npy": Kind("points.npy", lambda _, file: read_points(file)),
    "keypoints.json": Kind("keypoints.json", lambda _, file: read_support(file, 16, 16)),
    "experiment.yaml": Kind("experiment.yaml", _experiment),
    "command line": Kind("words.txt", _words),
    "checkpoint": Kind("kg4d/full/seed0/checkpoints/refine.ckpt", _loaded),
    "config.yaml": Kind("kg4d/full/seed0/config.yaml", _loaded),
    "normalisation.json": Kind("kg4d/full/seed0/normalisation.json", _loaded),
    "metrics.json": Kind("kg4d/full/seed0/metrics.json", _resumed),
    "run.json": Kind("kg4d/full/seed0/run.json", _resumed),
    "metrics.csv": Kind("kg4d/full/seed0/metrics.csv", _rows),
    "manifest.json of the cache": Kind("*/manifest.json", _cached),
    "data of the cache": Kind("*/data.safetensors", _cached),
}


@cache
def _fitted_config() -> ExperimentConfig:
    return tiny(Path("runs"), *SMALL, "refine.steps=1", "wgf.weight=0")


def write_sound(folder: Path) -> dict[str, Path]:
    """A folder for each group of kinds, with all that the commands read it with."""
    scene, run, other, cached = (folder / name for name in ("scene", "run", "other", "cached"))
    write_scene(make.tiny_scene(), scene / "tiny", {"cache_keys": {"doubler": ["1"]}})
    for name in ("pred", "target"):
        for index in range(2):
            write_png(other / name / f"v0_{index}.png", torch.rand(16, 16, 4, generator=torch.manual_seed(index)))
    shutil.copytree(scene / "tiny", other / "tiny")
    write_png(other / "picture.png", make.tiny_scene().reference.images[0])
    write_png(other / "masks" / "m_0.png", make.tiny_scene().reference.images[0])
    save_video(other / "video.mp4")
    points = torch.rand(5, 3).double().numpy()
    np.save(other / "points.npy", points)
    axes = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex 5\n{axes}end_header\n"
    (other / "points.ply").write_bytes(header.encode() + points.tobytes())
    write_support(
        other / "keypoints.json",
        SupportKeypoints(("a", "b", "c"), (-1, 0, 1), torch.tensor([[1.0, 2], [3, 4], [5, 6]])),
    )
    settings = [f"scene: {other / 'tiny'}", "image_size: 16", "gaussians: {count: 40, hull_resolution: 12}"]
    settings += ["rigidity: {neighbours: 4, samples: 50}"]
    (other / "experiment.yaml").write_text("\n".join(settings) + "\n")
    (other / "words.txt").write_text("seed=0")
    config = replace(_fitted_config(), output=str(run), scene=str(scene / "tiny"))
    SOUND_ROWS[:] = History(fit(config) / "metrics.csv")._read()
    _cached(cached, cached)
    return {"scene": scene, "run": run, "other": other, "cached": cached}


def group_of(kind: str) -> str:
    """Which of the folders a kind belongs to."""
    if kind.endswith("of the cache"):
        return "cached"
    if KINDS[kind].file.startswith("kg4d/"):
        return "run"
    return "scene" if KINDS[kind].file.startswith("tiny/") else "other"
