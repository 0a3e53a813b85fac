"""The mixture of Gaussians that makes up a pixel: how its contributors are weighted (KG4D section 4.3)."""

from typing import NamedTuple, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.ot.settings import ContributorWeights


class Mixture(NamedTuple):
    """Weights of the K contributors at P pixels."""

    weights: Float[Tensor, "P K"]  # >= 0, sum to 1 over the contributors of a pixel (0 if it has none), detached
    covered: Bool[Tensor, " P"]  # whether enough of the pixel is covered for its mixture to mean anything


@torch.no_grad()
def mixture_weights(
    weights: Float[Tensor, "P K"],
    ids: Int[Tensor, "P K"],
    opacities: Float[Tensor, " N"],
    kind: ContributorWeights = ContributorWeights.CONTRIBUTION,
    *,
    min_coverage: float = 0.05,
) -> Mixture:
    """Normalised weights of the contributors of each pixel (KG4D section 4.3).

    No gradient flows: through the weights, a loss on motion could be lowered by fading Gaussians out.

    Args:
        weights: Blending weights in [0, 1] of the heaviest contributors.
        ids: Their indices into the N Gaussians; -1 is padding.
        opacities: Opacities of all Gaussians, in (0, 1).
        kind: Which weights to use.
        min_coverage: Least sum of the blending weights of a covered pixel.
    """
    present = ids >= 0
    blending = weights.masked_fill(~present, 0.0)
    coverage = blending.sum(-1)
    match kind:
        case ContributorWeights.CONTRIBUTION:
            normalised = blending / coverage.clamp_min(torch.finfo(weights.dtype).tiny)[:, None]
        case ContributorWeights.OPACITY:
            own = opacities[ids.clamp_min(0)].masked_fill(~present, 0.0)
            normalised = own / own.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        case ContributorWeights.SOFTMAX_OPACITY:
            logits = opacities[ids.clamp_min(0)].masked_fill(~present, -torch.inf)
            normalised = logits.softmax(-1).masked_fill(~present, 0.0)
        case _:
            assert_never(kind)
    return Mixture(normalised, coverage >= min_coverage)
