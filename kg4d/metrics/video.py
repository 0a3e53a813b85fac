"""Distances between two views x frames grids in the features of a video network."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.metrics.clips import diagonal_clips, frame_clips, repeated, serpentine_clips, view_clips
from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.perceptual import i3d_features, i3d_frames
from kg4d.metrics.protocols import VideoInput
from kg4d.metrics.side_by_side import side_by_side
from kg4d.metrics.state import SampleMean
from kg4d.networks.i3d import MIN_FRAMES

CLIPS: dict[str, Callable[[int, int], Int[Tensor, "N L"]]] = {
    "test/fvd_f": frame_clips,
    "test/fvd_v": view_clips,
    "test/fvd_diag": diagonal_clips,
    "test/fv4d": serpentine_clips,
    "test/fvd_c4d": frame_clips,
    "test/video_distance": frame_clips,
}


def c4d_distance(features_a: Float[Tensor, "V D"], features_b: Float[Tensor, "V D"]) -> Float[Tensor, " V"]:
    r"""The number that Consistent4D's script prints as FVD, for each view: :math:`|a - b|^2 + (\sigma_a - \sigma_b)^2`.

    The script takes the covariance of one video at a time. With numpy before 2.2 that is the scalar variance of its
    logits over the 400 classes (unbiased); later versions give NaN. It is not a distance between distributions, and is
    here so that published numbers can be compared for what they are.
    """
    a, b = features_a.double(), features_b.double()
    return (a - b).square().sum(1) + (a.std(1) - b.std(1)).square()


def paired_distance(features_a: Float[Tensor, "N D"], features_b: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Squared distance of each clip from its true counterpart; needs no covariance, so a few clips are enough."""
    return (features_a.double() - features_b.double()).square().sum(1)


class C4DDistance(SampleMean):
    """Mean of `c4d_distance` over views."""

    higher_is_better = False

    def update(self, features_a: Float[Tensor, "V D"], features_b: Float[Tensor, "V D"]) -> None:
        """Add views."""
        self.add(c4d_distance(features_a, features_b))


class PairedDistance(SampleMean):
    """Mean of `paired_distance` over clips."""

    higher_is_better = False

    def update(self, features_a: Float[Tensor, "N D"], features_b: Float[Tensor, "N D"]) -> None:
        """Add clips and their counterparts."""
        self.add(paired_distance(features_a, features_b))


@dataclass
class ClipFeatures:
    """Features of the clips of both grids; no clip goes through the network twice.

    Attributes:
        network: Prepared clips (B, 3, T, 224, 224) to features.
        network_hash: Content of its weights, for the cache.
        predicted: Images in [0, 1].
        target: Images in [0, 1].
        views: Number V of views.
        cache: Keeps the features of `target`, or None.
        progress: Called with the key, the number of clips done, and their number in all.
    """

    network: nn.Module
    network_hash: str
    predicted: Float[Tensor, "VT 3 H W"]
    target: Float[Tensor, "VT 3 H W"]
    views: int
    cache: FeatureCache | None = None
    progress: Callable[[str, int, int], None] | None = None
    _known: dict[tuple[bool, VideoInput, tuple[int, ...]], Tensor] = field(default_factory=dict)
    _frames: dict[tuple[bool, VideoInput], Tensor] = field(default_factory=dict)

    def clips(self, key: str) -> Int[Tensor, "N L"]:
        """The clips of a metric, images repeated where the network needs more frames."""
        return repeated(self.plain_clips(key), MIN_FRAMES)

    def plain_clips(self, key: str) -> Int[Tensor, "N L"]:
        """The clips of a metric."""
        return CLIPS[key](self.views, len(self.target) // self.views)

    def pair(self, key: str, video_input: VideoInput) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """Features of the predicted and of the true clips."""
        clips = self.clips(key)
        return self._compute(key, clips, False, video_input), self._true_features(key, clips, video_input)

    def _true_features(self, key: str, clips: Tensor, video_input: VideoInput) -> Tensor:
        if self.cache is None:
            return self._compute(key, clips, True, video_input)
        content = self._content(clips, video_input)
        features = self.cache.read(content, len(clips))
        if features is None:
            features = self._compute(key, clips, True, video_input)
            self.cache.write(content, features)
        return features.to(self.target.device)

    def _content(self, clips: Tensor, video_input: VideoInput) -> str:
        """Equal for equal images, clips, input and network, and for nothing else."""
        digest = hashlib.sha256(f"{self.network_hash} {video_input} {tuple(self.target.shape)}".encode())
        digest.update(clips.numpy().tobytes())
        digest.update((self.target * 255).round().byte().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _compute(self, key: str, clips: Tensor, true_side: bool, video_input: VideoInput) -> Tensor:
        """One clip at a time: its features then depend on no other, and need a fourth of the memory of four."""
        side = true_side, video_input
        if side not in self._frames:
            self._frames[side] = i3d_frames(self.target if true_side else self.predicted, video_input)
        names = [(*side, tuple(clip)) for clip in clips.tolist()]
        new = {name: clip for name, clip in zip(names, clips, strict=True) if name not in self._known}
        frames = self._frames[side]
        found = side_by_side(lambda clip: i3d_features(self.network, frames[clip][None])[0], new.values())
        for done, (name, features) in enumerate(zip(new, found, strict=True), start=1):
            self._known[name] = features
            if self.progress is not None:
                self.progress(key, done, len(new))
        return torch.stack([self._known[name] for name in names])
