"""From one image or one video to a scene folder: decide, make through the cache, write with a record of all of it."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kg4d import __version__
from kg4d.data.readers.scene_folder import PREVIEW
from kg4d.data.scene_writer import check_writable, write_scene
from kg4d.data.spans import Span
from kg4d.data.videos import Clip, read_clip
from kg4d.errors import InputError
from kg4d.priors.assemble import MattedInput, assemble, begin
from kg4d.priors.build import check_files, decide, decide_video
from kg4d.priors.cache.entries import BrokenEntryError, read_scene_record
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import networks_device
from kg4d.priors.files import SuppliedFiles, hash_of
from kg4d.priors.framing import Crop
from kg4d.priors.keypoints.clicked import click_object
from kg4d.priors.keypoints.settings import KeypointsKind
from kg4d.priors.plan import Plan
from kg4d.priors.preview import preview
from kg4d.priors.settings import PriorsConfig
from kg4d.priors.workbench import Workbench
from kg4d.utils.locks import held_alone

_log = logging.getLogger(__name__)


def prepare(config: PriorsConfig, source: str | Path, out: str | Path) -> None:
    """Make a scene folder of one image or one video; the folder appears complete or not at all.

    Args:
        config: The settings.
        source: What `kg4d.data.videos.read_clip` reads.
        out: The folder to write; must not exist or be empty.

    Raises:
        InputError: The input or a setting is wrong, a prior that is needed cannot be made here, or another process
            makes that folder.
    """
    check_writable(Path(out))
    cache = PriorCache(config.cache)
    name = hashlib.sha256(str(Path(out).resolve()).encode()).hexdigest()[:16]
    with held_alone(cache.root / ".locks" / f"out-{name}.lock", Path(out), "wait for it, or give another --out"):
        check_writable(Path(out))  # another process may have been faster
        job = _plan_job(config, Path(source))
        bench = Workbench(cache, config.progress_bar)
        matted = begin(bench, job.config, job.plan, job.clip)
        _write(job, bench, matted, Path(out))


def prepared_scene(config: PriorsConfig, source: str | Path) -> Path:
    """The folder of the scene in the cache; it is made if it is not there yet, or is damaged.

    It is identified by the content of the input, the settings, the identities of all providers and what was clicked.

    Args:
        config: The settings.
        source: What `kg4d.data.videos.read_clip` reads.

    Raises:
        InputError: As `prepare`.
    """
    job = _plan_job(config, Path(source))
    bench = Workbench(PriorCache(config.cache), config.progress_bar)
    folder, matted = _scene_folder(job, bench.cache), None
    if job.plan.keypoints.kind == KeypointsKind.CLICK.value and not folder.is_dir():
        matted = begin(bench, job.config, job.plan, job.clip)
        folder = _scene_folder(job, bench.cache)  # what was clicked decides it
    with bench.cache.locked(folder):
        notes = _notes_of_intact(folder)
        if notes is None and bench.cache.fetch(folder):
            notes = _notes_of_intact(folder)
        if notes is None:
            _write(job, bench, matted or begin(bench, job.config, job.plan, job.clip), folder)
            bench.cache.share(folder)
        else:
            _log.info("%s: prepared before, in %s", source, folder)
            for note in notes:
                _log.warning(note)
    return folder


@dataclass(frozen=True)
class _Job:
    """What is to be made from what.

    Attributes:
        config: The settings, as asked for.
        source: Path of the input.
        clip: The input; where it is an image and a video was supplied with it, that video.
        plan: Which provider makes what, as decided.
    """

    config: PriorsConfig
    source: Path
    clip: Clip
    plan: Plan


def _plan_job(config: PriorsConfig, source: Path) -> _Job:
    """Read the input, decide which provider makes what, and write the decisions to the log."""
    check_files(config)
    clip = read_clip(source, config.span)
    device = networks_device()
    video = decide_video(config.video, clip, device)
    if isinstance(video.provider, SuppliedFiles):
        clip = _read_supplied_video(clip, video.provider.path, config.span)
    if config.matting.click:
        config = _with_clicked_object(config, clip)
    plan = decide(config, clip, video, device)
    for name, choice in plan.record().items():
        _log.info("%s: %s (%s)", name, choice["kind"], choice["why"])
    return _Job(config, source, clip, plan)


def _with_clicked_object(config: PriorsConfig, clip: Clip) -> PriorsConfig:
    """The settings with the point of the object that a person clicks in the first frame."""
    x, y = click_object(clip.frames[0], config.keypoints.port)
    _log.info("the object was clicked: matting.point=[%.1f,%.1f] repeats it", x, y)
    return replace(config, matting=replace(config.matting, point=[x, y], click=False))


def _read_supplied_video(picture: Clip, path: Path, span: Span) -> Clip:
    """Read the video that a person supplied with an image; it takes the place of the image.

    Raises:
        InputError: It is no video, or its size differs from the image's: which size keypoints and masks refer to would
            be unclear.
    """
    clip = read_clip(path, span)
    if len(clip.frames) < 2:
        raise InputError("video.path", f"{path} is a single image", "give a video of at least two frames")
    (height, width), (picture_height, picture_width) = clip.frames.shape[1:3], picture.frames.shape[1:3]
    if (height, width) != (picture_height, picture_width):
        what = f"{path} is {width} x {height}, the picture is {picture_width} x {picture_height}"
        raise InputError("video.path", what, "make both one size, or give the video alone as the input")
    rgb, alpha = picture.frames[0, ..., :3], picture.frames[0, ..., 3:]
    difference = float(((clip.frames[0, ..., :3] - rgb).abs() * alpha).mean() / alpha.mean())
    if difference > 0.1:
        _log.warning("%s: its first frame is %.2f off the picture (mean absolute difference)", path, difference)
    if picture.has_alpha and not clip.has_alpha:
        _log.warning("%s takes the place of the picture, whose alpha channel is not used", path)
    return clip


def _scene_folder(job: _Job, cache: PriorCache) -> Path:
    """The folder of the scene in the cache, named by a hash of everything that decides the scene.

    A file of clicked keypoints is part of it, so the name changes when the person clicks.
    """
    settings = {**asdict(job.config), "cache": None, "progress_bar": None}
    path = job.config.keypoints.path
    marked = None if path is None or not Path(path).is_file() else hash_of(Path(path))
    text = json.dumps([__version__, hash_of(job.source), settings, job.plan.record(), marked], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return cache.scenes / f"{job.source.resolve().stem.lstrip('.')}-{key[:16]}"


def _notes_of_intact(folder: Path) -> list[str] | None:
    """The notes of a prepared scene; None if there is no scene, or it was damaged and has been removed."""
    if not folder.is_dir():
        return None
    try:
        notes: list[str] = read_scene_record(folder)["notes"]
    except BrokenEntryError as error:
        _log.warning("%s: %s: made again", folder, error)
        shutil.rmtree(folder)
        return None
    return notes


def _write(job: _Job, bench: Workbench, matted: MattedInput, out: Path) -> None:
    """Make the scene from the matted input and write it."""
    scene, crop = assemble(bench, job.config, job.plan, matted, job.source.resolve().stem)
    write_scene(scene, out, _record(job, bench, crop), preview(scene))
    _log.info("%s: %d frames; have a look at %s", out, len(scene.reference), out / PREVIEW)


def _record(job: _Job, bench: Workbench, crop: Crop) -> dict[str, Any]:
    """The content of `scene.json`: how the scene came about."""
    return {
        "format": 1,
        "package": __version__,
        "source": {
            "path": str(job.source),
            "sha256": hash_of(job.source),
            "frames": job.clip.source_frames,
            "fps": job.clip.fps,
        },
        "frame": asdict(crop),
        "priors": job.plan.record(),
        "notes": bench.notes,
        "cache_keys": bench.cache.used,
        "settings": asdict(job.config),
    }
