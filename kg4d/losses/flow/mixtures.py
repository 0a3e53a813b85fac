"""The mixtures of Gaussians around pixels at two times, which the flow losses compare."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import EPS2D, Gaussians2D, projection_factor
from kg4d.ot.flow_targets import true_factor_map
from kg4d.ot.mixture import mixture_weights
from kg4d.ot.settings import ContributorWeights
from kg4d.render.base import Contributors
from kg4d.render.subset import project_subset


@dataclass(frozen=True)
class PairedMixtures:
    """The mixtures of P pixels at two times: of the same Gaussians at both, or of others looked up anew at the later.

    Attributes:
        weights: Mixture weights at the earlier time, summing to 1 over K (0 is padding).
        covered: Whether enough of the pixel is covered for the mixture to mean anything, 1 or 0.
        earlier: The K Gaussians at the earlier time, px.
        later: The K Gaussians at the later time, px.
        fresh_weights: Weights at the later time where its Gaussians were looked up anew; None where they are the same.
    """

    weights: Float[Tensor, "*P K"]
    covered: Float[Tensor, "*P"]
    earlier: Gaussians2D
    later: Gaussians2D
    fresh_weights: Float[Tensor, "*P K"] | None = None

    @property
    def later_weights(self) -> Float[Tensor, "*P K"]:
        """Mixture weights at the later time."""
        return self.weights if self.fresh_weights is None else self.fresh_weights

    def of_each(self, count: int) -> "PairedMixtures":
        """The pixels of `count` pairs, stored one pair after another, with an axis for the pairs."""
        return self._mapped(lambda values: values.reshape(count, -1, *values.shape[1:]))

    def first(self, count: int) -> "PairedMixtures":
        """The first pixels of each pair."""
        return self._mapped(lambda values: values[:, :count])

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "PairedMixtures":
        earlier, later = (Gaussians2D(change(g.means), change(g.covs)) for g in (self.earlier, self.later))
        fresh = None if self.fresh_weights is None else change(self.fresh_weights)
        return PairedMixtures(change(self.weights), change(self.covered), earlier, later, fresh)


def paired_mixtures(
    contributors: Contributors,
    opacities: Float[Tensor, " N"],
    geometry: MovingGaussians,
    pairs: Int[Tensor, "P 2"],
    cameras: Cameras,
    kind: ContributorWeights,
    fresh: Contributors | None = None,
    eps2d: float = EPS2D,
) -> PairedMixtures:
    """Build the two mixtures around P pixels from the contributors found there at the earlier frame.

    Args:
        contributors: The K Gaussians that weigh most at each pixel.
        opacities: Of all N Gaussians, in (0, 1).
        geometry: Centres, rotations and scales at the B frames of the batch, world units.
        pairs: For each pixel, positions of its earlier and its later frame in the batch.
        cameras: Of the B frames.
        kind: How contributors are weighted inside a mixture.
        fresh: Contributors at the later frame; None to track those of the earlier one.
        eps2d: Variance that the render added to both axes, px².
    """
    count, later = len(pairs), contributors if fresh is None else fresh
    mixture = mixture_weights(contributors.weights, contributors.ids, opacities, kind)
    covered, fresh_weights = mixture.covered, None
    if fresh is not None:
        second = mixture_weights(fresh.weights, fresh.ids, opacities, kind)
        covered, fresh_weights = covered & second.covered, second.weights
    both = project_subset(
        geometry.means,
        geometry.quats,
        geometry.scales,
        cameras,
        torch.cat([contributors.ids, later.ids]),
        pairs.T.flatten(),
        eps2d,
        geometry.covariances,
    )
    return PairedMixtures(
        weights=mixture.weights,
        covered=covered.to(mixture.weights.dtype),
        earlier=Gaussians2D(both.means[:count], both.covs[:count]),
        later=Gaussians2D(both.means[count:], both.covs[count:]),
        fresh_weights=fresh_weights,
    )


def there_too(contributors: Contributors, geometry: MovingGaussians, frames: Int[Tensor, " P"]) -> Contributors:
    """The contributors of P pixels that are there at another frame too; the others become padding.

    Args:
        contributors: K of each pixel.
        geometry: At the B frames of the batch.
        frames: For each pixel, the position of its other frame in the batch.
    """
    if geometry.opacities is None:
        return contributors
    there = geometry.opacities[frames[:, None], contributors.ids.clamp_min(0)] > 0
    return Contributors(contributors.ids.where(there, -1), contributors.weights.where(there, 0.0))


def true_factors(
    contributors: Contributors,
    geometry: MovingGaussians,
    pairs: Int[Tensor, "P 2"],
    cameras: Cameras,
    eps2d: float = EPS2D,
) -> Float[Tensor, "P K 2 2"]:
    """The matrix B_k with which each of P x K contributors carries pixels from its earlier to its later frame.

    It is that of `true_factor_map` (GaussianFlow's B, but exact for flat Gaussians).

    Args:
        contributors: The K Gaussians that weigh most at each pixel.
        geometry: Centres, rotations and scales at the B frames of the batch, world units.
        pairs: For each pixel, positions of its earlier and its later frame in the batch.
        cameras: Of the B frames.
        eps2d: Variance that the render added to both axes, px².
    """
    factors = projection_factor(
        geometry.means, *geometry.ellipsoids, cameras.viewmats, cameras.Ks, cameras.width, cameras.height
    )
    earlier, later = (factors[frame[:, None], contributors.ids.clamp_min(0)] for frame in pairs.T)
    return true_factor_map(earlier, later, eps2d)
