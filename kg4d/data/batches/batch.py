"""The batches of training steps. A batch is a pure function of the seed and the step: no sampler has a state."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.records import Depth
from kg4d.geometry.cameras import Cameras
from kg4d.utils.ranks import Ranks


@dataclass(frozen=True)
class Part:
    """Which part of a step's images a batch holds; by default all of them.

    Where several processes share a step out, one that gets nothing holds an image that does not count.

    Attributes:
        share: What a mean over the images that count weighs in the mean over the processes: their number by how many
            a process has on average. 0 where none counts.
        own: How many images count, the first ones; the others are there for the pairs alone. None where all do.
        step_images: How many images the step has, in all processes.
        pairs: Which of the step's pairs these are, where not all.
        step_pairs: How many pairs the step has, where this is not all of them.
        pairs_count: Whether the pairs count.
    """

    share: float = 1.0
    own: int | None = None
    step_images: int = 0
    pairs: tuple[int, ...] | None = None
    step_pairs: int = 0
    pairs_count: bool = True


WHOLE = Part()


@dataclass(frozen=True)
class StaticBatch:
    """V views of the first frame.

    Attributes:
        step: Index of the step, from 0.
        cameras: V cameras.
        images: Colours composited on the background, RGB in [0, 1].
        alphas: Mattes in [0, 1].
        keypoints: Pixel positions; J may be 0.
        keypoint_weights: Confidences in [0, 1]; 0 marks positions that must not be used.
        has_keypoints: Whether any of the confidences of the step is positive.
        depth: Of the views, from a prior; None without.
        part: Which part of the step's views these are.
    """

    step: int
    cameras: Cameras
    images: Float[Tensor, "V H W 3"]
    alphas: Float[Tensor, "V H W 1"]
    keypoints: Float[Tensor, "V J 2"]
    keypoint_weights: Float[Tensor, "V J"]
    has_keypoints: bool
    depth: Depth | None = None
    part: Part = WHOLE

    @property
    def share(self) -> float:
        """What a mean over the views weighs in the mean over the processes."""
        return self.part.share

    def to(self, device: torch.device | str) -> "StaticBatch":
        """The same batch on `device`."""
        return _moved(self, device)


@dataclass(frozen=True)
class DynamicBatch:
    """B frames of the reference video and P pairs among them.

    Attributes:
        step: Index of the step, from 0.
        frames: Indices of the frames in the video; a frame may occur twice.
        times: Times of the frames, in [0, 1].
        cameras: B cameras.
        images: Colours composited on the background, RGB in [0, 1].
        alphas: Mattes in [0, 1].
        keypoints: Pixel positions; J may be 0.
        keypoint_weights: Confidences in [0, 1]; 0 marks positions that must not be used.
        pairs: Indices into the batch, 0 to B - 1, of the earlier and the later frame of each pair.
        strides: Distance from the earlier to the later frame, in frames.
        flow: Displacement from the earlier to the later frame, px; chained if the stride is above 1. None without flow.
        flow_weights: Confidence in [0, 1]; 0 where the flow is unknown. None without flow.
        pair_names: The earlier frame of each pair and its stride, as numbers that nobody has to read from a GPU.
        depth: Of the frames, from a prior; None without.
        step_alphas: Mattes of all S frames of the step, whichever process they are shown to; None where those are all.
        place: Where this batch's frames that count begin among them.
        part: Which part of the step's frames and pairs these are.
    """

    step: int
    frames: Int[Tensor, " B"]
    times: Float[Tensor, " B"]
    cameras: Cameras
    images: Float[Tensor, "B H W 3"]
    alphas: Float[Tensor, "B H W 1"]
    keypoints: Float[Tensor, "B J 2"]
    keypoint_weights: Float[Tensor, "B J"]
    pairs: Int[Tensor, "P 2"]
    strides: Int[Tensor, " P"]
    flow: Float[Tensor, "P H W 2"] | None
    flow_weights: Float[Tensor, "P H W"] | None
    pair_names: tuple[tuple[int, int], ...]
    depth: Depth | None = None
    step_alphas: Float[Tensor, "S H W 1"] | None = None
    place: int = 0
    part: Part = WHOLE

    @property
    def share(self) -> float:
        """What a mean over the frames weighs in the mean over the processes."""
        return self.part.share

    def counted(self) -> "DynamicBatch":
        """Without the frames that are there for the pairs alone, and without pairs."""
        own = self.part.own
        if own is None:
            return self
        images = {name: getattr(self, name)[:own] for name in _PER_FRAME}
        images["depth"] = None if self.depth is None else self.depth[:own]
        return replace(self, **images, pairs=self.pairs[:0], strides=self.strides[:0], flow=None, flow_weights=None)

    def to(self, device: torch.device | str) -> "DynamicBatch":
        """The same batch on `device`."""
        return _moved(self, device)


_PER_FRAME = ("frames", "times", "cameras", "images", "alphas", "keypoints", "keypoint_weights")

_AnyBatch = TypeVar("_AnyBatch", StaticBatch, DynamicBatch)


def _moved(batch: _AnyBatch, device: torch.device | str) -> _AnyBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | Cameras | Depth)}
    return replace(batch, **moved)


def own_places(count: int, ranks: Ranks) -> tuple[range, float]:
    """The places among `count` that one of several processes takes, all in turn, and their share (`Part.share`)."""
    first, last = (count * rank // ranks.count for rank in (ranks.rank, ranks.rank + 1))
    if first == last:
        return range(ranks.rank % count, ranks.rank % count + 1), 0.0
    return range(first, last), (last - first) * ranks.count / count


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """A random generator that depends on these three arguments alone, and is the same on every machine.

    Args:
        seed: Seed of the run.
        stage: Name of what the numbers are for.
        step: Index of the step, from 0.

    >>> step_generator(0, "static", 7).initial_seed() == step_generator(0, "static", 7).initial_seed()
    True
    """
    digest = hashlib.blake2b(f"{seed}/{stage}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
