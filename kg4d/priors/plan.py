"""The choice of a provider for each prior of one input, with its reason."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kg4d.priors.base import (
    FlowEstimator,
    KeypointDetector,
    KeypointTracker,
    KeypointTransfer,
    Matting,
    Provider,
    VideoSynthesizer,
    ViewSynthesizer,
)
from kg4d.priors.files import SuppliedFiles

P = TypeVar("P", bound=Provider | None)


@dataclass(frozen=True)
class Choice(Generic[P]):
    """The provider chosen for one prior.

    Attributes:
        kind: As in the settings, but never `auto`.
        why: The reason, in words.
        provider: Makes the prior; None where nothing has to be made.
    """

    kind: str
    why: str
    provider: P

    def record(self) -> dict[str, Any]:
        """The choice as plain values, for `scene.json`."""
        choice = {"kind": self.kind, "why": self.why}
        if self.provider is None:
            return choice
        return {**choice, "provider": self.provider.name, "identity": dict(self.provider.identity())}


@dataclass(frozen=True)
class Plan:
    """The choices for all priors of one input."""

    matting: Choice[Matting | SuppliedFiles | None]
    video: Choice[VideoSynthesizer | SuppliedFiles | None]
    views: Choice[ViewSynthesizer | SuppliedFiles | None]
    keypoints: Choice[KeypointDetector | SuppliedFiles | None]
    tracking: Choice[KeypointTracker | None]
    transfer: Choice[KeypointTransfer | None]
    flow: Choice[FlowEstimator | SuppliedFiles | None]

    def record(self) -> dict[str, dict[str, Any]]:
        """All choices as plain values, for `scene.json` and for the hash that identifies a prepared scene."""
        return {name: getattr(self, name).record() for name in self.__dataclass_fields__}
