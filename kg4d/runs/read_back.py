"""A finished run read back: to look at, to measure again, to export; and a model written as one."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import Scene
from kg4d.errors import InputError
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.render.base import Renderer
from kg4d.representation.base import Representation
from kg4d.runs.build import build_run_renderer, build_run_representation, build_scene, renderer_of_fit
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.folder import RunFolder
from kg4d.stages.checkpoints import on_device, read_checkpoint, seal
from kg4d.stages.refine import RefineStage
from kg4d.utils.files import replacing
from kg4d.utils.reading import is_there

_log = logging.getLogger(__name__)

_PREFIX = "representation."  # of its weights in the checkpoint of a stage


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, read back.

    Attributes:
        folder: Its folder.
        config: Its configuration.
        fitted: Its model.
    """

    folder: RunFolder
    config: ExperimentConfig
    fitted: FittedModel

    @cached_property
    def scene(self) -> Scene:
        """The scene it was fitted to."""
        return build_scene(self.config, self.fitted.renderer)

    def states(self, times: Float[Tensor, " B"]) -> list[GaussianState]:
        """The Gaussians at `times`, each in [0, 1]."""
        return self.fitted.states(times)

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the model's keypoints."""
        return self.fitted.keypoints(times)


def load_run(path: str | Path, renderer: Renderer | None = None) -> LoadedRun:
    """Read a finished run back; no code in its files is executed.

    Args:
        path: The run folder.
        renderer: What shall draw it; the one of its configuration when None.

    Raises:
        InputError: This is no run folder, or its last stage is not done.
    """
    folder = RunFolder(Path(path))
    config = folder.read_config()
    checkpoint = folder.checkpoints / f"{RefineStage.name}.ckpt"
    if not is_there(checkpoint):
        raise InputError(path, "holds no finished run", "finish it with kg4d.fit --resume")
    renderer = renderer or build_run_renderer(config)
    content = read_checkpoint(checkpoint, renderer.device)
    if content["kg4d"]["stage"] != RefineStage.name:
        raise InputError(checkpoint, "is of another stage", "remove it; kg4d.fit --resume then makes it again")
    weights = content["state_dict"]
    own = {name.removeprefix(_PREFIX): value for name, value in weights.items() if name.startswith(_PREFIX)}
    try:
        gaussians = GaussianModel.from_weights(own, "gaussians.")
        representation = build_run_representation(config, gaussians)
        representation.load_state_dict(own)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        what = f"does not fit the configuration of its run ({type(error).__name__})"
        raise InputError(checkpoint, what, "restore it, or fit again with --overwrite") from error
    background = torch.tensor(config.background, device=renderer.device)
    model, normalisation = representation.to(renderer.device), folder.read_normalisation()
    assert normalisation is not None  # there is a checkpoint
    if not folder.normalisation.is_file() and config.deformation.rests_first:
        _log.warning("%s: fitted by an earlier version; what a network moves now moves otherwise: fit it again", path)
    fitted = FittedModel(model, renderer_of_fit(renderer, normalisation), background, normalisation)
    return LoadedRun(folder, config, fitted)


def save_model(folder: RunFolder, representation: Representation, run: str) -> None:
    """Write what `load_run` reads of a model that no stage has left.

    Args:
        folder: Of the run; its configuration is that of the representation.
        representation: The model.
        run: Hash of the configuration.
    """
    weights = {f"{_PREFIX}{name}": value for name, value in on_device(representation.state_dict(), "cpu").items()}
    checkpoint: dict[str, Any] = {"kg4d": {"stage": RefineStage.name}, "state_dict": weights}
    seal(checkpoint, run)
    with replacing(folder.checkpoints / f"{RefineStage.name}.ckpt") as part:
        torch.save(checkpoint, part)
