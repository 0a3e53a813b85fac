"""From one image or one video to a scene folder: decided, made through the cache, written with a record of it all."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock

from kg4d import __version__
from kg4d.data.scene_folder import PREVIEW, RECORD
from kg4d.data.scene_writer import refuse_taken, write_scene
from kg4d.data.videos import Clip, read_clip
from kg4d.files import cache_folder
from kg4d.priors.assemble import Assembly
from kg4d.priors.build import PriorsConfig, decide, decide_video
from kg4d.priors.cache import PriorCache
from kg4d.priors.files import GivenFiles, hash_of
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
    """The scene folder of one image or one video below the cache folder; made where it is not there yet.

    It is known by the content of the input, the settings and the identities of all providers.

    Raises:
        InputError: As `prepare`.
    """
    order = _Order.of(config, Path(source))
    folder = cache_folder() / "scenes" / f"{Path(source).stem}-{order.key[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / RECORD).is_file():
            _log.info("%s: prepared before, in %s", source, folder)
        else:
            order.fill(folder)
    return folder


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
        clip = read_clip(source, config.frames)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        video = decide_video(config.video, clip, device)
        if isinstance(video.provider, GivenFiles):
            clip = read_clip(video.provider.path, config.frames)
        plan = decide(config, clip, video, device)
        for name, choice in plan.record().items():
            _log.info("%s: %s (%s)", name, choice["kind"], choice["why"])
        return cls(config, source, clip, plan)

    @property
    def key(self) -> str:
        """Of everything that decides the scene."""
        settings = {**asdict(self.config), "cache": None, "progress_bar": None}
        text = json.dumps([__version__, hash_of(self.source), settings, self.plan.record()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def fill(self, out: Path) -> None:
        """Make the scene and write it."""
        assembly = Assembly(self.config, self.clip, self.plan, PriorCache(self.config.cache))
        scene = assembly.scene(self.source.stem)
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
            "cache_keys": assembly.cache.used,
            "settings": asdict(self.config),
        }
        write_scene(scene, out, record, preview(scene))
        _log.info("%s: %d frames; have a look at %s", out, len(scene.reference), out / PREVIEW)
