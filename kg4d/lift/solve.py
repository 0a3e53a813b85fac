"""Lifting: the 2D keypoints of the reference video become smooth 3D tracks, before anything is rendered.

The keypoints are known in 3D in frame 0, and with them the length of every bone. Small harmonic networks, one for each
hypothesis, move them; their smoothness in space and time is the prior. They are fitted to the detections under a robust
loss while the bones grow from soft to stiff, because bones that are stiff from the start freeze limbs on the wrong side
of the depth ambiguity. This first fit measures how noisy the detections are, and which are wrong. If they are noisy or
often wrong, a second fit leaves the wrong ones out, and holds the body near its depth in frame 0, as depth is what
noise hides first.

Where the video has a dense flow, points of the surface around the bones show on which side of the ambiguity a limb is:
limbs are mirrored to the other side if that fits clearly better, and hidden limbs follow those of the other side of the
body if it has a gait. Then the positions leave the networks and move freely, to fit what these are too smooth for.
Finally, detections with hardly any jitter are fitted more closely, because a body that is too near or too far misses
them by very little.

Hypotheses that put some keypoint elsewhere than the median are returned as rivals. The detections do not tell between
them, but images can (`kg4d.stages.dynamic_start`).
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.noise import jitter, robust_deviation
from kg4d.lift.descent import fit_networks, polish
from kg4d.lift.gait import find_gait
from kg4d.lift.mirrored_limbs import mirror_limbs
from kg4d.lift.objective import LiftObjective, Observations, RestBody
from kg4d.lift.record import Lift
from kg4d.lift.settings import LiftConfig
from kg4d.lift.surface import SurfaceTracks

_log = logging.getLogger(__name__)

# noise and jitter are standard deviations in longer image sides
_LEAST_NOISE = 0.004  # lower limit when outliers are rejected, because the networks miss even exact detections
_CLEAN_NOISE, _CLEAN_OUTLIERS = 0.003, 0.02  # up to this noise and this share of outliers the first fit is kept
_NOISE_AT_HALF = 0.003  # noise at which the overall confidence is one half
_JITTER, _NO_JITTER = 0.001, 1e-6  # detections with less jitter than the first count more; the second avoids 1 / 0
_LOSS_RISE = (
    0.1  # fitting them more closely may raise the loss by this share (evidence/lift_log.md: exact and tracked ones)
)
_APART = 0.05  # world units; a rival has a keypoint whose mean distance is more than this
_OFF = 4.0  # where hypotheses differ by s, keypoints are off by about so many s (evidence/lift_log.md)


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
    counterparts: Sequence[int] = (),
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
        counterparts: Index of each keypoint on the other side of the body, -1 where there is none (`other_sides`).
            Empty: no gait is looked for.
        leans: Which way the bones lean that end at the keypoints, as in `kg4d.data.records.Keypoints`, where a detector
            has estimated it.

    Returns:
        The lift, without gradient.
    """
    body, detections = RestBody(rest, parents, surface), Observations(pixels, weights, cameras, leans)
    fit = _fit_hypotheses(config, body, detections, times, generator)
    tracks = fit.hypotheses.median(0).values
    spread = (fit.hypotheses - tracks).norm(dim=-1).median(0).values
    if body.surface is not None:
        tracks = mirror_limbs(fit.objective, tracks, times)
        fit, spread = _with_gait(fit, tracks, spread, counterparts, times)
    refined, losses = _refine(fit.objective, tracks[None], times)
    lift = _finish(fit, refined, losses, spread, times)
    if config.trial_steps == 0:
        return lift
    others, losses = _refine(fit.objective, fit.hypotheses, times)
    seen = (fit.objective.keypoints.weights > 0).any(0)
    rivals = (
        _finish(fit, others[index : index + 1], losses[index : index + 1], spread, times)
        for index in _rivals(lift.tracks, others, losses, seen)
    )
    return replace(lift, rivals=tuple(rivals))


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
    objective = LiftObjective(config, body, detections, times, noise=0.0, confidence=1.0)
    hypotheses = fit_networks(objective, times, generator)
    missed = detections.squared_errors(hypotheses.median(0).values[None])[0].sqrt()
    noise = robust_deviation(missed.flatten(), detections.weights.flatten())
    detected = detections.weights > 0
    wrong = detected & (missed > config.reject * max(noise, _LEAST_NOISE))
    if noise <= _CLEAN_NOISE and bool(wrong.sum() <= _CLEAN_OUTLIERS * detected.sum()):
        return _NetworkFit(objective, hypotheses, noise, clean=True)
    kept = replace(detections, weights=detections.weights.masked_fill(wrong, 0.0))
    objective = LiftObjective(config, body, kept, times, noise, _overall_confidence(noise))
    return _NetworkFit(objective, fit_networks(objective, times, generator), noise, clean=False)


def _with_gait(
    fit: _NetworkFit,
    tracks: Float[Tensor, "T J 3"],
    spread: Float[Tensor, "T J"],
    counterparts: Sequence[int],
    times: Float[Tensor, " T"],
) -> tuple[_NetworkFit, Float[Tensor, "T J"]]:
    """Hold hidden bones to the other side of the body, where it has a gait, and limit their spread accordingly."""
    objective = fit.objective
    if objective.config.gait <= 0 or not counterparts:
        return fit, spread
    apart = times.diff()
    if float(apart.max() - apart.min()) > 0.01 * float(apart.mean()):
        _log.info("lift: the frames are not evenly spaced in time, so no gait is looked for")
        return fit, spread
    gait = find_gait(tracks, objective.body.parents, counterparts, objective.keypoints.weights)
    if gait is None:
        return fit, spread
    _log.info("lift: the body has a gait, its sides %d frames apart; they differ by %.3f", gait.lag, gait.error)
    spread = spread.clone()
    hypotheses_differ = spread[:, gait.children]
    sides_differ = hypotheses_differ.clamp_max(gait.error / _OFF)
    spread[:, gait.children] = torch.where(gait.hidden, sides_differ, hypotheses_differ)
    return fit._replace(objective=objective.with_gait(gait)), spread


def _refine(
    objective: LiftObjective, tracks: Float[Tensor, "S T J 3"], times: Float[Tensor, " T"]
) -> tuple[Float[Tensor, "S T J 3"], Float[Tensor, " S"]]:
    """Polished tracks and their losses; without a surface the tracks stay as the networks left them."""
    if objective.body.surface is None:
        return tracks, objective(tracks, None)
    return polish(objective, tracks, times)


def _finish(
    fit: _NetworkFit,
    tracks: Float[Tensor, "1 T J 3"],
    loss: Float[Tensor, " 1"],
    spread: Float[Tensor, "T J"],
    times: Float[Tensor, " T"],
) -> Lift:
    """Follow exact detections more closely, and compute the confidences (their formulas: `Lift`)."""
    factor, noise = 1.0, fit.noise
    if fit.clean and fit.objective.body.surface is not None:
        tracks, factor, noise = _fit_closely(fit, tracks, loss, times)
    config, detections = fit.objective.config, fit.objective.keypoints
    ratio = detections.squared_errors(tracks)[0] / config.last_scale**2
    detection_confidence = torch.where(detections.weights > 0, 1 / (1 + ratio).square(), 0.0)
    overall_confidence = _overall_confidence(noise)
    track_confidence = overall_confidence / (1 / factor + (spread / config.doubt).square())
    return Lift(tracks[0], detection_confidence, track_confidence, overall_confidence)


def _fit_closely(
    fit: _NetworkFit, tracks: Float[Tensor, "1 T J 3"], loss: Float[Tensor, " 1"], times: Float[Tensor, " T"]
) -> tuple[Float[Tensor, "1 T J 3"], float, float]:
    """Let tracks follow detections more closely that have hardly any jitter.

    What the networks miss such detections by is not noise, so the jitter takes its place. Detections that slowly drift
    off a joint have no jitter either; but only bones that bend could follow them, so a loss that rises gives them away.

    Returns:
        Tracks, factor on the weight of the keypoints, noise; those given, 1 and that of the first fit if they stay.
    """
    jittering = jitter(fit.objective.keypoints.residuals(tracks)[0], fit.objective.keypoints.weights)
    factor = min(fit.objective.config.exact, (_JITTER / max(jittering, _NO_JITTER)) ** 2)
    if factor <= 1:
        return tracks, 1.0, fit.noise
    closer, closer_loss = polish(fit.objective.with_keypoint_factor(factor), tracks, times)
    if not bool(closer_loss <= (1 + _LOSS_RISE) * loss):
        return tracks, 1.0, fit.noise
    return closer, factor, jittering


def _overall_confidence(noise: float) -> float:
    return 1 / (1 + (noise / _NOISE_AT_HALF) ** 2)


def _rivals(
    tracks: Float[Tensor, "T J 3"],
    others: Float[Tensor, "S T J 3"],
    losses: Float[Tensor, " S"],
    seen: Bool[Tensor, " J"],
) -> list[int]:
    """Indices of the others, by ascending loss, that put a seen keypoint elsewhere than `tracks` and rivals before."""
    found: list[int] = []
    for index in losses.argsort().tolist():
        known = torch.stack([tracks, *(others[other] for other in found)])
        apart = (others[index] - known).norm(dim=-1).mean(1)[:, seen]
        if bool((apart > _APART).any(1).all()):
            found.append(index)
    return found
