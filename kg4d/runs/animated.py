"""The skinned model of a finished run, moved by another motion: a run folder like any other."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from kg4d.config.schema import ExperimentConfig
from kg4d.data.normalisation import Normalisation
from kg4d.data.records import Keypoints, Scene
from kg4d.data.unseen import unseen_motion
from kg4d.errors import InputError
from kg4d.formats.motion_files import Motion, read_motion
from kg4d.formats.settings import MotionConfig
from kg4d.geometry.rotations import matrix_to_quat, quat_conjugate, quat_multiply
from kg4d.keypoints.retargeting import retargeted
from kg4d.metrics.suite import write_metrics_json
from kg4d.representation.base import Representation
from kg4d.runs.costs import Costs
from kg4d.runs.environment import environment, peak_memory_bytes
from kg4d.runs.folder import RunFolder, run_hash, variant_of
from kg4d.runs.measure import measure, run_protocol
from kg4d.runs.read_back import LoadedRun, load_run, save_model
from kg4d.utils.names import slug

_log = logging.getLogger(__name__)


def animate(path: str | Path, motion: MotionConfig, out: str | Path) -> Path:
    """Move the model of a run otherwise, and write the result as a run folder.

    Its `run.json` says which run and which motion it was made from. No image shows that motion, so its `metrics.json`
    has only what can be measured without one.

    Args:
        path: Folder of a run whose motion is skinned.
        motion: `path` may also be the folder of another run.
        out: The folder to write; must not exist, or be empty.

    Returns:
        That folder.

    Raises:
        InputError: The run has no frames, the motion cannot be read or has other joints, or the folder is not empty.
    """
    folder = RunFolder(Path(out))
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise InputError(out, "exists already", "choose another folder or remove it")
    costs, run = Costs(), load_run(path)
    keypoints = _keypoints_of(run)
    found = motion_of(motion).of(keypoints.names, motion.path, motion.names)
    motion = replace(motion, path=str(Path(motion.path).absolute()), frames=len(found.positions))
    scene = unseen_motion(run.scene, len(found.positions))
    parents = torch.tensor(keypoints.parents)
    follow(run.fitted.representation, found, parents, run.fitted.normalisation, scene, motion)
    config = _config_of(run.config, motion, found)  # which nothing but frames can have
    folder.begin(config)
    folder.write_normalisation(run.fitted.normalisation)
    save_model(folder, run.fitted.representation, run_hash(config))
    with costs.part("evaluation"):
        evaluation = measure(config, run.fitted, scene)
    renderer = run.fitted.renderer
    folder.write_record(
        {
            "name": config.name,
            "variant": variant_of(config),
            "seed": config.seed,
            "scene": config.scene,
            "gaussians": len(run.fitted.representation.rest()),
            "animated": {
                "run": str(Path(path).absolute()),
                "motion": motion.path,
                "motion_sha256": _hash_of(Path(motion.path)),
                "frames": motion.frames,
            },
            **environment(renderer),
            "peak_memory_bytes": peak_memory_bytes(renderer),
            "cache_keys": dict(scene.cache_keys),
            "seconds": costs.rounded(),
            "stages": {},
        }
    )
    write_metrics_json(folder.metrics, evaluation, run_protocol(config))
    return folder.path


def follow(
    representation: Representation,
    motion: Motion,
    parents: Int[Tensor, " J"],
    normalisation: Normalisation,
    scene: Scene,
    config: MotionConfig,
) -> None:
    """Let the frames of a representation follow a motion; bones keep their lengths.

    Args:
        representation: With a frame for each joint of the motion.
        motion: Its joints are in the order of the frames.
        parents: Parent of each frame; -1 for roots.
        normalisation: From the world to the axes and units of the representation.
        scene: Its reference video has the times of the motion.
        config: Whether the motion is turned.

    Raises:
        InputError: The representation has no frames.
    """
    times = normalisation.times(scene.reference.times)
    now = representation.frame_motion(times[:1].to(representation.rest().means.device))
    if now is None:
        what = "is not moved by frames at keypoints, so no other motion can move it"
        raise InputError(scene.name, what, "fit it with deformation.kind=skinned, as the preset recommended does")
    quats = motion.quats
    if quats is not None:
        around = matrix_to_quat(normalisation.rotation).to(quats)
        quats = quat_multiply(quat_multiply(around, quats), quat_conjugate(around))
    moved = retargeted(
        now.rest.cpu(),
        parents.cpu(),
        times,
        normalisation.points(motion.positions),
        quats,
        aligned=config.aligned,
    )
    representation.follow(moved)


def motion_of(config: MotionConfig) -> Motion:
    """A motion from a file, or that of a run: of its frames where it has any, else of its keypoints.

    Raises:
        InputError: It cannot be read.
    """
    path = Path(config.path)
    if not path.is_dir():
        return read_motion(config)
    run = load_run(path)
    names, times, inside = _keypoints_of(run).names, run.scene.reference.times, run.fitted.normalisation
    frames = run.fitted.representation.frame_motion(inside.times(times).to(run.fitted.renderer.device))
    if frames is None:
        return Motion(names, float(run.config.export.fps), run.fitted.keypoints(times)).thinned(config.every)
    around = matrix_to_quat(inside.rotation.mT).to(frames.quats)
    since = quat_multiply(frames.quats, quat_conjugate(frames.quats[:1]))
    quats = quat_multiply(quat_multiply(around, since), quat_conjugate(around))
    positions = inside.world_points(frames.positions)
    return Motion(names, float(run.config.export.fps), positions.cpu(), quats.cpu()).thinned(config.every)


def _keypoints_of(run: LoadedRun) -> Keypoints:
    if run.scene.keypoints is None:
        raise InputError(run.folder.path, "is a run of a scene without keypoints", "give a run that has some")
    return run.scene.keypoints


def _config_of(config: ExperimentConfig, motion: MotionConfig, found: Motion) -> ExperimentConfig:
    """The configuration of a run, moved otherwise: nothing of it is fitted."""
    variant = slug(f"{variant_of(config)}-{Path(motion.path).stem}")
    return replace(
        config,
        motion=motion,
        variants={variant: []},
        dynamic=replace(config.dynamic, steps=0),
        refine=replace(config.refine, steps=0),
        deformation=replace(config.deformation, skinned=replace(config.deformation.skinned, residual=False)),
        export=replace(config.export, fps=max(1, round(found.fps))),
    )


def _hash_of(path: Path) -> str | None:
    """Of a file; a run has none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
