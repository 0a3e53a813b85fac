"""Edits of the set of Gaussians. Every tensor follows, keypoint logits and optimiser moments too.

An optimiser passed in must hold one group per parameter of the model; moments of new Gaussians start at zero.
Sources: Kerbl et al. 2023, section 5 (duplicate, split, reset); Kheradmand et al. 2024, eq. 9 (opacity of copies);
FLAG-4D (decay).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import Optimizer

from kg4d.gaussians.rows import GaussianRows

SPLIT_SHRINK = 1.6  # scale of a parent over that of its two halves (Kerbl et al.)
RELOCATE_LOG_SHRINK = 0.15  # taken off the log-scales of a source and of its copies
RELOCATE_SPREAD = 0.7  # standard deviation of a copy's offset over that of its source


def duplicate(model: GaussianRows, optimizer: Optimizer | None, mask: Bool[Tensor, " N"], least: float = 0.0) -> None:
    """Append a copy of each Gaussian in `mask`; the opacity of both is set so that blended they are the original.

    Args:
        model: N Gaussians; the copies are its last rows.
        optimizer: Of the model, kept in step; moments of copies, and of the opacity of originals, start at zero. None
            where there is none.
        mask: Gaussians to copy.
        least: Opacity, in [0, 1], that no original or copy is lowered below: a faint one must not die of its copy.
    """
    chosen = mask.nonzero()[:, 0]
    rows = torch.cat([torch.arange(len(model), device=mask.device), chosen])
    values = _take(model, rows)
    twins = torch.cat([chosen, torch.arange(len(model), len(rows), device=mask.device)])
    values["opacity_logits"][twins] = _divided_opacity(
        values["opacity_logits"][twins], rows.new_full(twins.shape, 2), least
    )
    inherit = rows.clone()
    inherit[len(model) :] = -1
    model.replace_parameters(values, optimizer, inherit)
    for moment in _moments(model.opacity_logits, optimizer):
        moment[chosen] = 0  # it has jumped


def split(
    model: GaussianRows,
    optimizer: Optimizer | None,
    mask: Bool[Tensor, " N"],
    generator: torch.Generator,
    least: float = 0.0,
) -> None:
    """Replace each Gaussian in `mask` by two smaller ones drawn from inside it (Kerbl et al. 2023, section 5).

    Args:
        model: N Gaussians; the new ones are its last rows.
        optimizer: Of the model, kept in step; None where there is none.
        mask: Gaussians to split.
        generator: Source of randomness (CPU).
        least: As in `duplicate`.
    """
    kept, chosen = (~mask).nonzero()[:, 0], mask.nonzero()[:, 0].repeat(2)
    rows = torch.cat([kept, chosen])
    values = _take(model, rows)
    new = slice(len(kept), None)
    values["means"][new] += model.draws(chosen, generator)
    values["log_scales"][new] -= torch.tensor(SPLIT_SHRINK).log().item()
    values["opacity_logits"][new] = _divided_opacity(
        values["opacity_logits"][new], chosen.new_full(chosen.shape, 2), least
    )
    inherit = rows.clone()
    inherit[new] = -1
    model.replace_parameters(values, optimizer, inherit)


def remove(model: GaussianRows, optimizer: Optimizer | None, mask: Bool[Tensor, " N"]) -> None:
    """Remove the Gaussians in `mask`.

    Raises:
        ValueError: None would be left.
    """
    kept = (~mask).nonzero()[:, 0]
    if not len(kept):
        raise ValueError("no Gaussian is left: all of them would be removed")
    model.replace_parameters(_take(model, kept), optimizer, kept)


@torch.no_grad()
def relocate(
    model: GaussianRows, optimizer: Optimizer | None, dead: Bool[Tensor, " N"], generator: torch.Generator
) -> None:
    """Move each dead Gaussian onto a living one, drawn with probability proportional to opacity.

    A source and its copies get the opacity that leaves their blend unchanged (Kheradmand et al. 2024, eq. 9), shrink a
    little, and each copy is placed at random inside the source. N does not change, so this runs in place.

    Args:
        model: N Gaussians.
        optimizer: Of the model; the moments of what jumps become zero: all of a moved Gaussian, opacity and scales of
            its source. None where there is none.
        dead: Gaussians to move.
        generator: Source of randomness (CPU).

    Raises:
        ValueError: All Gaussians are dead.
    """
    if not bool(dead.any()):
        return
    if bool(dead.all()):
        raise ValueError("no Gaussian is left to copy: all of them are dead")
    opacities = model.opacity_logits.sigmoid().masked_fill(dead, 0)
    targets = dead.nonzero()[:, 0]
    drawn = torch.multinomial(opacities.cpu(), len(targets), replacement=True, generator=generator)
    sources = drawn.to(dead.device)
    offsets = RELOCATE_SPREAD * model.draws(sources, generator)
    counts = 1 + torch.bincount(sources, minlength=len(model))
    copied = counts > 1
    model.opacity_logits[copied] = _divided_opacity(model.opacity_logits[copied], counts[copied])
    model.log_scales[copied] -= RELOCATE_LOG_SHRINK
    for name in model.NAMES:
        parameter = model.get_parameter(name)
        parameter[targets] = parameter[sources]
        for moment in _moments(parameter, optimizer):
            moment[targets] = 0
    for jumped in (model.opacity_logits, model.log_scales):
        for moment in _moments(jumped, optimizer):
            moment[copied] = 0
    model.means[targets] += offsets


@torch.no_grad()
def reset_opacity(model: GaussianRows, optimizer: Optimizer | None, maximum: float) -> None:
    """Cap all opacities at `maximum`, in (0, 1), and zero their moments, so that useless Gaussians stay faint."""
    model.opacity_logits.clamp_(max=torch.logit(torch.tensor(maximum)).item())
    for moment in _moments(model.opacity_logits, optimizer):
        moment.zero_()


@torch.no_grad()
def decay_opacity(model: GaussianRows, amount: float, floor: float) -> None:
    """Lower all opacities by `amount`, but not below `floor`; opacities below `floor` stay as they are."""
    opacities = model.opacity_logits.sigmoid()
    lowered = torch.logit((opacities - amount).clamp_min(floor))
    model.opacity_logits.copy_(torch.where(opacities > floor, lowered, model.opacity_logits))


def _take(model: GaussianRows, rows: Int[Tensor, " M"]) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach()[rows] for name in model.NAMES}


def _divided_opacity(logits: Float[Tensor, " M"], counts: Int[Tensor, " M"], least: float = 0.0) -> Float[Tensor, " M"]:
    """Logits of the opacity o' with 1 - (1 - o')^counts = o, kept in [0.01, 0.99] so that gradients do not vanish.

    It is not lowered below `least`; where o is below that, it stays.
    """
    transparency = torch.sigmoid(-logits.detach()).clamp_min(0.005)
    divided = torch.maximum(1 - transparency.pow(1 / counts), (1 - transparency).clamp_max(least))
    return torch.logit(divided.clamp(0.01, 0.99))


def _moments(parameter: Tensor, optimizer: Optimizer | None) -> list[Tensor]:
    """The optimiser's per-element averages of a parameter; none before its first step."""
    state = {} if optimizer is None else optimizer.state.get(parameter, {})
    return [value for value in state.values() if isinstance(value, Tensor) and value.shape == parameter.shape]
