"""Times for images whose `transforms_*.json` gives none."""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kg4d.errors import InputError

_log = logging.getLogger(__name__)

_NUMBER = re.compile(r"\d+")


def has_times(path: Path, entries: Sequence[Any]) -> bool:
    """Whether entries have the key `time`.

    Raises:
        InputError: Some have it, others do not.
    """
    lacking = [index for index, entry in enumerate(entries) if not (isinstance(entry, dict) and "time" in entry)]
    if lacking and len(lacking) < len(entries):
        what = f"is missing, as in {len(lacking)} of {len(entries)} frames"
        raise InputError(f"{path}: frames[{lacking[0]}].time", what, "give it to all, in [0, 1], or to none")
    return not lacking


def times_of_video(path: Path, entries: Sequence[dict[str, Any]]) -> list[float]:
    """Evenly spaced times of a video without any: i / (N - 1) for the i-th of N frames.

    The order is that of `frame_index` where all have one, else that of the numbers in the names of the images where
    these differ in nothing else, else that of the file.
    """
    keys = _order(entries)
    ranks = {index: rank for rank, index in enumerate(sorted(range(len(entries)), key=lambda index: keys[1][index]))}
    _log.warning("%s: no frame has a time: i / (N - 1) for the i-th of %d, %s", path, len(entries), keys[0])
    return [ranks[index] / max(len(entries) - 1, 1) for index in range(len(entries))]


def times_by_name(names: Sequence[str]) -> list[float]:
    """Times of a video's images that have nothing but names, in [0, 1].

    Where the names differ in one number alone, times are as far apart as these numbers, so that a frame that is left
    out leaves a gap; else they are evenly spaced in the order of the names.

    >>> times_by_name(["f_8.png", "f_9.png", "f_12.png"])
    [0.0, 0.25, 1.0]
    """
    columns = list(zip(*([int(part) for part in _NUMBER.findall(name)] for name in names), strict=False))
    moving = [column for column in columns if len(set(column)) > 1]
    if len({_NUMBER.sub("#", name) for name in names}) == 1 and len(moving) == 1 and len(set(moving[0])) == len(names):
        places: Sequence[int] = moving[0]
    else:
        places = [sorted(names).index(name) for name in names]
    first, last = min(places), max(places)
    return [(place - first) / max(last - first, 1) for place in places]


def times_in_video(path: Path, entries: Sequence[dict[str, Any]], video: Sequence[float]) -> list[float]:
    """Times of other videos without any: those of the frames of the reference video that they show.

    Frames are told by `frame_index`; without it, each view has to show the whole video.

    Args:
        path: The file.
        entries: Of `frames`.
        video: Times of the frames of the reference video.

    Raises:
        InputError: It is not told which frames they show.
    """
    shown = _frames(path, entries, len(video))
    _log.warning("%s: no frame has a time: they are those of the frames of the reference video", path)
    return [float(video[frame]) for frame in shown]


def _frames(path: Path, entries: Sequence[dict[str, Any]], count: int) -> list[int]:
    frames = [entry.get("frame_index") for entry in entries]
    if all(type(frame) is int and 0 <= frame < count for frame in frames):
        return [frame for frame in frames if frame is not None]
    seen: dict[Any, int] = defaultdict(int)
    shown = []
    for entry in entries:
        view = repr(entry.get("view"))
        shown.append(seen[view])
        seen[view] += 1
    if "frame_index" in entries[0] or any(number != count for number in seen.values()):
        what = "is missing, and it is not told which frames of the reference video they show"
        raise InputError(f"{path}: frames[0].time", what, "give time, in [0, 1], or frame_index")
    return shown


def _order(entries: Sequence[dict[str, Any]]) -> tuple[str, Sequence[Any]]:
    """What the order is, in words, and a key of each entry to sort by."""
    indices = [entry.get("frame_index") for entry in entries]
    if all(type(index) is int for index in indices):
        return "in the order of frame_index", indices
    names = [str(entry.get("file_path")) for entry in entries]
    if len({_NUMBER.sub("#", name) for name in names}) == 1:
        return "in the order of the images' numbers", [[int(part) for part in _NUMBER.findall(name)] for name in names]
    return "in the order of the file", range(len(entries))
