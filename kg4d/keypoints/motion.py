"""Keypoints that move in 3D: where a motion that is carried by keypoints starts, and what it is once it is known."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class KeypointMotion:
    """J keypoints in 3D at T times, the first of which is rest.

    Attributes:
        times: Ascending, in [0, 1].
        rest: World positions at rest.
        positions: World positions at each time.
        parents: Parent of each keypoint; -1 for roots, and where the bone is cut.
        known: Whether the keypoint has a place on the model; the others carry nothing.
    """

    times: Float[Tensor, " T"]
    rest: Float[Tensor, "J 3"]
    positions: Float[Tensor, "T J 3"]
    parents: Int[Tensor, " J"]
    known: Bool[Tensor, " J"]


@dataclass(frozen=True)
class FrameMotion:
    """J frames at T times: what a skinned motion consists of.

    Attributes:
        times: Ascending, in [0, 1].
        rest: World positions of the frames at rest, which need not be at any of the times.
        positions: World positions at each time.
        quats: Rotations since rest (wxyz).
    """

    times: Float[Tensor, " T"]
    rest: Float[Tensor, "J 3"]
    positions: Float[Tensor, "T J 3"]
    quats: Float[Tensor, "T J 4"]
