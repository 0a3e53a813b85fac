"""The batches of training steps. A batch is a pure function of the seed and the step: no sampler has a state."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.cameras import Cameras


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
        has_keypoints: Whether any of the confidences is positive.
    """

    step: int
    cameras: Cameras
    images: Float[Tensor, "V H W 3"]
    alphas: Float[Tensor, "V H W 1"]
    keypoints: Float[Tensor, "V J 2"]
    keypoint_weights: Float[Tensor, "V J"]
    has_keypoints: bool

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

    def to(self, device: torch.device | str) -> "DynamicBatch":
        """The same batch on `device`."""
        return _moved(self, device)


_AnyBatch = TypeVar("_AnyBatch", StaticBatch, DynamicBatch)


def _moved(batch: _AnyBatch, device: torch.device | str) -> _AnyBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | Cameras)}
    return replace(batch, **moved)


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
