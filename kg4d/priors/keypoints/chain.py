r"""Following points of an object through a chain of images: a hidden Markov model over places on the object.

In every image a point is at one of a few hundred places on the matte, and there it is either seen or hidden behind
something. Three things are known: where it is in the first image; how well the descriptor of each place agrees with the
point's own (evidence); and how well each place agrees with each place of the next image, in look and in position
(transitions, normalised over both images at once, so that two places do not lead to one: the dual softmax of LoFTR).
The posterior of every place given all images, forwards and backwards, gives the position, and its mass near there the
confidence: what could be elsewhere, or may be hidden, gets a low one.

Sources: Rabiner 1989, "A tutorial on hidden Markov models", III.A (forward-backward); Sun et al. 2021, "LoFTR", 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

READ_RADIUS = 0.03  # of the unit length: the bump with which the most likely place is looked for
REFINE_RADIUS = 0.06  # places as near as this to it are averaged
FLOOR = 1e-9  # of all moves: the chain cannot break


@dataclass
class ChainConfig:
    """How points are followed. Lengths are in units of 1.3 times the object's box.

    Attributes:
        evidence: What one unit of similarity to the point's descriptor adds to the log odds of "seen here". Low, since
            what misleads one image misleads its neighbours too.
        threshold: Similarity at which seen and hidden are equally likely; 0 is that of any place, 1 the point itself.
        affinity: What one unit of similarity between places of neighbouring images adds to the log odds of a move.
        hide: Chance that a seen point is hidden in the next image.
        reappear: Chance that a hidden point is seen in the next image.
        wander: Standard deviation of a hidden point's move.
        places: At most about this many places an image.
        near: Confidence is the chance of being seen this near to the given position.
    """

    evidence: float = 4.0
    threshold: float = 0.25
    affinity: float = 20.0
    hide: float = 0.1
    reappear: float = 0.15
    wander: float = 0.08
    places: int = 800
    near: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what is no model.

        Raises:
            ValueError: A chance is not inside (0, 1), or a length or the number of places is not positive.
        """
        if not (0 < self.hide < 1 and 0 < self.reappear < 1):
            raise ValueError(f"chain: hide and reappear must lie inside (0, 1), not {self.hide} and {self.reappear}")
        if min(self.wander, self.near, self.places) <= 0:
            raise ValueError("chain: wander, near and places must be positive")


class Candidates(NamedTuple):
    """Where a point can be in one image."""

    points: Float[Tensor, "n 2"]  # in the unit of length of the chain
    descriptors: Float[Tensor, "n C"]  # of length 1


class Move(NamedTuple):
    """What is known about the motion of each place to the next image."""

    targets: Float[Tensor, "n 2"]  # where it goes
    spread: Float[Tensor, " n"]  # standard deviation of that


class Estimates(NamedTuple):
    """Where each point is in each image."""

    points: Float[Tensor, "T J 2"]
    weights: Float[Tensor, "T J"]  # chance in [0, 1] that it is seen near there


class _Step(NamedTuple):
    """Transitions from one image to the next; rows sum to 1."""

    seen: Float[Tensor, "n m"]
    hidden: Float[Tensor, "n m"]


class _Belief(NamedTuple):
    """Weight of each place in one image, up to a factor a point."""

    seen: Float[Tensor, "J n"]
    hidden: Float[Tensor, "J n"]

    def scaled(self) -> "_Belief":
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
        chain: The T images, each with at least one place.
        moves: What is known about the motion between neighbours, T - 1.
        start: Where the points are in the first image.
        descriptors: How they look there.
        config: The model.
        closed: The last image is the first again, and so the points are there again if they are seen.

    Returns:
        The estimates; a point that starts farther than `wander` from every place has weight 0 throughout.
    """
    chain = [Candidates(points.double(), found) for points, found in chain]
    start = start.double()
    first, known = _start(chain[0], start, config)
    steps = [_step(here, there, move, config) for here, there, move in zip(chain, chain[1:], moves, strict=False)]
    level = _similarities(descriptors, chain[0].descriptors).mean(1, keepdim=True).clamp_max(0.99)
    odds = [_odds((_similarities(descriptors, places.descriptors) - level) / (1 - level), config) for places in chain]
    last = _Belief(first.seen + 1e-4, first.hidden) if closed else _flat(first, chain[-1])
    forward, backward = [first], [last]
    for step, likely in zip(steps, odds[1:], strict=True):
        forward.append(_forward(forward[-1], step, likely, config))
    for step, likely in zip(reversed(steps), reversed(odds[1:]), strict=True):
        backward.insert(0, _backward(backward[0], step, likely, config))
    read = [
        _read(places.points, _Belief(ahead.seen * back.seen, ahead.hidden * back.hidden).scaled(), config)
        for places, ahead, back in zip(chain, forward, backward, strict=True)
    ]
    points, weights = (torch.stack(parts) for parts in zip(*read, strict=True))
    return Estimates(points.float(), (weights * known).clamp(0, 1).float())


def _start(places: Candidates, start: Float[Tensor, "J 2"], config: ChainConfig) -> tuple[_Belief, Bool[Tensor, " J"]]:
    """All at the places next to the start, and which points have such places."""
    squared = _squared_distances(start, places.points)
    nearest = squared.amin(1, keepdim=True)
    seen = ((nearest - squared) / (2 * 0.015**2)).softmax(1)
    return _Belief(seen, torch.zeros_like(seen)), nearest[:, 0] <= config.wander**2


def _step(here: Candidates, there: Candidates, move: Move, config: ChainConfig) -> _Step:
    """A place leads to those that look alike and lie where it moves; a hidden point wanders about."""
    distances = _squared_distances(move.targets.double(), there.points) / (2 * move.spread.double()[:, None] ** 2)
    logits = config.affinity * _similarities(here.descriptors, there.descriptors) - distances
    seen = (logits.log_softmax(1) + logits.log_softmax(0)).softmax(1)
    wandering = (-_squared_distances(here.points, there.points) / (2 * config.wander**2)).exp() + FLOOR
    return _Step(seen, wandering / wandering.sum(1, keepdim=True))


def _odds(similarity: Float[Tensor, "J n"], config: ChainConfig) -> Float[Tensor, "J n"]:
    """How much likelier such a similarity is of a point that is seen there than of one that is hidden there."""
    return (config.evidence * (similarity - config.threshold)).exp()


def _flat(belief: _Belief, places: Candidates) -> _Belief:
    flat = belief.seen.new_ones(len(belief.seen), len(places.points))
    return _Belief(flat, flat)


def _forward(belief: _Belief, step: _Step, odds: Float[Tensor, "J m"], config: ChainConfig) -> _Belief:
    seen, hidden, wandering = belief.seen @ step.seen, belief.seen @ step.hidden, belief.hidden @ step.hidden
    return _Belief(
        ((1 - config.hide) * seen + config.reappear * wandering) * odds,
        config.hide * hidden + (1 - config.reappear) * wandering,
    ).scaled()


def _backward(belief: _Belief, step: _Step, odds: Float[Tensor, "J m"], config: ChainConfig) -> _Belief:
    seen, hidden = belief.seen * odds, belief.hidden
    back = hidden @ step.hidden.T
    return _Belief(
        (1 - config.hide) * (seen @ step.seen.T) + config.hide * back,
        config.reappear * (seen @ step.hidden.T) + (1 - config.reappear) * back,
    ).scaled()


def _read(
    points: Float[Tensor, "n 2"], belief: _Belief, config: ChainConfig
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """The mean around the most likely place, seen or hidden, and the chance of being seen near there."""
    either, between = belief.seen + belief.hidden, _squared_distances(points, points)
    best = (either @ (-between / (2 * READ_RADIUS**2)).exp()).argmax(1)
    around = either * (between[best] <= REFINE_RADIUS**2)
    mean = (around @ points) / around.sum(1, keepdim=True)
    return mean, (belief.seen * (_squared_distances(mean, points) <= config.near**2)).sum(1)


def _similarities(a: Float[Tensor, "n C"], b: Float[Tensor, "m C"]) -> Float[Tensor, "n m"]:
    return (a @ b.T).double()


def _squared_distances(a: Float[Tensor, "n 2"], b: Float[Tensor, "m 2"]) -> Float[Tensor, "n m"]:
    return (a[:, None] - b[None]).square().sum(-1)
