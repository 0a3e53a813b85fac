"""Lifting: the 2D keypoints of the reference video become smooth 3D tracks, before anything is rendered.

Where the keypoints are in frame 0 is known in 3D, so the length of every bone is. A small harmonic network per
hypothesis moves the keypoints (its smoothness in space and time is the prior), and is fitted to the pixels under a
robust loss while the bones grow from soft to stiff: bones that are stiff from the start freeze limbs on the wrong side
of the depth ambiguity. A first fit says which detections are wrong and how noisy the others are; where that is much, a
second one leaves the wrong ones out. What noise hides first is how far away the body is, so there a prior takes over.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.deform.encoding import HSE, HseConfig
from kg4d.geometry.cameras import Cameras
from kg4d.losses.kfc import project_each
from kg4d.losses.regularizers import bone_lengths
from kg4d.stages.optim import warm_cosine

_WIDTH, _DEPTH = 64, 4
# in longer image sides
_LEAST_NOISE = 0.004  # when wrong ones are told, noise counts as this at least: the networks miss perfect ones
_GOOD_NOISE, _GOOD_WRONG = 0.002, 0.02  # up to this noise and this share of wrong detections the first fit is kept
_NOISE_AT_HALF = 0.003  # at this noise the detections count for half
_ENCODING = HseConfig([math.pi, 2 * math.pi], [math.pi, 2 * math.pi])


@dataclass
class LiftConfig:
    """Lifting of the reference video's keypoints to 3D.

    Attributes:
        steps: Optimiser steps; 0 leaves the lift out.
        hypotheses: Networks fitted side by side from different starts; the tracks are their median, in which the few
            that put a limb on the wrong side of the depth ambiguity have no say.
        weight: Weight of the squared distance of the model's keypoints to the tracks in the dynamic stage, where the
            hypotheses agree and the detections are clean.
        doubt: Spread of the hypotheses, world units, at which they have half that weight and the images decide.
        learning_rate: Adam rate.
        pixels: Weight of the squared pixel error, in units of the longer image side.
        first_bones: Weight of the squared change of the bone lengths at the first step, squared world units.
        last_bones: The same at the last step; it grows by the same ratio at each.
        acceleration: Weight of the squared second difference in time, squared world units.
        first_scale: Pixel error above which a keypoint counts as wrong, at the first step, in longer image sides.
        last_scale: The same from three quarters of the steps on.
        reject: The second fit leaves out what the first one misses by more than this many deviations of the noise.
        body_depth: Prior deviation of the body's way along the view since rest, world units. It counts as much as the
            noise that the first fit found: next to nothing on perfect detections.
    """

    steps: int = 0
    hypotheses: int = 9
    weight: float = 3.0
    doubt: float = 0.03
    learning_rate: float = 5e-3
    pixels: float = 100.0
    first_bones: float = 3.0
    last_bones: float = 100.0
    acceleration: float = 1.0
    first_scale: float = 0.2
    last_scale: float = 0.02
    reject: float = 3.5
    body_depth: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what would divide by zero.

        Raises:
            ValueError: A length is not positive.
        """
        for name in ("doubt", "body_depth", "first_scale", "last_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"lift.{name}: must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class Lift:
    """Keypoints of the reference video in 3D.

    Attributes:
        tracks: World positions; those of the first frame are the given ones.
        trust: How far each detection can be believed, in [0, 1]; 0 where there was none and where it was told wrong.
        certainty: How far the tracks can be believed, in [0, 1]; falls where the hypotheses differ, and with the noise.
        reliability: How far the detections can be believed as a whole, in [0, 1]; falls as they are noisier.
    """

    tracks: Float[Tensor, "T J 3"]
    trust: Float[Tensor, "T J"]
    certainty: Float[Tensor, "T J"]
    reliability: float

    def to(self, device: torch.device) -> "Lift":
        """The same elsewhere."""
        return Lift(self.tracks.to(device), self.trust.to(device), self.certainty.to(device), self.reliability)


def lift_keypoints(
    config: LiftConfig,
    start: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    pixels: Float[Tensor, "T J 2"],
    weights: Float[Tensor, "T J"],
    cameras: Cameras,
    times: Float[Tensor, " T"],
    generator: torch.Generator,
) -> Lift:
    """Fit tracks to the keypoints of a video.

    Args:
        config: Steps and weights.
        start: World positions in the first frame.
        parents: Parent of each keypoint; -1 where there is none, or where the bone is cut.
        pixels: Detections; read where the weight is positive.
        weights: Their confidence in [0, 1].
        cameras: T cameras.
        times: Of the frames, in [0, 1]; 0 is rest.
        generator: Source of the initial weights (CPU).

    Returns:
        Tracks and how far to believe them, without history.
    """
    sight = _Sight(pixels, weights, cameras)
    hypotheses = _hypotheses(config, start, parents, sight, times, 0.0, generator)
    distance = sight.squared_errors(hypotheses.median(0).values[None])[0].sqrt()
    noise = _deviation(distance[weights > 0])
    wrong = (weights > 0) & (distance > config.reject * max(noise, _LEAST_NOISE))
    if noise > _GOOD_NOISE or wrong.sum() > _GOOD_WRONG * (weights > 0).sum():
        sight = replace(sight, weights=weights.masked_fill(wrong, 0.0))
        hypotheses = _hypotheses(config, start, parents, sight, times, noise, generator)
    tracks = hypotheses.median(0).values
    spread = (hypotheses - tracks).norm(dim=-1).median(0).values
    ratio = sight.squared_errors(tracks[None])[0] / config.last_scale**2
    trust = torch.where(sight.weights > 0, 1 / (1 + ratio).square(), 0.0)
    reliability = 1 / (1 + (noise / _NOISE_AT_HALF) ** 2)
    return Lift(tracks, trust, reliability / (1 + (spread / config.doubt).square()), reliability)


@dataclass(frozen=True)
class _Sight:
    """What the video shows of the keypoints."""

    pixels: Float[Tensor, "T J 2"]
    weights: Float[Tensor, "T J"]
    cameras: Cameras

    def squared_errors(self, tracks: Float[Tensor, "S T J 3"]) -> Float[Tensor, "S T J"]:
        """In units of the longer image side; finite where there is no detection."""
        target = torch.where(self.weights[..., None] > 0, self.pixels, 0.0)
        read = torch.stack([project_each(points, self.cameras) for points in tracks])
        return ((read - target) / max(self.cameras.width, self.cameras.height)).square().sum(-1)


def _hypotheses(
    config: LiftConfig,
    start: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    sight: _Sight,
    times: Float[Tensor, " T"],
    noise: float,
    generator: torch.Generator,
) -> Float[Tensor, "S T J 3"]:
    """Tracks for detections with that noise, in longer image sides, from S starts."""
    network = _Networks(config.hypotheses, start, generator)
    optimizer = torch.optim.Adam(network.parameters())
    moving = (times > 0).to(start)[:, None, None]
    view = sight.cameras.viewmats[:, 2, :3]
    rest_lengths, has_bones = bone_lengths(start, parents), bool((parents >= 0).any())
    depth_weight = config.pixels * (noise / config.body_depth) ** 2 / len(start)
    last_scale = max(config.last_scale, 3 * noise)

    for step in range(config.steps):
        progress = step / config.steps
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm_cosine(progress, step, 0, 0.05)
        shifts = moving * network(times)
        tracks = start + shifts
        scale = config.first_scale * (last_scale / config.first_scale) ** min(1.0, progress / 0.75)
        robust = sight.weights * geman_mcclure(sight.squared_errors(tracks), scale)
        loss = config.pixels * robust.sum((1, 2)) / sight.weights.sum().clamp_min(1)
        loss = loss + depth_weight * (shifts.mean(2) * view).sum(-1).square().mean(1)
        if has_bones:
            stiffness = config.first_bones * (config.last_bones / config.first_bones) ** progress
            loss = loss + stiffness * (bone_lengths(tracks, parents) - rest_lengths).square().mean((1, 2))
        if len(times) > 2:
            loss = loss + config.acceleration * tracks.diff(n=2, dim=1).square().sum(-1).mean((1, 2))
        optimizer.zero_grad()
        torch.autograd.backward(loss.sum())
        optimizer.step()
    with torch.no_grad():
        found: Tensor = start + moving * network(times)
    return found


def _deviation(distances: Float[Tensor, " N"]) -> float:
    """Deviation of one coordinate of normal errors with these distances, from their median (1.18 deviations)."""
    return float(distances.median() / math.sqrt(2 * math.log(2))) if len(distances) else 0.0


def geman_mcclure(squared: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """s² e² / (s² + e²) of squared errors: e² where small, s² at most, so that an outlier soon stops pulling."""
    return squared / (1 + squared / scale**2)


class _Networks(nn.Module):
    """S networks side by side, each from HSE(start, t) of J keypoints to shifts that start at zero."""

    def __init__(self, count: int, start: Float[Tensor, "J 3"], generator: torch.Generator) -> None:
        super().__init__()
        self._encoding = HSE(_ENCODING, float(start.abs().max().clamp_min(1e-3)))
        self._start = start
        widths = [self._encoding.space_width + self._encoding.time_width, *[_WIDTH] * _DEPTH, 3]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = (0.0 if outputs == 3 else 1.0) / math.sqrt(inputs)
            for shape, into in (((count, inputs, outputs), self.weights), ((count, 1, outputs), self.biases)):
                values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                into.append(nn.Parameter(values.to(start)))

    def forward(self, times: Float[Tensor, " T"]) -> Float[Tensor, "S T J 3"]:
        """Shifts of the keypoints."""
        x: Tensor = self._encoding(self._start, times).flatten(0, 1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if index < _DEPTH:
                x = x.relu()
        return x.reshape(len(x), len(times), len(self._start), 3)
