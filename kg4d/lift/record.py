"""The record of a lift: keypoints of the reference video in 3D, and the confidence in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# keys of `Lift.state` in older checkpoints
_FORMER_KEYS = {
    "trust": "detection_confidence",
    "certainty": "track_confidence",
    "reliability": "overall_confidence",
}


@dataclass(frozen=True)
class Lift:
    """Keypoints of the reference video in 3D, and how much losses should rely on them.

    Confidence is a factor on the weight of a loss. `kg4d.lift.solve` computes it from

    - n, the noise of the detections: the robust standard deviation of a coordinate of their distance from the first
      fit or, where a last fit follows exact detections more closely, of their jitter; longer image sides,
    - e, the distance of a detection from the projection of its track, longer image sides,
    - d, the distance of a hypothesis from the median of all, the median over hypotheses, world units; where a gait
      shows a hidden bone, at most a quarter of the distance between the two sides of the body,
    - f, the factor by which exact detections counted more in that last fit, up to `LiftConfig.exact`; 1 without it.

    When the tracks are replaced by those of a short fit (`kg4d.stages.dynamic_start`), the confidences stay.

    Attributes:
        tracks: World positions; those of the first frame are the given ones.
        detection_confidence: Of each detection, in [0, 1]: 1 / (1 + (e / `LiftConfig.last_scale`)²)², which is its
            weight in the gradient of the Geman-McClure loss. 0 where nothing was detected, and where the second fit
            left the detection out as an outlier.
        track_confidence: Of each position of the tracks, in [0, f]:
            overall_confidence / (1 / f + (d / `LiftConfig.doubt`)²).
        overall_confidence: Of the detections as a whole, in [0, 1]: 1 / (1 + (n / 0.003)²).
        rivals: Other lifts of the same detections that put some keypoint elsewhere.
    """

    tracks: Float[Tensor, "T J 3"]
    detection_confidence: Float[Tensor, "T J"]
    track_confidence: Float[Tensor, "T J"]
    overall_confidence: float
    rivals: tuple["Lift", ...] = ()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Lift":
        """The lift that `state` was taken from, without its rivals; reads the keys of older checkpoints too."""
        return cls(**{_FORMER_KEYS.get(key, key): value for key, value in state.items()})

    def state(self) -> dict[str, Any]:
        """Everything but the rivals, as a checkpoint stores it; `from_state` reads it."""
        return {
            "tracks": self.tracks,
            "detection_confidence": self.detection_confidence,
            "track_confidence": self.track_confidence,
            "overall_confidence": self.overall_confidence,
        }

    def to(self, device: torch.device) -> "Lift":
        """The same lift and rivals on another device."""
        return Lift(
            self.tracks.to(device),
            self.detection_confidence.to(device),
            self.track_confidence.to(device),
            self.overall_confidence,
            tuple(rival.to(device) for rival in self.rivals),
        )
