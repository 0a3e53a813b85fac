"""Lifting: the 2D keypoints of the reference video become smooth 3D tracks, before anything is rendered.

The keypoints are known in 3D in frame 0, and with them the length of every bone. Small harmonic networks, one for each
hypothesis, move them; their smoothness in space and time is the prior. They are fitted to the detections under a robust
loss while the bones grow from soft to stiff, because bones that are stiff from the start freeze limbs on the wrong side
of the depth ambiguity. This first fit measures how noisy the detections are, and which are wrong. If they are noisy or
often wrong, a second fit leaves the wrong ones out, and counts the others by their noise.

Where the video has a dense flow, points of the surface around the bones show on which side of the ambiguity a limb is.
Then the positions leave the networks and move freely, to fit what these are too smooth for. Detections with hardly any
jitter are then fitted more closely, because a body that is too near or too far misses them by very little.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.noise import jitter, robust_deviation
from kg4d.lift.descent import fit_networks, polish
from kg4d.lift.objective import LiftObjective, Observations, RestBody
from kg4d.lift.record import Lift
from kg4d.lift.settings import LiftConfig
from kg4d.lift.surface import SurfaceTracks

_NOISE_AT_HALF = 0.003  # of the detections, longer image sides: at which the overall confidence is one half
_FEW = 0.02  # up to this share of wrong detections the first fit is kept
_JITTER, _NO_JITTER = 0.001, 1e-6  # detections with less jitter than the first count more; the second avoids 1 / 0
_LOSS_RISE = 0.1  # fitting them more closely may raise the loss by this share (evidence/lift_log.md)


def lift_keypoints(
    config: LiftConfig,
    rest: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    pixels: Float[Tensor, "T J 2"],
    weights: Float[Tensor, "T J"],
    cameras: Cameras,
    times: Float[Tensor, " T"],
    generator: torch.Generator,
    surface: SurfaceTracks | None = None,
    leans: Float[Tensor, "T J"] | None = None,
) -> Lift:
    """Fit 3D tracks to the keypoints of a video.

    Args:
        config: Steps, weights and scales.
        rest: Keypoints in the first frame, world units.
        parents: Parent of each keypoint; -1 where there is none, and where the bone is cut.
        pixels: Detected positions, px; anything where the weight is 0.
        weights: Weights of the detections in [0, 1]; 0 where there is none.
        cameras: One for each of the T frames.
        times: Times of the frames in [0, 1], ascending; the keypoints are at rest at 0.
        generator: Source of the networks' initial weights (CPU).
        surface: Followed points of the surface; they are used if the body has bones.
        leans: Which way the bones lean that end at the keypoints, as in `kg4d.data.records.Keypoints`, where a detector
            has estimated it.

    Returns:
        The lift, without gradient.
    """
    body, detections = RestBody(rest, parents, surface), Observations(pixels, weights, cameras, leans)
    fit = _fit_hypotheses(config, body, detections, times, generator)
    tracks = fit.hypotheses.median(0).values
    spread = (fit.hypotheses - tracks).norm(dim=-1).median(0).values
    factor, noise = 1.0, fit.noise
    if body.surface is not None:
        tracks, factor, noise = _polished(fit, tracks, times)
    ratio = fit.objective.keypoints.squared_errors(tracks[None])[0] / config.last_scale**2
    detection_confidence = torch.where(fit.objective.keypoints.weights > 0, 1 / (1 + ratio).square(), 0.0)
    overall_confidence = _overall_confidence(noise)
    track_confidence = overall_confidence / (1 / factor + (spread / config.doubt).square())
    return Lift(tracks, detection_confidence, track_confidence, overall_confidence)


class _NetworkFit(NamedTuple):
    """What the networks have found."""

    objective: LiftObjective  # without the detections that were rejected
    hypotheses: Float[Tensor, "S T J 3"]
    noise: float  # of the detections, as measured by the first fit
    clean: bool  # the detections were so good that the first fit was kept


def _fit_hypotheses(
    config: LiftConfig,
    body: RestBody,
    detections: Observations,
    times: Float[Tensor, " T"],
    generator: torch.Generator,
) -> _NetworkFit:
    """Fit the networks; where the detections are noisy or often wrong, once more without the wrong ones."""
    objective = LiftObjective(config, body, detections, times, config.last_scale, confidence=1.0)
    hypotheses = fit_networks(objective, times, generator)
    missed = detections.squared_errors(hypotheses.median(0).values[None])[0].sqrt()
    noise = robust_deviation(missed.flatten(), detections.weights.flatten())
    scale = max(config.last_scale, config.reject * noise)
    wrong = (detections.weights > 0) & (missed > scale)
    if scale == config.last_scale and bool(wrong.sum() <= _FEW * (detections.weights > 0).sum()):
        return _NetworkFit(objective, hypotheses, noise, clean=True)
    kept = replace(detections, weights=detections.weights.masked_fill(wrong, 0.0))
    objective = LiftObjective(config, body, kept, times, scale, _overall_confidence(noise))
    return _NetworkFit(objective, fit_networks(objective, times, generator), noise, clean=False)


def _polished(
    fit: _NetworkFit, tracks: Float[Tensor, "T J 3"], times: Float[Tensor, " T"]
) -> tuple[Float[Tensor, "T J 3"], float, float]:
    """Polish tracks, and let them follow detections more closely that have hardly any jitter.

    What the networks miss such detections by is not noise, so the jitter takes its place. Detections that slowly drift
    off a joint have no jitter either; but only bones that bend could follow them, so a loss that rises gives them away.

    Returns:
        Tracks, factor on the weight of the keypoints (1 where they are followed as usual), noise.
    """
    tracks, loss = polish(fit.objective, tracks, times)
    jittering = jitter(fit.objective.keypoints.residuals(tracks[None])[0], fit.objective.keypoints.weights)
    factor = min(fit.objective.config.exact, (_JITTER / max(jittering, _NO_JITTER)) ** 2)
    if not fit.clean or factor <= 1:
        return tracks, 1.0, fit.noise
    closer, closer_loss = polish(fit.objective.with_keypoint_factor(factor), tracks, times)
    if closer_loss > (1 + _LOSS_RISE) * loss:
        return tracks, 1.0, fit.noise
    return closer, factor, jittering


def _overall_confidence(noise: float) -> float:
    return 1 / (1 + (noise / _NOISE_AT_HALF) ** 2)
