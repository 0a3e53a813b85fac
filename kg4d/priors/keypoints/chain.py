r"""Following points of an object through a chain of images: a hidden Markov model over candidate positions.

In every image a point is at one of a few hundred candidate positions on the matte, and there it is either visible or
hidden behind something. Three things are known: where the point is in the first image; how similar the descriptor of
each candidate is to the point's own (evidence); and how well each candidate matches each candidate of the next image,
in appearance and in position (transitions, normalised over both images at once, so that two candidates do not lead to
one: the dual softmax of LoFTR). The posterior over candidates given all images (forward-backward) gives the position,
and its mass near that position the confidence, which is low if the point could be elsewhere or may be hidden.

Sources: Rabiner 1989, "A tutorial on hidden Markov models", III.A (forward-backward); Sun et al. 2021, "LoFTR", 3.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.priors.keypoints.settings import ChainConfig

READ_RADIUS = 0.03  # in units of length: width of the kernel that smooths the posterior before its maximum is taken
REFINE_RADIUS = 0.06  # in units of length: candidates within this distance of the maximum are averaged
FLOOR = 1e-9  # added to the weight of every move of a hidden point, so that the chain cannot break


class Candidates(NamedTuple):
    """The n positions at which a point can be in one image."""

    points: Float[Tensor, "n 2"]  # in units of length
    descriptors: Float[Tensor, "n C"]  # of norm 1


class Move(NamedTuple):
    """The expected motion of each candidate to the next image."""

    targets: Float[Tensor, "n 2"]  # expected position there, in units of length
    spread: Float[Tensor, " n"]  # its standard deviation, in units of length


class Estimates(NamedTuple):
    """The positions of J points in T images."""

    points: Float[Tensor, "T J 2"]  # in units of length
    weights: Float[Tensor, "T J"]  # probability in [0, 1] that the point is visible near that position


class _Step(NamedTuple):
    """Transitions from one image to the next; rows sum to 1."""

    seen: Float[Tensor, "n m"]
    hidden: Float[Tensor, "n m"]


class _Belief(NamedTuple):
    """Probability of each candidate of one image for each of J points, up to a factor per point."""

    seen: Float[Tensor, "J n"]
    hidden: Float[Tensor, "J n"]

    def normalised(self) -> "_Belief":
        total = (self.seen.sum(1) + self.hidden.sum(1))[:, None]
        return _Belief(self.seen / total, self.hidden / total)


@torch.no_grad()
def follow(
    chain: Sequence[Candidates],
    moves: Sequence[Move],
    start: Float[Tensor, "J 2"],
    descriptors: Float[Tensor, "J C"],
    config: ChainConfig,
    *,
    closed: bool = False,
) -> Estimates:
    """Follow points from the first image through all others.

    Args:
        chain: The candidates of the T images, at least one per image.
        moves: The expected motion between neighbouring images, T - 1.
        start: Positions of the points in the first image, in units of length.
        descriptors: Descriptors of the points there, of norm 1.
        config: The parameters of the model.
        closed: The last image is the first one again, so visible points must be at their start positions there.

    Returns:
        The estimates; a point that starts farther than `wander` from every candidate has weight 0 throughout.
    """
    chain = [Candidates(points.double(), found) for points, found in chain]
    start = start.double()
    first, known = _start(chain[0], start, config)
    steps = [_step(now, after, move, config) for now, after, move in zip(chain, chain[1:], moves, strict=False)]
    level = _similarities(descriptors, chain[0].descriptors).mean(1, keepdim=True).clamp_max(0.99)
    odds = [_odds((_similarities(descriptors, image.descriptors) - level) / (1 - level), config) for image in chain]
    last = _Belief(first.seen + 1e-4, first.hidden) if closed else _flat(first, chain[-1])
    forward, backward = [first], [last]
    for step, likely in zip(steps, odds[1:], strict=True):
        forward.append(_forward(forward[-1], step, likely, config))
    for step, likely in zip(reversed(steps), reversed(odds[1:]), strict=True):
        backward.insert(0, _backward(backward[0], step, likely, config))
    estimates = [
        _estimate(image.points, _Belief(ahead.seen * back.seen, ahead.hidden * back.hidden).normalised(), config)
        for image, ahead, back in zip(chain, forward, backward, strict=True)
    ]
    points, weights = (torch.stack(parts) for parts in zip(*estimates, strict=True))
    return Estimates(points.float(), (weights * known).clamp(0, 1).float())


def _start(image: Candidates, start: Float[Tensor, "J 2"], config: ChainConfig) -> tuple[_Belief, Bool[Tensor, " J"]]:
    """Belief that every point is visible at the candidates next to its start, and which points have such candidates."""
    squared = _squared_distances(start, image.points)
    nearest = squared.amin(1, keepdim=True)
    seen = ((nearest - squared) / (2 * 0.015**2)).softmax(1)
    return _Belief(seen, torch.zeros_like(seen)), nearest[:, 0] <= config.wander**2


def _step(now: Candidates, after: Candidates, move: Move, config: ChainConfig) -> _Step:
    """A visible point goes to candidates that look alike and lie where it is expected; a hidden point diffuses."""
    distances = _squared_distances(move.targets.double(), after.points) / (2 * move.spread.double()[:, None] ** 2)
    logits = config.affinity * _similarities(now.descriptors, after.descriptors) - distances
    seen = (logits.log_softmax(1) + logits.log_softmax(0)).softmax(1)
    wandering = (-_squared_distances(now.points, after.points) / (2 * config.wander**2)).exp() + FLOOR
    return _Step(seen, wandering / wandering.sum(1, keepdim=True))


def _odds(similarity: Float[Tensor, "J n"], config: ChainConfig) -> Float[Tensor, "J n"]:
    """Likelihood ratio of a similarity: the point is visible there, against hidden there."""
    return (config.evidence * (similarity - config.threshold)).exp()


def _flat(belief: _Belief, image: Candidates) -> _Belief:
    flat = belief.seen.new_ones(len(belief.seen), len(image.points))
    return _Belief(flat, flat)


def _forward(belief: _Belief, step: _Step, odds: Float[Tensor, "J m"], config: ChainConfig) -> _Belief:
    seen, hidden, wandering = belief.seen @ step.seen, belief.seen @ step.hidden, belief.hidden @ step.hidden
    return _Belief(
        ((1 - config.hide) * seen + config.reappear * wandering) * odds,
        config.hide * hidden + (1 - config.reappear) * wandering,
    ).normalised()


def _backward(belief: _Belief, step: _Step, odds: Float[Tensor, "J m"], config: ChainConfig) -> _Belief:
    seen, hidden = belief.seen * odds, belief.hidden
    back = hidden @ step.hidden.T
    return _Belief(
        (1 - config.hide) * (seen @ step.seen.T) + config.hide * back,
        config.reappear * (seen @ step.hidden.T) + (1 - config.reappear) * back,
    ).normalised()


def _estimate(
    points: Float[Tensor, "n 2"], belief: _Belief, config: ChainConfig
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """The mean around the most likely position, visible or hidden, and the probability of being visible near it."""
    either, between = belief.seen + belief.hidden, _squared_distances(points, points)
    best = (either @ (-between / (2 * READ_RADIUS**2)).exp()).argmax(1)
    around = either * (between[best] <= REFINE_RADIUS**2)
    mean = (around @ points) / around.sum(1, keepdim=True)
    return mean, (belief.seen * (_squared_distances(mean, points) <= config.near**2)).sum(1)


def _similarities(a: Float[Tensor, "n C"], b: Float[Tensor, "m C"]) -> Float[Tensor, "n m"]:
    return (a @ b.T).double()


def _squared_distances(a: Float[Tensor, "n 2"], b: Float[Tensor, "m 2"]) -> Float[Tensor, "n m"]:
    return (a[:, None] - b[None]).square().sum(-1)
