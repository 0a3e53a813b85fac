"""Optical flow of a video with confidence: OpenCV's DIS, which needs no weights, or RAFT.

Confidence is forward-backward consistency: a pixel followed forward and back again should return to where it started.
It is 0 off the object.
Source: Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search".
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.data.images import on_white
from kg4d.data.records import Flow
from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.priors.base import Identity
from kg4d.priors.progress import counted
from kg4d.priors.raft import load_raft, raft_identity, raft_pairs, require_torchvision
from kg4d.priors.settings import FlowConfig


@dataclass(frozen=True)
class DisFlow:
    """`FlowEstimator` by OpenCV's DIS at full resolution, on a white background.

    Attributes:
        config: Tolerances of the confidence.
    """

    config: FlowConfig
    name = "flow-dis"

    def identity(self) -> Identity:
        """The version of OpenCV, and the tolerances."""
        return {"opencv": cv2.__version__, "preset": "medium", "finest_scale": 0, **_tolerances(self.config)}

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Flow:
        """Flow from each frame to the next, with confidence."""
        return confident(*dis_both_ways(video), video[..., 3], self.config)


@dataclass(frozen=True)
class RaftFlow:
    """`FlowEstimator` by torchvision's RAFT: the large one as published, or that of a file of weights.

    Attributes:
        config: The weights' file, where there is one, and tolerances of the confidence.

    Raises:
        InputError: torchvision is not installed.
    """

    config: FlowConfig
    name = "flow-raft"

    def __post_init__(self) -> None:
        """Check that the library is installed, so that a fit does not fail here after hours."""
        require_torchvision("flow")

    def identity(self) -> Identity:
        """The weights, and the tolerances."""
        return {**raft_identity(self.config.path), **_tolerances(self.config)}

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Flow:
        """Flow from each frame to the next, with confidence.

        Raises:
            InputError: torchvision does not load, or the weights are not available or not RAFT's.
        """
        forward, backward = zip(*raft_pairs(load_raft("flow", self.config.path), video), strict=True)
        return confident(torch.stack(forward), torch.stack(backward), video[..., 3], self.config)


def confident(
    forward: Float[Tensor, "pairs H W 2"],
    backward: Float[Tensor, "pairs H W 2"],
    alphas: Float[Tensor, "T H W"],
    config: FlowConfig,
) -> Flow:
    """Flow with its confidence: forward-backward consistency, times the mattes where the flow starts and ends.

    The consistency is 1 - (error / tolerance)^2, at least 0, where the error is the distance between a pixel and the
    point that it returns to.

    Args:
        forward: Flow from frame t to t + 1, px.
        backward: Flow from frame t + 1 to t, px.
        alphas: Mattes of the T = pairs + 1 frames, in [0, 1].
        config: The tolerances.
    """
    height, width = forward.shape[1:3]
    weights = []
    for pair, (flow, back) in enumerate(zip(forward, backward, strict=True)):
        target = pixel_centers(height, width) + flow
        inside = ((target >= 0) & (target <= torch.tensor([width, height]))).all(-1)
        at_target = sample_image(torch.cat([back, alphas[pair + 1][..., None]], dim=-1), target)
        error = (flow + at_target[..., :2]).norm(dim=-1)
        tolerance = (config.tolerance_share * flow.norm(dim=-1)).clamp_min(config.tolerance_px)
        consistency = (1 - (error / tolerance) ** 2).clamp_min(0)
        weights.append(consistency * inside * alphas[pair] * at_target[..., 2])
    return Flow(forward, torch.stack(weights).clamp(0, 1))


def dis_both_ways(
    video: Float[Tensor, "T H W 4"],
) -> tuple[Float[Tensor, "pairs H W 2"], Float[Tensor, "pairs H W 2"]]:
    """Flow by DIS from each frame to the next, and from each next one back, px."""
    grey = [cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2GRAY) for frame in on_white(video)]
    forward, backward = [], []
    for pair in counted(range(len(grey) - 1), len(grey) - 1, "pairs"):
        earlier, later = np.ascontiguousarray(grey[pair]), np.ascontiguousarray(grey[pair + 1])
        forward.append(_dis(earlier, later))
        backward.append(_dis(later, earlier))
    return torch.stack(forward), torch.stack(backward)


def _dis(source: UInt8[np.ndarray, "H W"], target: UInt8[np.ndarray, "H W"]) -> Float[Tensor, "H W 2"]:
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # it keeps state: a new one for each pair
    estimator.setFinestScale(0)
    return torch.from_numpy(estimator.calc(source, target, np.zeros((*source.shape, 2), np.float32)))


def _tolerances(config: FlowConfig) -> dict[str, str | int | float | bool]:
    return {"tolerance_px": config.tolerance_px, "tolerance_share": config.tolerance_share}
