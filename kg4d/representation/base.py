"""What every representation of a moving scene can be asked."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from kg4d.data.records import Scene, VideoFeatures
from kg4d.deform.base import Draft
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.rows import GaussianRows
from kg4d.gaussians.settings import GaussiansConfig, LearningRates
from kg4d.gaussians.state import GaussianState
from kg4d.keypoints.motion import FrameMotion, KeypointMotion
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective


class Representation(nn.Module, ABC):
    """Gaussians as a function of time."""

    @abstractmethod
    def states(self, times: Float[Tensor, " B"], only: Int[Tensor, " n"] | None = None) -> MovingGaussians:
        """The Gaussians at `times`, differentiable in what a stage has made trainable.

        Args:
            times: Each in [0, 1].
            only: Indices of the Gaussians that are asked for; all when None.
        """

    @abstractmethod
    def rest(self) -> GaussianState:
        """The Gaussians as the static stage has left them, before any motion."""

    @abstractmethod
    def keypoints(self, times: Float[Tensor, " B"], moving: MovingGaussians | None = None) -> Float[Tensor, "B J 3"]:
        """World positions of the keypoints at `times`.

        Args:
            times: In [0, 1].
            moving: The Gaussians at these times, where they are known already.
        """

    def drawn_keypoints(
        self, times: Float[Tensor, " B"], moving: MovingGaussians | None = None
    ) -> Float[Tensor, "B J 3"]:
        """World positions of the keypoints of the Gaussians as they are drawn; `keypoints` by default.

        A motion may know its keypoints better than it draws them. Arguments are those of `keypoints`.
        """
        return self.keypoints(times, moving)

    @abstractmethod
    def motion_groups(self) -> list[ParameterGroup]:
        """What the dynamic stage fits."""

    def shared_motion(self) -> list[nn.Parameter]:
        """What of `motion_groups` belongs to no single Gaussian; nothing by default."""
        return []

    @abstractmethod
    def colour_groups(self, rate: float) -> list[ParameterGroup]:
        """What the refine stage fits.

        Args:
            rate: Learning rate of the colours.
        """

    def rest_groups(self, rates: LearningRates) -> list[ParameterGroup]:
        """What the dynamic stage fits too where it trains Gaussians with their motion; none by default.

        Args:
            rates: Of the Gaussians.
        """
        return []

    def editable(self) -> GaussianRows | None:
        """The Gaussians of `rest_groups`, whose number density control may change; None where there are none."""
        return None

    def pieces(self) -> Pieces | None:
        """The Gaussians in space and time, where they are such; None by default."""
        return None

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Add the priors that only this representation has; none by default.

        Args:
            objective: Of this step.
            times: Those of the step's batch.
        """

    @property
    def pointwise(self) -> bool:
        """Whether a Gaussian moves alike with and without the others."""
        return True

    @property
    def wants_video(self) -> bool:
        """Whether `watch` must be called before the dynamic stage."""
        return False

    def watch(self, features: VideoFeatures) -> None:
        """Take in what the reference video shows of its motion; nothing by default."""

    def draft(self) -> Draft | None:
        """The other branch's view of the last batch, where a motion has two branches; None by default."""
        return None

    def place(self, scene: Scene, config: GaussiansConfig, generator: torch.Generator) -> None:
        """Start where the scene shows something at each time, where that is asked for; nothing by default.

        Args:
            scene: At the resolution of the fit, normalised.
            config: How many Gaussians, and the grid of a hull.
            generator: Source of randomness (CPU).
        """

    def focus(self, window: tuple[float, float] | None, optimizer: Optimizer) -> None:
        """Fit from now on only what is there in a part of the clip; at all times when None.

        Args:
            window: Its first and last time.
            optimizer: Of the stage, kept in step.

        Raises:
            NotImplementedError: All times hang together here.
        """
        raise NotImplementedError("only Gaussians in space and time are fitted window by window")

    def hold_before(self, time: float) -> None:
        """Take away the gradients of what is there at or before a time.

        Raises:
            NotImplementedError: As for `focus`.
        """
        raise NotImplementedError("only Gaussians in space and time are fitted window by window")

    def start(self, tracks: KeypointMotion) -> None:
        """Start at a motion that is known of the keypoints; nothing by default."""

    def correct_keypoints(self, correct: Callable[[Float[Tensor, "T J 3"]], Float[Tensor, "T J 3"]]) -> None:
        """Let `correct` say where the keypoints of the fitted motion are at its key times; nothing by default."""

    def frame_motion(self, times: Float[Tensor, " B"]) -> FrameMotion | None:
        """The frames that carry the Gaussians, at ascending times in [0, 1]; None where there are none, the default."""
        return None

    def follow(self, motion: FrameMotion) -> None:
        """Move the frames otherwise: from now on the Gaussians go where these carry them.

        Args:
            motion: Of the frames of this representation, two times or more, beginning at 0.

        Raises:
            ValueError: It has no frames, as by default.
        """
        raise ValueError("this representation has no frames that could follow another motion")
