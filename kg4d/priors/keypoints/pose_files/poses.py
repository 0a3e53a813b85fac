"""What the file of a pose estimator holds, and how it becomes keypoints of a clip."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.videos import Clip, natural_key
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.priors.keypoints.marked import SupportKeypoints

PIXEL_CENTRE = 0.5  # these formats call the centre of the top left pixel (0, 0), we call it (0.5, 0.5)
_LEAST = 1e-3  # a weight below this is none: (nearly) nothing was detected there
_SHAPES_DIFFER = 0.02  # share by which aspect ratios may differ: sizes are rounded to whole pixels


@dataclass(frozen=True)
class Poses:
    """J keypoints of I individuals in F frames, in pixels of the file's own images.

    Attributes:
        format: Name of the format, for people.
        names: J names, all different.
        parents: Index of the parent of each keypoint, -1 for a root; None where the file has no skeleton.
        uv: Pixel positions; 0 where the weight is 0.
        weights: Confidence in [0, 1]; 0 where there is no keypoint.
        labels: File name or number of each frame.
        individuals: Their names; None where individual i of one frame need not be individual i of another.
        sizes: Width and height of each image; None where the file does not have them.
    """

    format: str
    names: tuple[str, ...]
    parents: tuple[int, ...] | None
    uv: Float[Tensor, "F I J 2"]
    weights: Float[Tensor, "F I J"]
    labels: tuple[str, ...]
    individuals: tuple[str, ...] | None = None
    sizes: tuple[tuple[int, int], ...] | None = None

    def __getitem__(self, rows: Sequence[int]) -> "Poses":
        """Some of the frames, in that order."""
        sizes = None if self.sizes is None else tuple(self.sizes[row] for row in rows)
        labels = tuple(self.labels[row] for row in rows)
        return replace(self, uv=self.uv[list(rows)], weights=self.weights[list(rows)], labels=labels, sizes=sizes)


def cleaned(
    uv: Float[Tensor, "*shape 2"], weights: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape 2"], Float[Tensor, "*shape"]]:
    """Positions and weights of the files in our pixels, with weight 0 and position 0 where something is NaN."""
    there = uv.isfinite().all(-1) & weights.isfinite() & (weights > _LEAST)
    weights = torch.where(there, weights, 0.0).clamp(0, 1).float()
    return torch.where(there[..., None], uv + PIXEL_CENTRE, 0.0).float(), weights


def tree_of(edges: Sequence[tuple[int, int]], count: int) -> tuple[int, ...]:
    """Parents of a spanning forest of a skeleton, which may have cycles; each tree is rooted at its first keypoint.

    >>> tree_of([(0, 1), (1, 2), (2, 0), (3, 4)], 6)
    (-1, 0, 0, -1, 3, -1)
    """
    parents: list[int | None] = [None] * count
    for root in range(count):
        if parents[root] is not None:
            continue
        parents[root], queue = -1, deque([root])
        while queue:
            joint = queue.popleft()
            for ends in edges:
                other = sum(ends) - joint if joint in ends else joint
                if parents[other] is None:
                    parents[other] = joint
                    queue.append(other)
    return tuple(-1 if parent is None else parent for parent in parents)


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names, with the numbers in them compared by value."""
    return sorted(range(len(names)), key=lambda index: natural_key(names[index]))


def of_clip(poses: Poses, clip: Clip, path: Path) -> Poses:
    """The poses in the T frames of a clip, in its pixels; frames that the file lacks have weight 0.

    Frames are found by the names of their files, else by their order where the counts are equal, else by the numbers
    in the file. A file with one frame shows the first one, and stays one frame.

    Args:
        poses: What the file holds.
        clip: The input, which may have been thinned.
        path: The file, for errors.

    Raises:
        InputError: The frames are not those of the clip, its images have another shape, or no keypoint is inside the
            first frame.
    """
    height, width = clip.frames.shape[1:3]
    scaled = _scaled(poses, width, height, path)
    inside = ((scaled.uv >= 0) & (scaled.uv <= torch.tensor([width, height]))).all(-1)
    scaled = replace(scaled, weights=scaled.weights * inside)
    if len(poses.labels) > 1:
        rows = _rows(scaled, clip, path)
        missing = torch.tensor([row is None for row in rows])
        scaled = scaled[[row or 0 for row in rows]]
        scaled = replace(scaled, weights=scaled.weights.masked_fill(missing[:, None, None], 0.0))
    if not (scaled.weights[0] > 0).any():
        what = f"({poses.format}) shows no keypoint inside the first frame of {width} x {height} px"
        raise InputError(path, what, "give pixels of the input, its first frame included")
    return scaled


def one_individual(poses: Poses, mattes: Float[Tensor, "T H W 1"]) -> tuple[Poses, str]:
    """The individual whose keypoints lie on the object with the highest confidence, and a line that says so.

    Args:
        poses: In pixels of the mattes, for as many frames or for the first alone.
        mattes: The object, in [0, 1].

    Returns:
        Poses of one individual, and the line; it is empty where there was no choice.
    """
    count = poses.weights.shape[1]
    if count == 1:
        return poses, ""
    on_object = torch.stack([sample_image(mattes[t], uv)[..., 0] for t, uv in enumerate(poses.uv)])
    scores = (poses.weights * on_object).sum(-1)
    by = "whose keypoints lie on the object"
    if not bool((scores > 0).any()):
        scores, by = poses.weights.sum(-1), "with the most confident keypoints, as none lie on the object"
    if poses.individuals is None:
        chosen, who = scores.argmax(1), "in each frame"
    else:
        best = int(scores.sum(0).argmax())
        chosen, who = torch.full((len(scores),), best), repr(poses.individuals[best])
    what = f"the file of keypoints has {count} individuals: taken is {who} the one {by}"
    frames = torch.arange(len(chosen))
    uv, weights = poses.uv[frames, chosen][:, None], poses.weights[frames, chosen][:, None]
    return replace(poses, uv=uv, weights=weights, individuals=None), what


def seen_support(poses: Poses) -> SupportKeypoints:
    """The keypoints of one individual that the first frame shows; bones to the others end at the next one above."""
    seen = [index for index, weight in enumerate(poses.weights[0, 0].tolist()) if weight > 0]
    given = poses.parents or (-1,) * len(poses.names)

    def above(joint: int) -> int:
        parent = given[joint]
        while parent >= 0 and parent not in seen:
            parent = given[parent]
        return -1 if parent < 0 else seen.index(parent)

    names = tuple(poses.names[joint] for joint in seen)
    return SupportKeypoints(names, tuple(map(above, seen)), poses.uv[0, 0, seen])


def _scaled(poses: Poses, width: int, height: int, path: Path) -> Poses:
    """The poses in pixels of images of another size but the same shape."""
    if poses.sizes is None:
        return poses
    for label, (own_width, own_height) in zip(poses.labels, poses.sizes, strict=True):
        if abs(own_width * height / (own_height * width) - 1) > _SHAPES_DIFFER:
            what = f"({poses.format}) has {label} of {own_width} x {own_height} px, the input is {width} x {height}"
            raise InputError(path, what, "give keypoints of the input's own images")
    factors = torch.tensor([[width / own_width, height / own_height] for own_width, own_height in poses.sizes])
    return replace(poses, uv=poses.uv * factors[:, None, None])


def _rows(poses: Poses, clip: Clip, path: Path) -> list[int | None]:
    """For each frame of the clip its row of the file, or None."""
    count, source = len(poses.labels), clip.source_frames
    wanted = list(clip.picked)
    by_name = {PurePosixPath(label).stem: row for row, label in enumerate(poses.labels)}
    found = [by_name.get(file.stem) for file in clip.files]
    if any(row is not None for row in found):
        return found
    if count == source:
        return list(wanted)
    if count == len(clip.frames):
        return list(range(count))
    numbers = [_number(label) for label in poses.labels]
    by_number = {number: row for row, number in enumerate(numbers) if number is not None}
    if by_number and len(by_number) == count:
        first = 1 if min(by_number) == 1 and max(by_number) == source else 0
        if max(by_number) < source + first:
            return [by_number.get(index + first) for index in wanted]
    what = f"({poses.format}) has {count} frames, {poses.labels[0]} to {poses.labels[-1]}; the input has {source}"
    raise InputError(path, what, "give keypoints of the input's frames, or of its first alone")


def _number(label: str) -> int | None:
    """The last number in the name of a frame."""
    digits = re.findall(r"[0-9]+", PurePosixPath(label).stem)
    return int(digits[-1]) if digits else None
