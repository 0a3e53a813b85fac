"""The frozen record of activated Gaussians: the currency between rooms."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.covariances import Ellipsoids, ellipsoids_of


@dataclass(frozen=True)
class GaussianState:
    """N Gaussians as a renderer or an exporter wants them: activated, in world units.

    Attributes:
        means: Centres, world units.
        quats: Rotations as quaternions (w, x, y, z); need not be normalised, never zero. None where there are
            covariances.
        scales: Standard deviations along the local axes, world units, > 0. None where there are covariances.
        opacities: In (0, 1).
        colors: RGB as rendered, without what depends on the direction of sight; 0 is black, 1 is white.
        keypoint_logits: Affinity P of each Gaussian to each of the J keypoints (KG4D eq. 7): a softmax over the N
            Gaussians makes a keypoint of them. J may be 0.
        skinning_logits: How far each Gaussian follows each of the K frames of a skinned motion: a softmax over the K
            frames makes its skinning weights. None where the motion has no frames.
        harmonics: Spherical harmonics of degree 1 and above, which add to the colours what depends on the direction of
            sight (`kg4d.geometry.harmonics`): H is 3, 8 or 15. None where colours do not depend on it.
        covariances: Shapes as covariances (xx, xy, xz, yy, yz, zz), squared world units, in place of `quats` and
            `scales`; None where there are those. `ellipsoids` gives quaternions and scales of either.

    Raises:
        ValueError: There is no shape, or there are two.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"] | None
    scales: Float[Tensor, "N 3"] | None
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N 3"]
    keypoint_logits: Float[Tensor, "N J"]
    skinning_logits: Float[Tensor, "N K"] | None = None
    harmonics: Float[Tensor, "N H 3"] | None = None
    covariances: Float[Tensor, "N 6"] | None = None

    def __post_init__(self) -> None:
        check_shape(self.quats, self.scales, self.covariances)

    @property
    def ellipsoids(self) -> Ellipsoids:
        """Rotations and scales; those of covariances are found without history, in an order of their own."""
        return shape_of(self.quats, self.scales, self.covariances)

    def __len__(self) -> int:
        return self.means.shape[0]

    def present(self) -> "GaussianState":
        """Those whose opacity is not exactly 0: Gaussians in space and time are not there at all times."""
        there = self.opacities > 0
        return self if bool(there.all()) else self.map(lambda rows: rows[there])

    def detach(self) -> "GaussianState":
        """The same values without history."""
        return self.map(Tensor.detach)

    def to(self, device: torch.device | str) -> "GaussianState":
        """Move every tensor to `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "GaussianState":
        """The same with `change` applied to every tensor; a change of rows must be the same for all."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


def check_shape(quats: Tensor | None, scales: Tensor | None, covariances: Tensor | None) -> None:
    """Raise ValueError unless there are either quaternions and scales, or covariances."""
    given = [part is not None for part in (quats, scales, covariances)]
    if given not in ([True, True, False], [False, False, True]):
        raise ValueError(f"need quats and scales, or covariances; given: {given}")


def shape_of(quats: Tensor | None, scales: Tensor | None, covariances: Tensor | None) -> Ellipsoids:
    """Rotations and scales, whichever are given; those of covariances are found without history."""
    if quats is not None and scales is not None:
        return Ellipsoids(quats, scales)
    assert covariances is not None  # see `check_shape`
    return ellipsoids_of(covariances)
