"""What a configuration stands for, and a finished run read back: to look at, to measure again, to export."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kg4d.config.schema import ExperimentConfig
from kg4d.data.readers.viewpoints import looked_at
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.data.studies.frame_subset import without_texture
from kg4d.data.studies.keypoint_subset import choose_keypoints
from kg4d.data.studies.noisy_detections import DetectionsSource, disturbed
from kg4d.data.synthetic.scene import make_scene
from kg4d.data.videos import IMAGE_SUFFIXES
from kg4d.deform.build import build_deformation
from kg4d.errors import InputError
from kg4d.gaussians.model import GaussianModel
from kg4d.priors.build import PriorsConfig
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import networks_device
from kg4d.priors.diffusion.noise_predictor import GuidanceKind, build_noise_model, find_noise_model
from kg4d.priors.prepare import prepared
from kg4d.priors.redetect import found_again
from kg4d.render.base import Renderer
from kg4d.render.build import RendererUnavailableError, build_renderer
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.guidance import Guidance
from kg4d.stages.static import StaticStage

SYNTHETIC = "synthetic:"  # what a scene that is made on the spot is named by


def build_run_renderer(config: ExperimentConfig) -> Renderer:
    """The renderer that the configuration names.

    Raises:
        InputError: It cannot work on this machine.
    """
    try:
        return build_renderer(config.renderer.kind, config.renderer.threads)
    except RendererUnavailableError as error:
        raise InputError("renderer.kind", str(error), "or let renderer.kind=auto choose") from error


@contextmanager
def _keys_below_priors() -> Iterator[None]:
    """Errors about settings of the priors name them as an experiment file does."""
    try:
        yield
    except InputError as error:
        if str(error.where).split(".")[0] not in PriorsConfig.__dataclass_fields__:
            raise
        remedy = f"{error.remedy}; all these keys stand below priors"
        raise InputError(f"priors.{error.where}", error.what, remedy) from error


def build_scene(config: ExperimentConfig, renderer: Renderer) -> Scene:
    """The scene that `config.scene` names, at `config.image_size`, with the keypoints that the fit uses; all frames.

    An image, a video or a folder of frames is prepared, where it was not prepared before; so are the detections that
    are to be found.
    """
    path = Path(config.scene)
    priors = replace(config.priors, progress_bar=config.priors.progress_bar and config.trainer.progress_bar)
    if config.scene.startswith(SYNTHETIC):
        scene = make_scene(config.scene.removeprefix(SYNTHETIC), renderer, size=config.image_size)
    elif path.is_file() or _holds_frames(path):
        with _keys_below_priors():
            folder = prepared(priors, path)
        scene = replace(load_scene(folder, size=config.image_size), name=path.resolve().stem)
    else:
        scene = load_scene(path, size=config.image_size)
    if config.detections.source is DetectionsSource.FOUND:
        with _keys_below_priors():
            scene = found_again(scene, priors)
    if config.frames.textureless:
        scene = without_texture(scene)
    keypoints = disturbed(scene.keypoints, config.detections, config.seed)
    return replace(scene, keypoints=choose_keypoints(keypoints, config.keypoints))


def _holds_frames(folder: Path) -> bool:
    """Whether a folder is a video, and no scene."""
    if not folder.is_dir() or any(folder.glob("transforms_*.json")):
        return False
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def check_run_guidance(config: ExperimentConfig) -> None:
    """Look for the diffusion model of the guidance before the scene is built, which may take hours.

    Raises:
        InputError: The model is not there.
    """
    if _guided_stages(config):
        find_noise_model(config.guidance)


def _guided_stages(config: ExperimentConfig) -> list[str]:
    guidance = config.guidance
    weights = {StaticStage.name: guidance.static.weight, DynamicStage.name: guidance.dynamic.weight}
    return [name for name, weight in weights.items() if weight > 0 and guidance.kind is not GuidanceKind.NONE]


def build_run_guidance(
    config: ExperimentConfig, scene: Scene, device: torch.device, cache: PriorCache
) -> dict[str, Guidance]:
    """What judges views that the scene does not show, by the name of the stage; only for stages that have it.

    Args:
        config: Of the run.
        scene: At the resolution of the fit.
        device: Where the fit computes; the diffusion model computes on the GPU where there is one.
        cache: Keeps what the diffusion model makes of the input.

    Raises:
        InputError: The diffusion model is not there.
    """
    guidance, reference = config.guidance, scene.reference
    frames = {StaticStage.name: 1, DynamicStage.name: len(reference)}
    settings = {StaticStage.name: guidance.static, DynamicStage.name: guidance.dynamic}
    guided = _guided_stages(config)
    if not guided:
        return {}
    told = reference[: max(frames[name] for name in guided)]
    elevation = guidance.reference_elevation
    if elevation is None:
        rising = float(reference.cameras.viewmats[0, 2, 1])  # how much of its line of sight goes along +Y, which is up
        elevation = -math.degrees(math.asin(max(-1.0, min(1.0, rising))))
    model = build_noise_model(guidance, told.on(torch.ones(3)), elevation, networks_device(), cache)
    around = [reference.cameras] if scene.ring is None else [reference.cameras, scene.ring.cameras]
    center, cameras = looked_at(around).to(device), reference.cameras.to(device)
    return {
        name: Guidance(
            model,
            settings[name],
            cameras[: frames[name]],
            reference.times[: frames[name]].to(device),
            center,
            elevation,
            config.seed,
        )
        for name in guided
    }


def build_run_deformation(config: ExperimentConfig, model: GaussianModel) -> nn.Module:
    """The untrained deformation of a run: its weights from the seed, its unit of length from the static Gaussians.

    Both are functions of what a checkpoint holds, so that a run that is read back gets the same module.

    Raises:
        InputError: The settings describe no network.
    """
    radius = float(model.means.detach().abs().max().clamp_min(1e-3))
    generator = torch.Generator().manual_seed(config.seed)
    try:
        module = build_deformation(
            config.deformation,
            radius,
            generator,
            joints=model.keypoint_logits.shape[1],
            means=model.means.detach(),
            isotropic=config.gaussians.isotropic,
        )
    except ValueError as error:
        raise InputError("deformation", str(error), "correct its settings") from error
    return module.to(model.means.device)
