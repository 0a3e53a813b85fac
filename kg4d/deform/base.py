"""What every deformation is: canonical Gaussians and times in, moved Gaussians out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from kg4d.data.records import VideoFeatures
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.keypoints.motion import FrameMotion, KeypointMotion
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective


@dataclass(frozen=True)
class RestGaussians:
    """What a deformation may know of the Gaussians when it is built.

    Attributes:
        means: Their centres at rest, world units.
        radius: Half extent of the scene, world units, > 0; positions are divided by it.
        keypoints: How many keypoints they carry.
        isotropic: They are spheres: one scaling serves all three axes.
    """

    means: Float[Tensor, "N 3"]
    radius: float
    keypoints: int = 0
    isotropic: bool = False


class Draft(NamedTuple):
    """The other branch of a motion that has two, at the B times of a batch."""

    moving: MovingGaussians  # as this branch has it
    apart: Float[Tensor, "B N"]  # how far the branches are apart, >= 0
    photometric_weight: float  # of the image loss of `moving`, relative to that of what is drawn
    mutual_weight: float  # of the mean of `apart` over what is seen


class Deformation(nn.Module, ABC):
    """Moves canonical Gaussians. At birth it is the identity at every time; the contract test holds every kind to that.

    Its weights never depend on the number of Gaussians, so that density control need not touch them. What it asks of
    each Gaussian (skinning weights) the Gaussians carry.

    Attributes:
        learning_rate: Of its parameters, unless `parameter_groups` says otherwise.
        skinning_learning_rate: Of the skinning logits, where the Gaussians carry any.
        wants_video: Whether `watch` must be called before it is trained.
        pointwise: Whether a Gaussian moves alike with and without the others.
    """

    learning_rate: float = 0.0
    skinning_learning_rate: float = 0.0
    wants_video: bool = False
    pointwise: bool = True

    @abstractmethod
    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`, each in [0, 1]."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters, each with the learning rate that suits it; one group named `network` by default."""
        return [ParameterGroup("network", list(self.parameters()), self.learning_rate)]

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Add the priors that only this kind of motion has; none by default.

        Args:
            objective: Of this step.
            times: Those of the step's batch.
        """

    def watch(self, features: VideoFeatures) -> None:
        """Take in what the reference video shows of its motion; nothing by default."""

    def draft(self) -> Draft | None:
        """The other branch's view of the last batch, where gradients are kept; None by default."""
        return None

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"] | None:
        """World positions of the keypoints, where the motion knows them itself; None by default."""
        return None

    def start(self, tracks: KeypointMotion) -> None:
        """Start at a motion that is known of the keypoints; nothing by default."""

    def skinning_logits(self, means: Float[Tensor, "N 3"]) -> Float[Tensor, "N K"] | None:
        """How Gaussians at rest follow the frames of the motion, once it has started; None where it has no frames."""
        return None

    def correct_keypoints(self, correct: Callable[[Float[Tensor, "T J 3"]], Float[Tensor, "T J 3"]]) -> None:
        """Let `correct` say where the keypoints of the fitted motion are at its key times; nothing by default."""

    def frame_motion(self, times: Float[Tensor, " B"]) -> FrameMotion | None:
        """The frames that carry the Gaussians, at ascending times in [0, 1]; None where the motion has none."""
        return None

    def follow(self, motion: FrameMotion) -> None:
        """Move the frames otherwise: from now on the Gaussians go where these carry them.

        Args:
            motion: Of the frames of this motion, two times or more, beginning at 0.

        Raises:
            ValueError: This motion has no frames.
        """
        raise ValueError("this motion has no frames that could follow another one")
