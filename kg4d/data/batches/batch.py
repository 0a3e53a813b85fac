"""What one training step sees. A batch is a pure function of the seed and the step: no sampler has a state."""

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
        images: Colours composited on the background, in [0, 1].
        alphas: Mattes in [0, 1].
        keypoints: Pixel positions; J may be 0.
        keypoint_weights: Confidences in [0, 1]; 0 means not to be used.
    """

    step: int
    cameras: Cameras
    images: Float[Tensor, "V H W 3"]
    alphas: Float[Tensor, "V H W 1"]
    keypoints: Float[Tensor, "V J 2"]
    keypoint_weights: Float[Tensor, "V J"]

    def to(self, device: torch.device | str) -> "StaticBatch":
        """The same batch on `device`."""
        return _moved(self, device)


@dataclass(frozen=True)
class DynamicBatch:
    """B frames of the reference video and P pairs among them.

    Attributes:
        step: Index of the step, from 0.
        frames: Indices of the frames in the video; a frame may occur twice.
        times: Their times in [0, 1].
        cameras: B cameras.
        images: Colours composited on the background, in [0, 1].
        alphas: Mattes in [0, 1].
        keypoints: Pixel positions; J may be 0.
        keypoint_weights: Confidences in [0, 1]; 0 means not to be used.
        pairs: Positions in the batch, 0 to B - 1, of an earlier and a later frame.
        strides: How many frames lie from the earlier to the later.
        flow: Displacement from the earlier frame to the later, px, chained over strides above 1; None without flow.
        flow_weights: Confidence in [0, 1]; 0 where the flow is not known. None without flow.
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

    def to(self, device: torch.device | str) -> "DynamicBatch":
        """The same batch on `device`."""
        return _moved(self, device)


_AnyBatch = TypeVar("_AnyBatch", StaticBatch, DynamicBatch)


def _moved(batch: _AnyBatch, device: torch.device | str) -> _AnyBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | Cameras)}
    return replace(batch, **moved)


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """Random numbers that depend on these three alone, alike on every machine and in every process.

    >>> step_generator(0, "static", 7).initial_seed() == step_generator(0, "static", 7).initial_seed()
    True
    """
    digest = hashlib.blake2b(f"{seed}/{stage}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
