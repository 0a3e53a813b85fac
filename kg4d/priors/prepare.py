"""From one image or one video to a scene folder: decided, made through the cache, written with a record of it all."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from kg4d import __version__
from kg4d.data.readers.scene_folder import PREVIEW
from kg4d.data.scene_writer import refuse_taken, write_scene
from kg4d.data.videos import Clip, read_clip
from kg4d.errors import InputError
from kg4d.priors.assemble import Assembly
from kg4d.priors.build import PriorsConfig, check_files, decide, decide_video
from kg4d.priors.cache.entries import BrokenEntryError, read_scene_record
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import networks_device
from kg4d.priors.files import GivenFiles, hash_of
from kg4d.priors.keypoints.marked import KeypointsKind
from kg4d.priors.plan import Plan
from kg4d.priors.preview import preview

_log = logging.getLogger(__name__)


def prepare(config: PriorsConfig, source: str | Path, out: str | Path) -> None:
    """Make a scene folder of one image or one video; the folder appears complete or not at all.

    Args:
        config: Who makes what.
        source: What `kg4d.data.videos.read_clip` reads.
        out: The folder to write; must not exist or be empty.

    Raises:
        InputError: The input or a setting is wrong, or a prior that is needed cannot be made here.
    """
    refuse_taken(Path(out))
    _Order.of(config, Path(source)).fill(Path(out))


def prepared(config: PriorsConfig, source: str | Path) -> Path:
    """The scene folder of one image or one video in the cache; made where it is not there yet, or not intact.

    It is known by the content of the input, the settings, the identities of all providers and what was clicked.

    Raises:
        InputError: As `prepare`.
    """
    order = _Order.of(config, Path(source))
    if order.plan.keypoints.kind == KeypointsKind.CLICK.value and not order.folder.is_dir():
        _ = order.assembly.given  # what is clicked now decides the folder
    folder = order.folder
    with order.assembly.cache.locked(folder):
        try:
            notes = read_scene_record(folder)["notes"] if folder.is_dir() else None
        except BrokenEntryError as error:
            _log.warning("%s: %s: made again", folder, error)
            shutil.rmtree(folder)
            notes = None
        if notes is None:
            order.fill(folder)
        else:
            _log.info("%s: prepared before, in %s", source, folder)
            for note in notes:
                _log.warning(note)
    return folder


def _begun_with(picture: Clip, path: Path, most: int) -> Clip:
    """The video that a person gave with a picture, in whose place it is used.

    Raises:
        InputError: It is none, or of another size, so that keypoints and masks would be in doubt.
    """
    clip = read_clip(path, most)
    if len(clip.frames) < 2:
        raise InputError("video.path", f"{path} is a single image", "give a video of at least two frames")
    (height, width), (picture_height, picture_width) = clip.frames.shape[1:3], picture.frames.shape[1:3]
    if (height, width) != (picture_height, picture_width):
        what = f"{path} is {width} x {height}, the picture is {picture_width} x {picture_height}"
        raise InputError("video.path", what, "make both one size, or give the video alone as the input")
    rgb, alpha = picture.frames[0, ..., :3], picture.frames[0, ..., 3:]
    off = float(((clip.frames[0, ..., :3] - rgb).abs() * alpha).mean() / alpha.mean())
    if off > 0.1:
        _log.warning("%s: its first frame is %.2f off the picture (mean absolute difference)", path, off)
    if picture.has_alpha and not clip.has_alpha:
        _log.warning("%s takes the place of the picture, whose alpha channel is not used", path)
    return clip


@dataclass(frozen=True)
class _Order:
    """What is to be made of what.

    Attributes:
        config: As asked for.
        source: Where the input lies.
        clip: The input; the given video where the input is an image with one.
        plan: As decided.
    """

    config: PriorsConfig
    source: Path
    clip: Clip
    plan: Plan

    @classmethod
    def of(cls, config: PriorsConfig, source: Path) -> "_Order":
        """Read the input and decide, and say so in the log."""
        check_files(config)
        clip = read_clip(source, config.frames)
        device = networks_device()
        video = decide_video(config.video, clip, device)
        if isinstance(video.provider, GivenFiles):
            clip = _begun_with(clip, video.provider.path, config.frames)
        plan = decide(config, clip, video, device)
        for name, choice in plan.record().items():
            _log.info("%s: %s (%s)", name, choice["kind"], choice["why"])
        return cls(config, source, clip, plan)

    @cached_property
    def assembly(self) -> Assembly:
        """The making of it."""
        return Assembly(self.config, self.clip, self.plan, PriorCache(self.config.cache))

    @property
    def folder(self) -> Path:
        """In the cache, named by everything that decides the scene; keypoints may be clicked meanwhile."""
        settings = {**asdict(self.config), "cache": None, "progress_bar": None}
        path = self.config.keypoints.path
        marked = None if path is None or not Path(path).is_file() else hash_of(Path(path))
        text = json.dumps([__version__, hash_of(self.source), settings, self.plan.record(), marked], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.assembly.cache.scenes / f"{self.source.resolve().stem.lstrip('.')}-{key[:16]}"

    def fill(self, out: Path) -> None:
        """Make the scene and write it."""
        assembly = self.assembly
        scene = assembly.scene(self.source.resolve().stem)
        record = {
            "format": 1,
            "package": __version__,
            "source": {
                "path": str(self.source),
                "sha256": hash_of(self.source),
                "frames": self.clip.source_frames,
                "fps": self.clip.fps,
            },
            "frame": asdict(assembly.frame),
            "priors": self.plan.record(),
            "notes": assembly.notes,
            "cache_keys": assembly.cache.used,
            "settings": asdict(self.config),
        }
        write_scene(scene, out, record, preview(scene))
        _log.info("%s: %d frames; have a look at %s", out, len(scene.reference), out / PREVIEW)
