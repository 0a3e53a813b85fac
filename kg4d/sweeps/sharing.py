"""Stages that several fits of an experiment have in common: the first one fits them, the others load its checkpoint."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kg4d.config.schema import ExperimentConfig
from kg4d.runs.folder import RunFolder, experiment_folder, run_hash
from kg4d.stages.checkpoints import reseal
from kg4d.utils.files import replacing

_STATIC_KEYS = (
    *("scene", "world", "seed", "image_size", "background", "renderer", "gaussians", "static", "kfc", "keypoints"),
    *("frames", "detections", "guidance", "priors", "optimizer", "depth"),
)
_STAGES = ("static", "dynamic", "refine")
_NO_FIT_KEYS = ("output", "evaluation", "export", "tracking", "variants", "scenes", "seeds", "name")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML has it


def share_in_experiment(config: ExperimentConfig) -> None:
    """Begin a run with the stages of other runs of its experiment, where none lies in its folder yet."""
    if not RunFolder.of(config).config.is_file():
        above = experiment_folder(config)
        share_stages(config, [path for depth in ("*", "*/*") for path in above.glob(f"{depth}/seed{config.seed}")])


def share_stages(config: ExperimentConfig, others: Iterable[Path]) -> None:
    """Begin a run with stages of other runs, as far as all that they depend on is the same.

    A run of this configuration that has begun already stays as it is; one of another is replaced.

    Args:
        config: Of the run.
        others: Folders of other runs.
    """
    folder = RunFolder.of(config)
    if folder.matches(config):
        return
    folder.begin(config)
    mine = _settings(folder.config)
    known = [
        (RunFolder(path), _settings(RunFolder(path).config))
        for path in sorted(others)
        if path != folder.path and _has_static_stage(RunFolder(path))
    ]
    same_fit = [other for other, its in known if _fit_part(its) == _fit_part(mine)]
    same_static = [other for other, its in known if _static_part(its) == _static_part(mine)]
    for giver in [*same_fit, *same_static][:1]:
        for stage in _STAGES if same_fit else _STAGES[:1]:
            _copy(giver.checkpoints / f"{stage}.ckpt", folder.checkpoints / f"{stage}.ckpt")
        _copy(giver.normalisation, folder.normalisation)
    for shared in folder.checkpoints.glob("*.ckpt"):
        reseal(shared, run_hash(config))


def _has_static_stage(folder: RunFolder) -> bool:
    return folder.config.is_file() and (folder.checkpoints / "static.ckpt").is_file()


def _copy(file: Path, to: Path) -> None:
    if file.is_file():
        with replacing(to) as part:
            shutil.copyfile(file, part)


def _settings(path: Path) -> dict[str, Any]:
    """The configuration of a run as plain data: to build it takes a hundred times as long, and a fit reads dozens."""
    settings: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    return settings


def _static_part(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings.get(key) for key in _STATIC_KEYS}


def _fit_part(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NO_FIT_KEYS}
