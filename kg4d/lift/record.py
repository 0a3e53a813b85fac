"""The record of a lift: keypoints of the reference video in 3D."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Lift:
    """Keypoints of the reference video in 3D.

    Attributes:
        tracks: World positions; those of the first frame are the given ones.
        trust: How far each detection can be believed, in [0, 1]; 0 where there was none and where it was told wrong.
            Of keypoints that were lifted again it is that of the lift before.
        certainty: Weight of the tracks: 1 where the hypotheses agree, up to `LiftConfig.exact` where detections hardly
            jitter too; falls where the hypotheses differ, and with the noise.
        reliability: How far the detections can be believed as a whole, in [0, 1]; falls as they are noisier.
        rivals: Other lifts of the same keypoints, which put some of them elsewhere.
    """

    tracks: Float[Tensor, "T J 3"]
    trust: Float[Tensor, "T J"]
    certainty: Float[Tensor, "T J"]
    reliability: float
    rivals: tuple["Lift", ...] = ()

    def state(self) -> dict[str, Any]:
        """What makes the same lift again, without its rivals: `Lift(**state)`."""
        return {name: getattr(self, name) for name in ("tracks", "trust", "certainty", "reliability")}

    def to(self, device: torch.device) -> "Lift":
        """The same elsewhere."""
        moved = (self.tracks.to(device), self.trust.to(device), self.certainty.to(device))
        return Lift(*moved, self.reliability, tuple(rival.to(device) for rival in self.rivals))
