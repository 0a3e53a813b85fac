"""Canonical Gaussians, those of frame 0, and a deformation that carries them through time."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.data.records import VideoFeatures
from kg4d.deform.base import Deformation, Draft
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.settings import LearningRates
from kg4d.gaussians.state import GaussianState
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.keypoints.motion import FrameMotion, KeypointMotion
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.representation.base import Representation


class CanonicalGaussians(Representation):
    """The Gaussians of frame 0, moved by a deformation.

    Attributes:
        gaussians: Those of frame 0.
        deformation: Moves them.
    """

    def __init__(self, gaussians: GaussianModel, deformation: Deformation, keypoint_temperature: float) -> None:
        """Share the modules; nothing is copied.

        Args:
            gaussians: Those of frame 0.
            deformation: Moves them.
            keypoint_temperature: Of the softmax over the Gaussians that makes a keypoint of their logits.
        """
        super().__init__()
        self.gaussians = gaussians
        self.deformation = deformation
        self.keypoint_temperature = keypoint_temperature

    def states(self, times: Float[Tensor, " B"], only: Int[Tensor, " n"] | None = None) -> MovingGaussians:
        """The Gaussians at `times`, each in [0, 1]; `only` some of them, or all."""
        canonical = self.gaussians.state()
        if only is not None:
            canonical = canonical.map(lambda rows: rows[only])
        moving: MovingGaussians = self.deformation(canonical, times)
        return moving

    def rest(self) -> GaussianState:
        """The canonical Gaussians."""
        return self.gaussians.state()

    def keypoints(self, times: Float[Tensor, " B"], moving: MovingGaussians | None = None) -> Float[Tensor, "B J 3"]:
        """The motion's own keypoints, or barycentres of the Gaussians at `times`."""
        own = self.deformation.keypoints(times)
        return self.drawn_keypoints(times, moving) if own is None else own

    def drawn_keypoints(
        self, times: Float[Tensor, " B"], moving: MovingGaussians | None = None
    ) -> Float[Tensor, "B J 3"]:
        """Barycentres of the Gaussians at `times`, by the keypoint logits that the static stage has left (eq. 7)."""
        weights = assignment(self.gaussians.keypoint_logits, self.keypoint_temperature)
        return barycentre(weights, (moving or self.states(times)).means)

    def motion_groups(self) -> list[ParameterGroup]:
        """The deformation, and the skinning logits where it has frames to follow."""
        logits = self.gaussians.skinning_logits
        skinned = [logits] if logits.shape[1] else []
        return [
            *self.deformation.parameter_groups(),
            ParameterGroup("skinning_logits", skinned, self.deformation.skinning_learning_rate),
        ]

    def shared_motion(self) -> list[nn.Parameter]:
        """Those of the deformation."""
        return [parameter for group in self.deformation.parameter_groups() for parameter in group.parameters]

    def colour_groups(self, rate: float) -> list[ParameterGroup]:
        """The colours of frame 0, and their harmonics."""
        return self.gaussians.color_groups(rate)

    def rest_groups(self, rates: LearningRates) -> list[ParameterGroup]:
        """The Gaussians of frame 0, but for their keypoint logits."""
        return self.gaussians.parameter_groups(rates)

    def editable(self) -> GaussianModel:
        """Those of frame 0."""
        return self.gaussians

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Those of the deformation."""
        self.deformation.regularisers(objective, times)

    @property
    def pointwise(self) -> bool:
        """Whether the deformation is."""
        return self.deformation.pointwise

    @property
    def wants_video(self) -> bool:
        """Whether the deformation does."""
        return self.deformation.wants_video

    def watch(self, features: VideoFeatures) -> None:
        """Show it to the deformation."""
        self.deformation.watch(features)

    def draft(self) -> Draft | None:
        """That of the deformation."""
        draft: Draft | None = self.deformation.draft()
        return draft

    def start(self, tracks: KeypointMotion) -> None:
        """Start the deformation, and let the Gaussians follow its frames, where it has any."""
        self.deformation.start(tracks)
        logits = self.deformation.skinning_logits(self.gaussians.means.detach())
        if logits is not None:
            self.gaussians.replace_parameters({"skinning_logits": logits.detach()})

    def correct_keypoints(self, correct: Callable[[Float[Tensor, "T J 3"]], Float[Tensor, "T J 3"]]) -> None:
        """Those of the deformation."""
        self.deformation.correct_keypoints(correct)

    def frame_motion(self, times: Float[Tensor, " B"]) -> FrameMotion | None:
        """That of the deformation."""
        motion: FrameMotion | None = self.deformation.frame_motion(times)
        return motion

    def follow(self, motion: FrameMotion) -> None:
        """Let the deformation follow it; the weights by which Gaussians follow the frames stay."""
        self.deformation.follow(motion)
