"""Videos of the runs beside each other: on the page as they were exported, and as files of their own.

An exported video of a view has three parts: what was made, the truth, and the error. The page shows them through
windows of different width, so nothing is encoded again and the truth is there once.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.comparison.arms import Comparison
from kg4d.comparison.finished import FinishedRun
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.formats.legend import with_legend
from kg4d.formats.mp4 import write_mp4
from kg4d.utils.reading import regular

_ROOM = 24_000_000  # bytes of pictures on one page, which is 32 MB of its text
_MOST_FRAMES = 1000
_ORBIT = "orbit"


@dataclass(frozen=True)
class Picture:
    """A video or a picture of one arm.

    Attributes:
        arm: Name of the arm.
        index: Of the arm.
        source: A `data:` URI.
        parts: How many pictures stand side by side in it.
        shown: How many of them are looked at, from the left.
    """

    arm: str
    index: int
    source: str
    parts: int
    shown: int

    @property
    def is_video(self) -> bool:
        """Whether it moves."""
        return self.source.startswith("data:video")


@dataclass(frozen=True)
class Strip:
    """One view of one scene in all arms.

    Attributes:
        title: Of the scene and the view.
        pictures: One an arm that has it.
    """

    title: str
    pictures: list[Picture]

    @property
    def columns(self) -> int:
        """How many pictures stand side by side where there is room; one that does not move takes four."""
        return sum(picture.shown if picture.is_video else 4 for picture in self.pictures)


@dataclass(frozen=True)
class Films:
    """What the page shows of the runs.

    Attributes:
        strips: Views, scene by scene.
        left_out: How many pictures there was no room for.
    """

    strips: list[Strip]
    left_out: int


def films(comparison: Comparison) -> Films:
    """The videos of the first seed of each arm in each scene; the last preview of a run that exported none."""
    strips, left_out, room = [], 0, _ROOM
    for title, found in _views(comparison):
        shown: list[Picture] = []
        for arm, path in found:
            data = regular(path).read_bytes()
            if len(data) > room:
                left_out += 1
                continue
            room -= len(data)
            shown.append(_picture(list(comparison.arms).index(arm), arm, path, data, wide=not shown))
        if shown:
            strips.append(Strip(title, shown))
    return Films(strips, left_out)


def write_side_by_side(comparison: Comparison, folder: Path) -> list[Path]:
    """Write for each view a video with the truth on the left, and each arm by its name in the order of the arms.

    Arms whose video has another size or length are left out of it; an orbit has no truth.

    Args:
        comparison: The runs.
        folder: Gets `<scene>_<view>.mp4`.
    """
    written = []
    for title, found in _views(comparison):
        shown = [(arm, path) for arm, path in found if path.suffix == ".mp4"]
        if len(shown) < 2:
            continue
        clips = [read_clip(path, Span(_MOST_FRAMES)) for _, path in shown]
        frames = _without_bars([clip.frames[..., :3] for clip in clips])
        alike = [index for index, video in enumerate(frames) if video.shape == frames[0].shape]
        parts = [_parts(frames[index], shown[0][1].stem) for index in alike]
        truth, names = parts[0][1:2], [shown[index][0] for index in alike]
        beside = torch.cat([*truth, *(part[0] for part in parts)], dim=2)
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title.replace(", ", "_"))
        written.append(folder / f"{name}.mp4")
        write_mp4(written[-1], with_legend(beside, [*["truth"] * len(truth), *names]), clips[0].fps)
    return written


def _without_bars(videos: list[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
    """Videos of one width at the least of their heights: earlier versions wrote no bar above the pictures."""
    least = min(video.shape[1] for video in videos if video.shape[2] == videos[0].shape[2])
    return [video[:, -least:] if video.shape[2] == videos[0].shape[2] else video for video in videos]


def _views(comparison: Comparison) -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """For each scene and view its title, and the file of each arm that has one."""
    for scene, short in comparison.scenes.items():
        first: dict[str, FinishedRun] = {}
        for arm, runs in comparison.arms.items():
            here = [run for run in runs if run.scene == scene]
            if here:
                first[arm] = min(here, key=lambda run: run.seed)
        for view in dict.fromkeys(name for run in first.values() for name in run.videos):
            yield f"{short}, {view}", [(arm, run.videos[view]) for arm, run in first.items() if view in run.videos]
        still = [(arm, run.preview) for arm, run in first.items() if not run.videos and run.preview is not None]
        if still:
            yield f"{short}, preview", still


def _picture(index: int, arm: str, path: Path, data: bytes, wide: bool) -> Picture:
    kind = "video/mp4" if path.suffix == ".mp4" else "image/png"
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if path.suffix != ".mp4" or path.stem == _ORBIT:
        return Picture(arm, index, source, 1, 1)
    return Picture(arm, index, source, 3, 2 if wide else 1)


def _parts(frames: Float[Tensor, "T H W 3"], view: str) -> tuple[Float[Tensor, "T H part_W 3"], ...]:
    """What was made, the truth and the error; an orbit is whole."""
    return (frames,) if view == _ORBIT else frames[:, :, : frames.shape[2] // 3 * 3].chunk(3, dim=2)
