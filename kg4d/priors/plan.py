"""What was decided about the priors of one input, and why."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kg4d.priors.base import (
    FlowEstimator,
    KeypointTracker,
    KeypointTransfer,
    Matting,
    Provider,
    VideoSynthesizer,
    ViewSynthesizer,
)
from kg4d.priors.files import SuppliedFiles
from kg4d.priors.keypoints.people import PersonKeypoints

P = TypeVar("P", bound=Provider | None)


@dataclass(frozen=True)
class Choice(Generic[P]):
    """What was decided for one prior.

    Attributes:
        kind: As in the config, never `auto`.
        why: In words.
        provider: Makes it; None where nothing has to be made.
    """

    kind: str
    why: str
    provider: P

    def record(self) -> dict[str, Any]:
        """For `scene.json`."""
        about = {"kind": self.kind, "why": self.why}
        if self.provider is None:
            return about
        return {**about, "provider": self.provider.name, "identity": dict(self.provider.identity())}


@dataclass(frozen=True)
class Plan:
    """Who makes what of one input."""

    matting: Choice[Matting | SuppliedFiles | None]
    video: Choice[VideoSynthesizer | SuppliedFiles | None]
    views: Choice[ViewSynthesizer | SuppliedFiles | None]
    keypoints: Choice[PersonKeypoints | SuppliedFiles | None]
    tracking: Choice[KeypointTracker | None]
    transfer: Choice[KeypointTransfer | None]
    flow: Choice[FlowEstimator | SuppliedFiles | None]

    def record(self) -> dict[str, dict[str, Any]]:
        """For `scene.json`, and what a prepared scene is known by."""
        return {name: getattr(self, name).record() for name in self.__dataclass_fields__}
