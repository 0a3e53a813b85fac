"""Find the experiment file that a person means by a name, or by the clip that is to be fitted."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kg4d.config.check import suggestion
from kg4d.config.load import packaged_configs
from kg4d.errors import InputError
from kg4d.utils.commands import command

_log = logging.getLogger(__name__)

_IMAGES = (".png", ".jpg", ".jpeg", ".webp")
_CLIPS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")


class Found(NamedTuple):
    """An experiment file, and what it is to work on; None where the file says so itself."""

    file: Path
    scene: str | None


def asked_for(file: str | None, words: Sequence[str]) -> tuple[str | Path, list[str]]:
    """The experiment file and the overrides of a command line, where the first word may stand for the file.

    Raises:
        InputError: Nothing says what to fit.
    """
    if file is not None:
        return file, list(words)
    if not words or "=" in words[0]:
        raise InputError("command line", "says not what to fit", "give --config, a name, an image or a video")
    found = find_experiment(words[0])
    words = [*([] if found.scene is None else [f"scene={found.scene}"]), *words[1:]]
    _log.info("fit      %s", command("kg4d.fit", "--config", str(found.file), *words))
    return found.file, words


def find_experiment(word: str) -> Found:
    """The experiment of a word: a file, the name of an experiment or preset, an image, a video, a folder of frames.

    Args:
        word: What a person writes in place of `--config`.

    Raises:
        InputError: It is none of these.
    """
    path = Path(word)
    if path.suffix in (".yaml", ".yml"):
        return Found(path, None)
    if path.is_dir() or path.suffix.lower() in (*_IMAGES, *_CLIPS):
        if not path.exists():
            raise InputError(path, "no such file or directory", "give the path of an image, a video or a folder")
        kind = "image_to_4d" if path.suffix.lower() in _IMAGES else "video_to_4d"
        return Found(_named()[kind], word)
    named = _named()
    if word not in named:
        raise InputError(f"command line: {word}", "no experiment, preset, image or video", suggestion(word, named))
    return Found(named[word], None)


def names() -> list[str]:
    """What `find_experiment` knows by name."""
    return sorted(_named())


def _named() -> dict[str, Path]:
    """The experiments and, where none has that name, the presets, by their names."""
    presets = packaged_configs()
    folders = (presets, presets.with_name("experiments"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
