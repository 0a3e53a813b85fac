"""Gaussians in space and time as the parameters that training changes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.gaussians.model import color_groups
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.rows import GaussianRows
from kg4d.gaussians.slicing import Spacetime, sliced, spacetime_axes
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.covariances import covariances_of, unpacked
from kg4d.geometry.rotations4 import matrix_to_pair
from kg4d.optim.build import ParameterGroup


class SpacetimeModel(GaussianRows):
    """N Gaussians in R^4.

    Attributes:
        means: (N, 4): x, y, z in world units, and the time.
        left: (N, 4), quaternions that need not be normalised, with `right` the rotation of R^4.
        right: (N, 4).
        log_scales: (N, 4).
        opacity_logits: (N,).
        colors: (N, 3), as rendered, without what depends on the direction of sight or on the time.
        harmonics: (N, H, 3), as in `GaussianModel`.
        waves: (N, 2 F, 3): what the colours add to themselves along time, cosines and sines of F frequencies.
        keypoint_logits: (N, J).
        origins: (N, 3): where each started, in space; nothing fits them.
    """

    NAMES = (
        *("means", "left", "right", "log_scales", "opacity_logits"),
        *("colors", "harmonics", "waves", "keypoint_logits", "origins"),
    )
    left: nn.Parameter
    right: nn.Parameter
    colors: nn.Parameter
    harmonics: nn.Parameter
    waves: nn.Parameter
    keypoint_logits: nn.Parameter
    origins: nn.Parameter

    @classmethod
    def from_moving(
        cls, moving: MovingGaussians, times: Float[Tensor, " B"], deviation: float, waves: int = 0
    ) -> "SpacetimeModel":
        """A Gaussian in space and time for each of N Gaussians at each of B times, B N in all.

        At its time each is the given one, in shape and place, and moves with the given velocity.

        Args:
            moving: At the B times, with velocities, or at rest where it has none.
            times: When.
            deviation: Standard deviation along time of each, > 0.
            waves: Number F of frequencies of the colours, which start without.
        """
        states = moving.states()
        velocities = torch.zeros_like(moving.means) if moving.velocities is None else moving.velocities
        shapes = [_in_spacetime(state, v, deviation) for state, v in zip(states, velocities, strict=True)]
        one, centres = states[0], torch.cat([state.means for state in states])
        count = len(centres)

        when = times.to(one.means).repeat_interleave(len(one))[:, None]
        harmonics = [one.means.new_zeros(len(one), 0, 3) if s.harmonics is None else s.harmonics for s in states]
        left, right, scales = (torch.cat(parts) for parts in zip(*shapes, strict=True))
        return cls(
            {
                "means": torch.cat([centres, when], dim=-1),
                "left": left,
                "right": right,
                "log_scales": scales.log(),
                "opacity_logits": torch.logit(torch.cat([state.opacities for state in states]), eps=1e-6),
                "colors": torch.cat([state.colors for state in states]),
                "harmonics": torch.cat(harmonics),
                "waves": one.means.new_zeros(count, 2 * waves, 3),
                "keypoint_logits": torch.cat([state.keypoint_logits for state in states]),
                "origins": centres,
            }
        )

    @torch.no_grad()
    def rows(self, chosen: Int[Tensor, " n"]) -> "SpacetimeModel":
        """A copy of some of the Gaussians, which learns nothing until it is asked to."""
        copied = SpacetimeModel({name: self.get_parameter(name)[chosen] for name in self.NAMES})
        return copied.requires_grad_(False)

    @torch.no_grad()
    def joined(self, other: "SpacetimeModel") -> "SpacetimeModel":
        """A copy of these Gaussians and then others, which learns nothing until it is asked to."""
        both = {name: torch.cat([self.get_parameter(name), other.get_parameter(name)]) for name in self.NAMES}
        return SpacetimeModel(both).requires_grad_(False)

    @torch.no_grad()
    def lifetimes(self, least_weight: float) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Between which times each Gaussian is there: where its temporal weight is `least_weight` or more."""
        reach = self._durations() * math.sqrt(-2 * math.log(max(least_weight, 1e-12)))
        return self.means[:, 3] - reach, self.means[:, 3] + reach

    def _durations(self) -> Float[Tensor, " N"]:
        """Standard deviations along time."""
        durations: Tensor = spacetime_axes(self.activated())[:, 3].norm(dim=-1)
        return durations

    def activated(self, only: Int[Tensor, " n"] | None = None) -> Spacetime:
        """What is sliced, differentiable; `only` some of the Gaussians, or all."""
        parts = (self.means, self.left, self.right, self.log_scales, self.opacity_logits)
        means, left, right, log_scales, logits = parts if only is None else (part[only] for part in parts)
        return Spacetime(means, left, right, log_scales.exp(), logits.sigmoid())

    def states(
        self, times: Float[Tensor, " B"], least_weight: float, only: Int[Tensor, " n"] | None = None
    ) -> MovingGaussians:
        """The Gaussians at times; `only` some of them, or all.

        Args:
            times: Any.
            least_weight: Of time, below which a Gaussian is not there.
            only: Indices.
        """
        gaussians, count = self.activated(only), len(times)
        slices = sliced(gaussians, times, least_weight)
        colors, harmonics, waves, logits = (
            part if only is None else part[only]
            for part in (self.colors, self.harmonics, self.waves, self.keypoint_logits)
        )

        def at_all(values: Tensor) -> Tensor:  # what `expand` gives sums its gradient, even over a single time
            return values[None] if count == 1 else values.expand(count, -1, -1)

        base = GaussianState(
            means=gaussians.means[:, :3],
            quats=None,
            scales=None,
            covariances=slices.covariances,
            opacities=gaussians.opacities,
            colors=colors,
            harmonics=harmonics if harmonics.shape[1] else None,
            keypoint_logits=logits,
        )
        return MovingGaussians(
            base,
            slices.means,
            quats=None,
            scales=None,
            covariances=at_all(slices.covariances),
            colors=None if waves.shape[1] == 0 else colors + torch.einsum("bf,nfc->bnc", _waves(waves, times), waves),
            opacities=slices.opacities,
            velocities=at_all(slices.velocities),
        )

    @torch.no_grad()
    def pieces(self, least_weight: float) -> Pieces:
        """Each at its own time; the colours are those without what changes them along time.

        Args:
            least_weight: As for `states`.
        """
        slices = sliced(self.activated(), self.means.new_zeros(0))
        state = GaussianState(
            means=self.means[:, :3],
            quats=None,
            scales=None,
            covariances=slices.covariances,
            opacities=self.opacity_logits.sigmoid(),
            colors=self.colors,
            harmonics=self.harmonics if self.harmonics.shape[1] else None,
            keypoint_logits=self.keypoint_logits,
        )
        return Pieces(state.detach(), self.means[:, 3].detach(), self._durations(), slices.velocities, least_weight)

    def color_groups(self, rate: float) -> list[ParameterGroup]:
        """The colours, and the harmonics where there are any.

        Args:
            rate: Of the colours.
        """
        return color_groups(self.colors, self.harmonics, rate)

    @torch.no_grad()
    def draws(self, rows: Int[Tensor, " M"], generator: torch.Generator) -> Float[Tensor, "M 4"]:
        """A point of space and time drawn from each of the given Gaussians, relative to its centre."""
        normal = torch.randn(len(rows), 4, generator=generator).to(self.means)
        drawn: Tensor = (spacetime_axes(self.activated(rows)) @ normal[..., None])[..., 0]
        return drawn

    @torch.no_grad()
    def extents(self) -> Float[Tensor, " N"]:
        """The longest axis of each in space, at any time."""
        shapes = sliced(self.activated(), self.means.new_zeros(0)).covariances
        longest: Tensor = torch.linalg.eigvalsh(unpacked(shapes))[:, -1]
        return longest.clamp_min(0).sqrt()


def _waves(waves: Float[Tensor, "N F2 3"], times: Float[Tensor, " B"]) -> Float[Tensor, "B F2"]:
    """Cosines and sines of whole numbers of cycles along the clip."""
    cycles = torch.arange(1, waves.shape[1] // 2 + 1, device=times.device)
    angles = 2 * math.pi * times[:, None] * cycles
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@torch.no_grad()
def _in_spacetime(
    state: GaussianState, velocities: Float[Tensor, "N 3"], deviation: float
) -> tuple[Float[Tensor, "N 4"], Float[Tensor, "N 4"], Float[Tensor, "N 4"]]:
    """Rotations of R^4 and scales of Gaussians of given shapes that move at given velocities."""
    shape = covariances_of(*state.ellipsoids) if state.covariances is None else state.covariances
    variance = deviation**2
    covariances = shape.new_zeros(len(state), 4, 4)
    covariances[:, :3, :3] = unpacked(shape) + variance * velocities[:, :, None] * velocities[:, None]
    covariances[:, :3, 3] = covariances[:, 3, :3] = variance * velocities
    covariances[:, 3, 3] = variance
    variances, axes = torch.linalg.eigh(covariances.double())
    axes[..., 0] *= torch.linalg.det(axes).sign()[:, None]  # a rotation, no mirror
    left, right = matrix_to_pair(axes)
    scales = variances.clamp_min(1e-12).sqrt()
    return left.to(shape), right.to(shape), scales.to(shape)
