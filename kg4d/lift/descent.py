"""The two ways in which tracks are fitted: by networks that keep them smooth, and then position by position."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.lift.harmonic_translations import HarmonicTranslations
from kg4d.lift.objective import LiftObjective, SurfaceSkinning
from kg4d.optim.schedules import warm_cosine

POLISH_STEPS = 150
_POLISH_RATE = 3e-3  # Adam rate, world units


def fit_networks(
    objective: LiftObjective, times: Float[Tensor, " T"], generator: torch.Generator
) -> Float[Tensor, "S T J 3"]:
    """Fit S hypotheses from random weights; they are as smooth in space and time as small harmonic networks.

    Args:
        objective: What to minimise. Its config says how many hypotheses, steps, and at which rate.
        times: Times of the frames in [0, 1]; at 0 the body is at rest.
        generator: Source of the initial weights (CPU).
    """
    config, rest = objective.config, objective.body.rest
    network = HarmonicTranslations(config.hypotheses, rest, generator)
    skinning = objective.new_skinning(config.hypotheses)
    tracks = partial(_translated, rest, network, times)
    _descend(objective, tracks, list(network.parameters()), config.learning_rate, skinning, config.steps)
    with torch.no_grad():
        return tracks()


def polish(
    objective: LiftObjective, tracks: Float[Tensor, "S T J 3"], times: Float[Tensor, " T"], steps: int = POLISH_STEPS
) -> tuple[Float[Tensor, "S T J 3"], Float[Tensor, " S"]]:
    """Let every position move by itself, to fit what the networks are too smooth for.

    Args:
        objective: What to minimise, from the first step on as it is at the end of a fit.
        tracks: Where to start, world units; each of the S is fitted for itself.
        times: Times of the frames in [0, 1]; positions at 0 stay.
        steps: Adam steps.

    Returns:
        The polished tracks and their losses.
    """
    positions = nn.Parameter(tracks.clone())
    skinning = objective.new_skinning(len(tracks))
    polished = partial(_anchored, positions, tracks, times)
    _descend(objective, polished, [positions], _POLISH_RATE, skinning, steps, annealed=True)
    with torch.no_grad():
        return polished(), objective(polished(), skinning)


def _translated(
    rest: Float[Tensor, "J 3"], network: HarmonicTranslations, times: Float[Tensor, " T"]
) -> Float[Tensor, "S T J 3"]:
    moving = (times > 0).to(rest)[:, None, None]
    tracks: Tensor = rest + moving * network(times)
    return tracks


def _anchored(
    positions: Float[Tensor, "S T J 3"], start: Float[Tensor, "S T J 3"], times: Float[Tensor, " T"]
) -> Float[Tensor, "S T J 3"]:
    return torch.where((times > 0)[:, None, None], positions, start)


def _descend(
    objective: LiftObjective,
    tracks: Callable[[], Float[Tensor, "S T J 3"]],
    parameters: list[nn.Parameter],
    rate: float,
    skinning: SurfaceSkinning | None,
    steps: int,
    *,
    annealed: bool = False,
) -> None:
    """Minimise the sum of the losses of S tracks by Adam, with rates that fall along a half cosine.

    Args:
        objective: The losses.
        tracks: Makes the tracks of the parameters.
        parameters: What to optimise, besides the skinning.
        rate: Initial Adam rate of the parameters.
        skinning: How the surface follows the tracks; optimised at its own rates.
        steps: Adam steps.
        annealed: Whether stiffness and robust scales have their last values from the first step on.
    """
    groups: list[dict[str, object]] = [{"params": parameters, "rate": rate}]
    optimizer = torch.optim.Adam(groups + ([] if skinning is None else skinning.parameter_groups()))
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * warm_cosine(progress, step, 0, 0.05)
        optimizer.zero_grad()
        torch.autograd.backward(objective(tracks(), skinning, 1.0 if annealed else progress).sum())
        optimizer.step()
