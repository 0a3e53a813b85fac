"""Lifting: the 2D keypoints of the reference video become smooth 3D tracks, before anything is rendered.

Where the keypoints are in frame 0 is known in 3D, so the length of every bone is. A small harmonic network per
hypothesis moves the keypoints (its smoothness in space and time is the prior), and is fitted to the pixels under a
robust loss while the bones grow from soft to stiff: bones that are stiff from the start freeze limbs on the wrong side
of the depth ambiguity. A first fit says which detections are wrong and how noisy the others are; where that is much, a
second one leaves the wrong ones out. What noise hides first is how far away the body is, so there a prior takes over.

Points of the surface around the bones, where the video has a dense flow, tell on which side of that ambiguity a limb
is: limbs are turned to the other side where that fits clearly better. Limbs that the body hides follow those of its
other side, where it has a gait (`kg4d.lift.gait`). Then the places leave the networks and move freely, to fit what
those were too smooth for; detections that hardly jitter are fitted the more closely in the end, as a body that is too
far or too near misses them by little.

Where single hypotheses put a keypoint elsewhere than their median does, pixels do not tell. They are handed on as
rivals of the lift, between which the images can decide (`kg4d.stages.dynamic_start`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.noise import jitter, robust_deviation
from kg4d.lift.gait import find_gait
from kg4d.lift.harmonic_shifts import HarmonicShifts
from kg4d.lift.mirrored_limbs import mirrored_limbs
from kg4d.lift.objective import Body, LiftConfig, LiftObjective, Sight, Skin
from kg4d.lift.record import Lift
from kg4d.lift.surface import SurfaceTracks
from kg4d.optim.schedules import warm_cosine

_log = logging.getLogger(__name__)

# in longer image sides
_LEAST_NOISE = 0.004  # when wrong ones are told, noise counts as this at least: the networks miss perfect ones
_GOOD_NOISE, _GOOD_WRONG = 0.003, 0.02  # up to this noise and this share of wrong detections the first fit is kept
_NOISE_AT_HALF = 0.003  # at this noise the detections count for half
_JITTER, _NO_JITTER = 0.001, 1e-6  # in longer image sides; detections that jitter by less than the first count more
_DEAR = 0.1  # to fit them more closely may raise the loss by this share (docs/lift.md: exact ones and tracked ones)
_POLISH_STEPS, _POLISH_RATE = 150, 3e-3
_TRIAL_STEPS, _FINALISTS = 60, 6  # so many steps tell which mirrored limbs to look at for as long as the polish takes
_APART = 0.05  # a hypothesis is a rival if the mean distance of a keypoint is more than this, world units
_OFF = 4.0  # keypoints at which hypotheses differ by s are off by so many s (docs/lift.md)
_GAIN = 0.04  # a mirrored limb must lower the loss by this share (docs/lift.md: right and wrong ones)


def lift_keypoints(
    config: LiftConfig,
    start: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    pixels: Float[Tensor, "T J 2"],
    weights: Float[Tensor, "T J"],
    cameras: Cameras,
    times: Float[Tensor, " T"],
    generator: torch.Generator,
    surface: SurfaceTracks | None = None,
    counterparts: Sequence[int] = (),
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
        surface: Points of the surface; they need bones to hang on.
        counterparts: Each keypoint's index on the other side of the body, -1 where there is none (`other_sides`).

    Returns:
        Tracks and how far to believe them, without history.
    """
    sight = Sight(pixels, weights, cameras)
    body = Body(start, parents, surface)
    objective = LiftObjective(config, body, sight, 0.0, 1.0)
    hypotheses = _hypotheses(config, start, objective, times, generator)
    distance = sight.squared_errors(hypotheses.median(0).values[None])[0].sqrt()
    noise = robust_deviation(distance.flatten(), weights.flatten())
    wrong = (weights > 0) & (distance > config.reject * max(noise, _LEAST_NOISE))
    good = noise <= _GOOD_NOISE and bool(wrong.sum() <= _GOOD_WRONG * (weights > 0).sum())
    if not good:
        sight = replace(sight, weights=weights.masked_fill(wrong, 0.0))
        objective = LiftObjective(config, body, sight, noise, _reliability(noise))
        hypotheses = _hypotheses(config, start, objective, times, generator)
    tracks = hypotheses.median(0).values
    spread = (hypotheses - tracks).norm(dim=-1).median(0).values
    hangs = body.surface is not None
    if hangs:
        tracks = turned_limbs(config, tracks, body, objective, cameras, times)
        if config.gait > 0 and counterparts:
            gait = find_gait(tracks, parents, counterparts, sight.weights)
            if gait is not None:
                _log.info(
                    "lift: the body has a gait, its sides %d frames apart; they differ by %.3f", gait.lag, gait.error
                )
                objective = objective.beside(gait)
                told = spread[:, gait.children].clamp_max(gait.error / _OFF)
                spread[:, gait.children] = torch.where(gait.hidden, told, spread[:, gait.children])

    def polished(starts: Float[Tensor, "S T J 3"]) -> tuple[Float[Tensor, "S T J 3"], Float[Tensor, " S"]]:
        return _polished(starts, objective, times, _POLISH_STEPS) if hangs else (starts, objective(starts, None))

    def judged(tracks: Float[Tensor, "1 T J 3"], loss: Float[Tensor, " 1"]) -> Lift:
        sharpness, left = 1.0, noise
        if good and hangs:
            tracks, sharpness, left = _closely_fitted(config, tracks, loss, objective, sight, times, noise)
        ratio = sight.squared_errors(tracks)[0] / config.last_scale**2
        trust = torch.where(sight.weights > 0, 1 / (1 + ratio).square(), 0.0)
        reliability = _reliability(left)
        certainty = reliability / (1 / sharpness + (spread / config.doubt).square())
        return Lift(tracks[0], trust, certainty, reliability)

    lift = judged(*polished(tracks[None]))
    if config.trial_steps == 0:
        return lift
    others, losses = polished(hypotheses)
    chosen = _rivals(lift.tracks, others, losses, (sight.weights > 0).any(0))
    return replace(lift, rivals=tuple(judged(others[c : c + 1], losses[c : c + 1]) for c in chosen))


def _rivals(
    tracks: Float[Tensor, "T J 3"],
    others: Float[Tensor, "S T J 3"],
    losses: Float[Tensor, " S"],
    seen: Bool[Tensor, " J"],
) -> list[int]:
    """Which of the others put some keypoint elsewhere than `tracks`, and than those of less loss that do."""
    found: list[int] = []
    for index in losses.argsort().tolist():
        known = torch.stack([tracks, *(others[other] for other in found)])
        apart = (others[index] - known).norm(dim=-1).mean(1)[:, seen]
        if bool((apart > _APART).any(1).all()):
            found.append(index)
    return found


def _reliability(noise: float) -> float:
    """How far detections of that noise can be believed as a whole."""
    return 1 / (1 + (noise / _NOISE_AT_HALF) ** 2)


def _hypotheses(
    config: LiftConfig,
    start: Float[Tensor, "J 3"],
    objective: LiftObjective,
    times: Float[Tensor, " T"],
    generator: torch.Generator,
) -> Float[Tensor, "S T J 3"]:
    """Tracks from S starts, as smooth in space and time as the networks are."""
    network = HarmonicShifts(config.hypotheses, start, generator)
    skin = objective.skin(config.hypotheses)
    moving = (times > 0).to(start)[:, None, None]

    def tracks() -> Tensor:
        moved: Tensor = start + moving * network(times)
        return moved

    _descend(tracks, list(network.parameters()), config.learning_rate, objective, skin, config.steps)
    with torch.no_grad():
        return tracks()


def _polished(
    tracks: Float[Tensor, "S T J 3"], objective: LiftObjective, times: Float[Tensor, " T"], steps: int
) -> tuple[Float[Tensor, "S T J 3"], Float[Tensor, " S"]]:
    """The tracks after steps in which each place moves by itself, and their losses."""
    places, moving = nn.Parameter(tracks.clone()), (times > 0).to(tracks)[:, None, None]
    skin = objective.skin(len(tracks))

    def free() -> Tensor:
        return torch.where(moving > 0, places, tracks)

    _descend(free, [places], _POLISH_RATE, objective, skin, steps, finished=True)
    with torch.no_grad():
        return free(), objective(free(), skin)


def _closely_fitted(
    config: LiftConfig,
    tracks: Float[Tensor, "1 T J 3"],
    loss: Float[Tensor, " 1"],
    objective: LiftObjective,
    sight: Sight,
    times: Float[Tensor, " T"],
    noise: float,
) -> tuple[Float[Tensor, "1 T J 3"], float, float]:
    """Tracks that keep closer to detections that hardly jitter, the factor by which these count more, their noise.

    What the networks miss is no noise of such detections. Others keep the `noise` that the first fit found. Detections
    that drift off a joint do not jitter either, but only bones that bend could follow them everywhere.
    """
    left = jitter(sight.offsets(tracks)[0], sight.weights)
    sharpness = min(config.exact, (_JITTER / max(left, _NO_JITTER)) ** 2)
    if sharpness <= 1:
        return tracks, 1.0, noise
    closer, cost = _polished(tracks, objective.sharper(sharpness), times, _POLISH_STEPS)
    return (closer, sharpness, left) if bool(cost <= (1 + _DEAR) * loss) else (tracks, 1.0, noise)


def turned_limbs(
    config: LiftConfig,
    tracks: Float[Tensor, "T J 3"],
    body: Body,
    objective: LiftObjective,
    cameras: Cameras,
    times: Float[Tensor, " T"],
) -> Float[Tensor, "T J 3"]:
    """Turn one limb after the other to the other side of the depth ambiguity, as long as that fits clearly better.

    Args:
        config: How many at most.
        tracks: Where the keypoints are so far.
        body: With a surface.
        objective: Judges them.
        cameras: T cameras.
        times: Of the frames.
    """
    for _ in range(config.mirrors):
        mirrored = tracks + mirrored_limbs(tracks, body.parents, cameras)
        if len(mirrored) > _FINALISTS:
            losses = _polished(mirrored, objective, times, _TRIAL_STEPS)[1]
            mirrored = mirrored[losses.argsort()[:_FINALISTS]]
        if not len(mirrored):
            break
        tried, losses = _polished(torch.cat([tracks[None], mirrored]), objective, times, _POLISH_STEPS)
        best = int(losses.argmin())
        if not losses[best] < (1 - _GAIN) * losses[0]:
            break
        tracks = tried[best]
    return tracks


def _descend(
    tracks: Callable[[], Tensor],
    parameters: list[nn.Parameter],
    rate: float,
    objective: LiftObjective,
    skin: Skin | None,
    steps: int,
    *,
    finished: bool = False,
) -> None:
    """Let Adam lower the losses of S tracks; where they are `finished`, bones and errors are judged as at the end."""
    groups: list[dict[str, object]] = [{"params": parameters, "rate": rate}]
    optimizer = torch.optim.Adam(groups + ([] if skin is None else skin.parameter_groups()))
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * warm_cosine(progress, step, 0, 0.05)
        optimizer.zero_grad()
        torch.autograd.backward(objective(tracks(), skin, 1.0 if finished else progress).sum())
        optimizer.step()
