"""Sparse control points: a few hundred moving frames spread over the object, and Gaussians that follow the nearest.

Sources: SC-GS (Huang et al. 2024, section 4.1) and SC4D (Wu et al. 2024), whose motion this is: a network moves and
turns the control points, and each Gaussian blends the motions of its nearest ones by Gaussian kernels of their radii.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from kg4d.deform.base import Deformation
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp, anchored
from kg4d.deform.settings import ControlPointsConfig
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.point_sets import farthest_points, nearest_neighbours
from kg4d.geometry.rotations import quat_multiply, quat_to_matrix
from kg4d.losses.motion_priors import arap_loss, neighbour_weights
from kg4d.optim.objective import Objective


class _Nearest(NamedTuple):
    means: Float[Tensor, "N 3"]  # for which the rest holds
    version: int  # of that tensor: an optimiser changes it in place
    squared: Float[Tensor, "N K"]
    ids: Int[Tensor, "N K"]


class _Edges(NamedTuple):
    means: Float[Tensor, "M 3"]  # as above, of the control points themselves
    version: int
    ids: Int[Tensor, "M E"]
    weights: Float[Tensor, "M E"]


class ControlPoints(Deformation):
    """M frames that a network moves; Gaussians follow the K nearest at rest.

    A frame at p that turns by R and goes by t carries x to R (x - p) + p + t.

    Attributes:
        rest: Positions of the control points at rest, world units.
        log_radii: Logarithm of the width of each one's kernel.
    """

    rest: Tensor

    def __init__(
        self,
        config: ControlPointsConfig,
        means: Float[Tensor, "N 3"],
        encoding: HSE,
        mlp: OffsetMlp,
        anchor_first: bool,
        learning_rate: float,
    ) -> None:
        """Control points are spread over `means`; radii start as their distance to the nearest other one.

        Raises:
            ValueError: There are not as many Gaussians, fewer than two points, or no neighbour is asked for.
        """
        super().__init__()
        if config.neighbours < 1 or not 2 <= config.count <= len(means):
            raise ValueError(
                f"a Gaussian follows at least one neighbour of two to {len(means)} control points (one a Gaussian),"
                f" not {config.neighbours} of {config.count}"
            )
        self.learning_rate = learning_rate
        self.arap = config.arap
        self.neighbours = min(config.neighbours, config.count)
        self.encoding, self.mlp, self.anchor_first = encoding, mlp, anchor_first
        self.register_buffer("rest", means.detach()[farthest_points(means, config.count)].clone())
        apart = torch.cdist(self.rest, self.rest).fill_diagonal_(torch.inf).amin(-1)
        radius = float(encoding.extent.radius)
        self.log_radii = nn.Parameter(apart.clamp(1e-3 * radius, radius).log())
        self._nearest: _Nearest | None = None
        self._edges: _Edges | None = None

    def positions(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B M 3"]:
        """Where the control points are, world units."""
        return self.rest + self._motion(times)[..., :3]

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Let the control points move as rigidly as possible at the times of the batch."""
        if self.arap.weight <= 0:
            return
        known = self._edges
        if known is None or known.means is not self.rest or known.version != self.rest._version:
            near = nearest_neighbours(self.rest, min(self.arap.neighbours, len(self.rest) - 1))
            known = self._edges = _Edges(self.rest, self.rest._version, near.ids, neighbour_weights(near.distances))
        loss = arap_loss(self.positions(times), self.rest, known.ids, known.weights)
        objective.add("arap", loss, self.arap.weight)

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`."""
        motion = self._motion(times)
        translations, rotations = motion[..., :3], motion[..., 3:]
        quats = normalize(torch.cat([rotations[..., :1] + 1, rotations[..., 1:]], dim=-1), dim=-1)
        change = quat_to_matrix(quats) - torch.eye(3, dtype=quats.dtype, device=quats.device)
        offsets = translations - (change @ self.rest[..., None])[..., 0]
        table = torch.cat([change.flatten(2), offsets, quats], dim=-1).movedim(0, 1).flatten(1)
        ids, weights = self._followed(canonical.means)
        blended = embedding_bag(ids, table, per_sample_weights=weights, mode="sum")
        change, offsets, quats = torch.split(blended.reshape(len(ids), len(times), 16).movedim(0, 1), [9, 3, 4], dim=-1)
        rotated = (change.reshape(*change.shape[:2], 3, 3) @ canonical.means[..., None])[..., 0]
        own = canonical.ellipsoids
        return MovingGaussians(
            canonical,
            means=canonical.means + rotated + offsets,
            quats=quat_multiply(normalize(quats, dim=-1), own.quats),
            scales=own.scales.expand(len(times), -1, -1),
        )

    def _motion(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B M 7"]:
        """Translations, and what is added to the identity quaternion."""
        space = self.encoding.space(self.rest)

        def motion_at(times: Float[Tensor, " R"]) -> Float[Tensor, "R M 7"]:
            motion: Tensor = self.mlp(space, self.encoding.time(times))
            return motion

        return anchored(motion_at, times) if self.anchor_first else motion_at(times)

    def _followed(self, means: Float[Tensor, "N 3"]) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
        """The control points that each Gaussian follows, and their weights in it: normalised Gaussian kernels."""
        known = self._nearest
        # the Gaussians rest while the motion is learned: one search serves all steps
        if known is None or known.means is not means or known.version != means._version:
            squared, ids = torch.cdist(means.detach(), self.rest).square().topk(self.neighbours, largest=False)
            known = self._nearest = _Nearest(means, means._version, squared, ids)
        return known.ids, (-known.squared / (2 * (2 * self.log_radii).exp()[known.ids])).softmax(-1)
