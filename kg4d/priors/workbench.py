"""What every step that makes priors works with: the cache, a progress bar, and the notes for the person."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Depth, Flow
from kg4d.priors.base import DepthEstimator, FlowEstimator, KeypointTracks, Provider
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.progress import listening
from kg4d.utils.logs import progress_bar

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workbench:
    """Runs providers through the cache, and collects what a person should look at.

    Attributes:
        cache: Keeps the results of providers.
        progress_bar: Show a bar on the terminal while a provider works.
        notes: What a person should look at, in the order in which it was found.
    """

    cache: PriorCache
    progress_bar: bool = True
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a note, and write it to the log as a warning."""
        _log.warning(text)
        self.notes.append(text)

    def run(
        self, provider: Provider, inputs: Mapping[str, Tensor], compute: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The cached result of a provider, computed under a progress bar if there is none.

        Args:
            provider: Whose result it is.
            inputs: The tensors that the provider is given, by name; with its identity they are the cache key.
            compute: Calls the provider and returns its result by name.

        Returns:
            The result, as CPU tensors.
        """
        with progress_bar(provider.name, self.progress_bar) as report, listening(report):
            return self.cache.get_or_make(provider, inputs, compute)

    def tracks(
        self, provider: Provider, inputs: Mapping[str, Tensor], compute: Callable[[], KeypointTracks]
    ) -> KeypointTracks:
        """`run` for a provider that finds keypoints."""

        def known() -> dict[str, Tensor]:
            return {name: value for name, value in vars(compute()).items() if value is not None}

        return KeypointTracks(**self.run(provider, inputs, known))

    def flow(self, estimator: FlowEstimator, video: Float[Tensor, "T H W 4"]) -> Flow:
        """`run` for a provider that estimates the optical flow of a video."""
        return Flow(**self.run(estimator, {"video": video}, lambda: vars(estimator(video))))

    def depth(self, estimator: DepthEstimator, video: Float[Tensor, "T H W 4"]) -> Depth:
        """`run` for a provider that estimates the depth of a video."""

        def found() -> dict[str, Tensor]:
            depth = estimator(video)
            return {"depth": depth.depth, "weights": depth.weights, "inverse": torch.tensor(depth.inverse)}

        kept = self.run(estimator, {"video": video}, found)
        return Depth(kept["depth"], kept["weights"], bool(kept["inverse"]))
