"""One-shot keypoint transfer: from one image to other views of the same object, of any category.

The views form a ring that begins and ends at the support image, so `kg4d.priors.keypoints.chain` can follow each
keypoint around it in both directions. Between neighbouring views a point moves little within the object's window, and
looks almost the same.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.priors.base import Identity, KeypointTracks
from kg4d.priors.keypoints.chain import Candidates, Estimates, Move, follow
from kg4d.priors.keypoints.features import FeatureExtractor, FeatureMap, has_foreground, object_grid
from kg4d.priors.keypoints.settings import TransferConfig
from kg4d.priors.progress import counted

FOUND_WEIGHT = 0.1  # weight of a transferred keypoint, relative to a marked one, whose line of sight is exact


@dataclass(frozen=True)
class ChainTransfer:
    """`KeypointTransfer` through neighbouring views, by dense descriptors.

    Attributes:
        features: Computes descriptors of the object.
        config: The parameters of the model.
    """

    features: FeatureExtractor
    config: TransferConfig
    name = "transfer-chain"

    def identity(self) -> Identity:
        """The features and the parameters."""
        chain = {f"chain_{key}": value for key, value in asdict(self.config.chain).items()}
        features = {f"features_{key}": value for key, value in self.features.identity().items()}
        return {"features": self.features.name, **features, "spread": self.config.spread, **chain}

    def __call__(
        self, support: Float[Tensor, "H W 4"], uv: Float[Tensor, "J 2"], views: Float[Tensor, "R H W 4"]
    ) -> KeypointTracks:
        """Find the keypoints of `support` in each of the M = R views; see `KeypointTransfer`."""
        images = [support, *views]
        maps = [self.features(image) for image in counted(images, len(images), "views")]
        count = self.config.chain.places
        pixels = [object_grid(*each, count) for each in zip(images, (found.window for found in maps), strict=True)]
        chain = [Candidates(_in_window(found, grid), found.at(grid)) for found, grid in zip(maps, pixels, strict=True)]
        moves = [Move(points, torch.full((len(points),), self.config.spread)) for points, _ in chain]
        estimates = follow(
            [*chain, chain[0]], moves, _in_window(maps[0], uv), maps[0].at(uv), self.config.chain, closed=True
        )
        tracks = _in_pixels(estimates, maps)
        return KeypointTracks(tracks.uv, tracks.weights * has_foreground(views)[:, None])


def _in_window(found: FeatureMap, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Pixel positions relative to the middle of the window, in units of its longer side."""
    window = found.window
    return (uv - window.origin - torch.tensor([window.width, window.height]) / 2) / window.unit


def _in_pixels(estimates: Estimates, maps: Sequence[FeatureMap]) -> KeypointTracks:
    """The estimates in pixels: the inverse of `_in_window`, without the support image at both ends."""
    points = [
        row * found.window.unit + found.window.origin + torch.tensor([found.window.width, found.window.height]) / 2
        for row, found in zip(estimates.points[1:-1], maps[1:], strict=True)
    ]
    return KeypointTracks(torch.stack(points), estimates.weights[1:-1])
