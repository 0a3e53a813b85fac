"""Gaussians in space and time as other programs can draw them: each at its own time, with a velocity and a duration."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.state import GaussianState


@dataclass(frozen=True)
class Pieces:
    """N Gaussians, each of which moves on a straight line and fades before and after its own time.

    Attributes:
        state: Each at its own time.
        times: The times, in clips.
        durations: Standard deviations of the weights along time, clips.
        velocities: World units a clip.
        least_weight: A Gaussian whose weight is below this is not there.
    """

    state: GaussianState
    times: Float[Tensor, " N"]
    durations: Float[Tensor, " N"]
    velocities: Float[Tensor, "N 3"]
    least_weight: float

    def at(self, time: float) -> GaussianState:
        """What is there at a time, whole Gaussians that are not there left out."""
        since = time - self.times
        weights = torch.exp(-since.square() / (2 * self.durations.square()))
        weights = torch.where(weights >= self.least_weight, weights, 0.0)
        means = self.state.means + since[:, None] * self.velocities
        return replace(self.state, means=means, opacities=self.state.opacities * weights).present()
