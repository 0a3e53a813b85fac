"""Rendered depth against that of a prior, which is known up to a scale > 0 and a shift in each image.

A prior that tells inverse depth is compared with the inverse of what is drawn. Images count where the prior knows, and
where at least half of a pixel is covered; those in which the prior is flat do not count.
Sources: FLAG-4D eq. 9; for the order of pairs Chen et al. 2016, "Single-image depth perception in the wild".
"""

from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.losses.settings import DepthForm, DepthLossConfig

_COVERED = 0.5  # alpha from which on the expected depth is that of a surface
_FLAT = 1e-3  # range of what is drawn, by its mean size, below which it counts as flat: gradients go as one over it
_SAME = 1e-6  # range of a prior, by its largest value, below which it tells nothing
_TAIL = 0.02  # share of the pixels beyond each bound by quantiles
_APART = 0.05  # difference of two pixels in the prior, by its range, from which on their order counts
_MARGIN = 0.01  # by which the farther pixel shall be farther, in the logarithm of the depth


def depth_loss(
    depth: Float[Tensor, "B H W 1"],
    alpha: Float[Tensor, "B H W 1"],
    prior: Float[Tensor, "B H W"],
    known: Float[Tensor, "B H W"],
    config: DepthLossConfig,
    generator: torch.Generator,
    *,
    inverse: bool,
) -> Float[Tensor, ""]:
    """The loss of B images, a mean over them; neither scale and shift of the prior nor the unit of depth change it.

    Args:
        depth: Expected depth of the renders, > 0 where something is drawn.
        alpha: Their coverage; no gradient flows to it.
        prior: Depth of the same images, or its inverse, up to a scale > 0 and a shift of each.
        known: > 0 where it is known.
        config: Which form; `config.weight` is left to the caller.
        generator: Draws the pairs of `ordinal`, the same in all images.
        inverse: The prior is one over the depth.
    """
    counts = (alpha[..., 0].detach() >= _COVERED) & (known > 0) & (depth[..., 0].detach() > 0)
    drawn = torch.where(counts, depth[..., 0], 1.0)  # finite in every form, without gradient elsewhere
    match config.form:
        case DepthForm.MINMAX | DepthForm.QUANTILE:
            tail = 0.0 if config.form is DepthForm.MINMAX else _TAIL
            measured = 1 / drawn if inverse else drawn
            return _normalised_l1(measured.flatten(1), prior.flatten(1), counts.flatten(1), tail)
        case DepthForm.ORDINAL:
            count = drawn[0].numel()
            pairs = torch.randint(count, (config.pairs, 2), generator=generator).to(drawn.device)
            sign = -1 if inverse else 1
            return _ordinal(drawn.flatten(1), sign * prior.flatten(1), counts.flatten(1), pairs)
        case _:
            assert_never(config.form)


def _normalised_l1(
    drawn: Float[Tensor, "B P"], prior: Float[Tensor, "B P"], counts: Bool[Tensor, "B P"], tail: float
) -> Float[Tensor, ""]:
    """FLAG-4D eq. 9: mean of `|(D - low) / (high - low) - D*|` with `D*` brought to [0, 1] in the same way.

    The bounds are those of the pixels that count, and no gradient flows through them.
    """
    with torch.no_grad():
        low, high = _bounds(drawn, counts, tail)
        size = (drawn.abs() * counts).sum(1) / counts.sum(1).clamp_min(1)
        span = (high - low).clamp_min(_FLAT * size)
        prior_low, prior_high, known = *_bounds(prior, counts, tail), _tells(prior, counts)
        target = (prior - prior_low[:, None]) / torch.where(known, prior_high - prior_low, 1.0)[:, None]
        weights = counts * known[:, None] / counts.sum(1, keepdim=True).clamp_min(1)
    error = ((drawn - low[:, None]) / span[:, None] - target).abs()
    return torch.where(weights > 0, error * weights, 0).sum() / len(drawn)


def _ordinal(
    drawn: Float[Tensor, "B P"], prior: Float[Tensor, "B P"], counts: Bool[Tensor, "B P"], pairs: Int[Tensor, "K 2"]
) -> Float[Tensor, ""]:
    """Mean over the pairs that are apart of max(0, log D(nearer) - log D(farther) + margin)."""
    first, second = pairs.unbind(-1)
    with torch.no_grad():
        low, high = _bounds(prior, counts, _TAIL)
        ahead = prior[:, second] - prior[:, first]
        clear = ahead.abs() > _APART * (high - low)[:, None]
        clear &= counts[:, first] & counts[:, second] & _tells(prior, counts)[:, None]
    logarithm = drawn.log()
    wrong = (logarithm[:, first] - logarithm[:, second]) * ahead.sign() + _MARGIN
    return ((wrong.clamp_min(0) * clear).sum(1) / clear.sum(1).clamp_min(1)).mean()


def _bounds(
    values: Float[Tensor, "B P"], counts: Bool[Tensor, "B P"], tail: float
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The values below and above which a share `tail` of those that count lies; 0 where none counts."""
    ordered = torch.where(counts, values, torch.inf).sort(dim=1).values
    number = counts.sum(1)
    first = (tail * (number - 1).clamp_min(0)).round().long()
    last = ((number - 1).clamp_min(0) - first)[:, None]
    low, high = ordered.gather(1, first[:, None])[:, 0], ordered.gather(1, last)[:, 0]
    return torch.where(number > 0, low, 0), torch.where(number > 0, high, 0)


def _tells(prior: Float[Tensor, "B P"], counts: Bool[Tensor, "B P"]) -> Bool[Tensor, " B"]:
    """Whether the prior of an image differs between pixels by more than rounding."""
    low, high = _bounds(prior, counts, 0.0)
    return high - low > _SAME * torch.maximum(low.abs(), high.abs())
