"""Tracking keypoints through a video: by descriptors and flow, by Lucas-Kanade, or by CoTracker.

Sources: those of `kg4d.priors.keypoints.chain`; Bouguet 2001, "Pyramidal implementation of the Lucas Kanade feature
tracker"; Karaev et al. 2024, "CoTracker3".
"""

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, assert_never

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.data.records import Flow
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.priors.base import FlowEstimator, Identity, KeypointTracker, KeypointTracks
from kg4d.priors.keypoints.chain import Candidates, Move, follow
from kg4d.priors.keypoints.features import (
    VGG_TRACKING_SIDE,
    FeatureExtractor,
    build_features,
    has_foreground,
    object_grid,
)
from kg4d.priors.keypoints.settings import FeaturesConfig, PointTrackingConfig, TrackerKind
from kg4d.priors.progress import counted
from kg4d.utils.files import content_hash

KLT_WINDOW, KLT_LEVELS = 31, 5


@dataclass(frozen=True)
class ChainTracker:
    """`KeypointTracker` by dense descriptors, with optical flow as the motion prior.

    A keypoint is always compared with its appearance in frame 0, so that it does not drift.

    Attributes:
        features: Computes descriptors of the object.
        flow: Estimates the motion between frames.
        config: The parameters of the model.
    """

    features: FeatureExtractor
    flow: FlowEstimator
    config: PointTrackingConfig
    name = "tracks-chain"

    def identity(self) -> Identity:
        """The features, the flow estimator and the parameters."""
        parts = {"features": self.features, "flow": self.flow}
        inner = {f"{part}_{key}": value for part, by in parts.items() for key, value in by.identity().items()}
        chain = {f"chain_{key}": value for key, value in asdict(self.config.chain).items()}
        names = {part: by.name for part, by in parts.items()}
        return {**names, **inner, "spread": self.config.spread, "lost": self.config.lost, **chain}

    def __call__(self, video: Float[Tensor, "T H W 4"], start: Float[Tensor, "J 2"]) -> KeypointTracks:
        """Track the keypoints that are at the pixels `start` in frame 0 through all M = T frames."""
        maps = [self.features(frame) for frame in counted(video, len(video), "frames")]
        unit, count = maps[0].window.unit, self.config.chain.places
        pixels = [object_grid(frame, found.window, count) for frame, found in zip(video, maps, strict=True)]
        chain = [Candidates(grid / unit, found.at(grid)) for grid, found in zip(pixels, maps, strict=True)]
        moves = self._moves(self.flow(video), pixels, unit) if len(video) > 1 else []
        points, weights = follow(chain, moves, start / unit, maps[0].at(start), self.config.chain)
        return _from_start(points * unit, weights * has_foreground(video)[:, None], start)

    def _moves(self, flow: Flow, pixels: Sequence[Float[Tensor, "_ 2"]], unit: float) -> list[Move]:
        moves = []
        for grid, vectors, weights in zip(pixels, flow.flow, flow.weights, strict=False):
            doubt = 1 - sample_image(weights[..., None], grid)[:, 0]
            spread = (self.config.spread**2 + doubt * self.config.lost**2).sqrt()
            moves.append(Move((grid + sample_image(vectors, grid)) / unit, spread))
        return moves


@dataclass(frozen=True)
class KltTracker:
    """`KeypointTracker` by pyramidal Lucas-Kanade from frame to frame, with a forward-backward check.

    A keypoint that is lost keeps weight 0 from then on, and drift is not noticed.

    Attributes:
        config: The tolerance.
    """

    config: PointTrackingConfig
    name = "tracks-klt"

    def identity(self) -> Identity:
        """The version of OpenCV, the window and the tolerance."""
        settings = {"window": KLT_WINDOW, "levels": KLT_LEVELS, "tolerance_px": self.config.tolerance_px}
        return {"opencv": cv2.__version__, **settings}

    def __call__(self, video: Float[Tensor, "T H W 4"], start: Float[Tensor, "J 2"]) -> KeypointTracks:
        """Track the keypoints that are at the pixels `start` in frame 0 through all M = T frames."""
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in on_white(video)]
        points, weights = [start.float()], [_inside(start, video)]
        for pair in counted(range(len(grey) - 1), len(grey) - 1, "pairs"):
            ahead, found = lucas_kanade(grey[pair], grey[pair + 1], points[-1])
            returned, found_back = lucas_kanade(grey[pair + 1], grey[pair], ahead)
            error = (returned - points[-1]).norm(dim=-1) / self.config.tolerance_px
            covered = sample_image(video[pair + 1][..., 3:], ahead)[:, 0]
            consistency = (1 - error.square()).clamp_min(0) * found * found_back * covered * _inside(ahead, video)
            points.append(ahead)
            weights.append(weights[-1] * consistency)
        return KeypointTracks(torch.stack(points), torch.stack(weights))


@dataclass(frozen=True)
class CoTracker:
    """`KeypointTracker` by CoTracker. You have to get its package and weights yourself: both are CC BY-NC 4.0.

    Attributes:
        predictor: A loaded `CoTrackerPredictor`.
    """

    predictor: Any
    name = "tracks-cotracker"

    def identity(self) -> Identity:
        """The hash of the weights."""
        return {"weights": content_hash(self.predictor.state_dict())}

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "T H W 4"], start: Float[Tensor, "J 2"]) -> KeypointTracks:
        """Track the keypoints that are at the pixels `start` in frame 0 through all M = T frames."""
        frames = torch.from_numpy(np.stack(on_white(video))).float().permute(0, 3, 1, 2)[None]
        # in CoTracker pixel centres are whole numbers
        queries = torch.cat([torch.zeros(len(start), 1), start - 0.5], dim=-1)[None]
        tracks, visible = self.predictor(frames, queries=queries)
        uv = tracks[0].float() + 0.5
        return _from_start(uv, visible[0].float() * _inside(uv, video) * _inside(start, video), start)


def build_tracker(config: PointTrackingConfig, features: FeaturesConfig, flow: FlowEstimator) -> KeypointTracker:
    """The tracker that the settings name.

    Args:
        config: The settings of tracking.
        features: The settings of the descriptors of `chain`.
        flow: The motion prior of `chain`.

    Raises:
        InputError: The package or the weights of the tracker are not available.
    """
    match config.kind:
        case TrackerKind.CHAIN:
            return ChainTracker(build_features(features, VGG_TRACKING_SIDE), flow, config)
        case TrackerKind.KLT:
            return KltTracker(config)
        case TrackerKind.COTRACKER:
            return CoTracker(_load_cotracker(config.checkpoint))
        case TrackerKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(config.kind)


def _load_cotracker(checkpoint: str | None) -> Any:
    if checkpoint is None or not Path(checkpoint).is_file():
        what = "CoTracker's weights are not given" if checkpoint is None else f"there is no file {checkpoint}"
        remedy = "download scaled_offline.pth of facebook/cotracker3 and name it, or set tracking.kind=chain"
        raise InputError("tracking.checkpoint", what, remedy)
    try:
        module = importlib.import_module("cotracker.predictor")  # not on PyPI, so it cannot be an extra
    except ImportError as error:
        remedy = "pip install git+https://github.com/facebookresearch/co-tracker, or set tracking.kind=chain"
        raise InputError("tracking.kind", "CoTracker is not installed", remedy) from error
    try:
        return module.CoTrackerPredictor(checkpoint=checkpoint).eval()
    except Exception as error:  # the library raises many kinds for files of another version
        what = f"{checkpoint} does not fit CoTracker"
        raise InputError("tracking.checkpoint", what, "give the weights of the installed version") from error


def _from_start(
    points: Float[Tensor, "T J 2"], weights: Float[Tensor, "T J"], start: Float[Tensor, "J 2"]
) -> KeypointTracks:
    """The tracks, with the start positions themselves in frame 0."""
    return KeypointTracks(torch.cat([start[None].float(), points[1:]]), weights)


def lucas_kanade(
    source: UInt8[np.ndarray, "H W"], target: UInt8[np.ndarray, "H W"], uv: Float[Tensor, "J 2"]
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """Positions in the target frame, and 1 where they were found. In OpenCV pixel centres are whole numbers."""
    if len(uv) == 0:
        return uv, uv[:, 0]
    points = (uv - 0.5).numpy()[:, None]
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        source, target, points, np.zeros_like(points), winSize=(KLT_WINDOW, KLT_WINDOW), maxLevel=KLT_LEVELS
    )
    return torch.from_numpy(found[:, 0]) + 0.5, torch.from_numpy(status[:, 0]).float()


def _inside(uv: Float[Tensor, "*points 2"], video: Float[Tensor, "T H W 4"]) -> Float[Tensor, "*points"]:
    size = torch.tensor([video.shape[2], video.shape[1]])
    return ((uv >= 0) & (uv <= size)).all(-1).float()


def on_white(video: Float[Tensor, "T H W 4"]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The frames on white, as OpenCV takes them."""
    alpha = video[..., 3:]
    return list(quantize(video[..., :3] * alpha + 1 - alpha).numpy())
