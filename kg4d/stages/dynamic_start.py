"""Images decide between lifts: a short fit of the motion from each, and what the images still differ by then.

Pixels of keypoints, bones and the surface may leave open on which side a limb is. Its texture, its outline and what it
hides do not, but only a fit that has come near shows that: before the first step the wrong lift may look as good. Such
a fit also moves the keypoints to where the images are, which noisy detections are not. Lifted again from there they are
a further candidate, if they then move like a body; it has to do better than the places that the fit itself has found.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.batches.batch import DynamicBatch
from kg4d.lift.record import Lift
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.objective import Objective

_log = logging.getLogger(__name__)

# The images must be missed by less by these shares (docs/lift.md: right and wrong ones)
_BETTER = 0.05  # from another hypothesis
_CLOSER = 0.02  # from keypoints that were lifted again
_RELIABLE = 0.9  # detections that are less reliable are lifted again, and must be as reliable by then
_NEAR = 2  # frames; the images are taken to show a keypoint so long before and after it was detected


@dataclass(frozen=True)
class Trial:
    """What a short fit gave.

    Attributes:
        lift: Where it started.
        image_loss: Mean over the last quarter of its steps.
        places: The keypoints at the end.
    """

    lift: Lift
    image_loss: float
    places: Float[Tensor, "T J 3"]


def preferred(
    lift: Lift, trial_of: Callable[[Lift], Trial], lifted_from: Callable[[Float[Tensor, "T J 3"]], Lift]
) -> Lift:
    """The lift, or another one from which the images are missed by clearly less.

    Args:
        lift: With its rivals, which are tried; if it is reliable and has none, nothing is.
        trial_of: A short fit from a lift.
        lifted_from: Lifts the keypoints of a video again, by where a trial has put them. What is known of the
            detections, and how far to pull to the tracks, stays as it was.
    """
    if not lift.rivals and lift.overall_confidence >= _RELIABLE:
        return lift
    best = _least([trial_of(start) for start in (lift, *lift.rivals)], _BETTER)
    if best.lift.overall_confidence >= _RELIABLE:
        return best.lift
    again = lifted_from(best.places)
    if again.overall_confidence < _RELIABLE:
        return best.lift
    # a lift from there has what the first trial gained; so has a fit that just goes on, which it is compared to
    starts = [best.places, *(other.tracks for other in (again, *again.rivals))]
    on, *others = [trial_of(replace(best.lift, tracks=tracks)) for tracks in starts]
    closest = _least([on, *others], _CLOSER)
    return best.lift if closest is on else closest.lift


def tried(stage: DynamicStage, batch: Callable[[int], DynamicBatch], times: Float[Tensor, " T"]) -> Trial:
    """Fit a motion for all steps of a stage that has a lift; it changes the keypoint features of the stage's model.

    Args:
        stage: One that has not begun, and of no further use: `start_handles` sets the features anew for the next.
        batch: What it sees at a step.
        times: Of the tracks.
    """
    assert stage.lift is not None
    stage.on_train_start()
    optimizer = stage.configure_optimizers()
    losses = []
    for step in range(stage.steps):
        stage.schedule(optimizer, step)
        objective = Objective(progress=step / stage.steps)
        stage.objective(batch(step).to(times.device), objective)
        if objective.total is not None:
            torch.autograd.backward(objective.total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(objective.terms["photometric"])
    with torch.no_grad():
        places = stage.keypoints(times)
    return Trial(stage.lift, float(torch.stack(losses[3 * stage.steps // 4 :]).mean()), places)


def seen_about(weights: Float[Tensor, "T J"]) -> Float[Tensor, "T J"]:
    """1 where a keypoint was detected in that frame or in one near it, else 0.

    >>> seen_about(torch.tensor([[0.5], [0.0], [0.0], [0.0], [0.0]])).flatten()
    tensor([1., 1., 1., 0., 0.])
    """
    detected = (weights > 0).to(weights).T[None]
    return torch.nn.functional.max_pool1d(detected, 2 * _NEAR + 1, stride=1, padding=_NEAR)[0].T


def _least(trials: list[Trial], share: float) -> Trial:
    """The one that misses the images by least, if that is less than the first one's loss by more than `share` of it."""
    best = min(trials, key=lambda trial: trial.image_loss)
    chosen = best if best.image_loss < (1 - share) * trials[0].image_loss else trials[0]
    losses = ", ".join(f"{trial.image_loss:.4f}" for trial in trials)
    _log.info("lift: image losses of %d trials %s; %.4f is kept", len(trials), losses, chosen.image_loss)
    return chosen
