"""The Frechet (2-Wasserstein) distance between Gaussians fitted to two sets of features, in float64.

Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6; Dowson & Landau 1982.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def frechet_distance(features_a: Float[Tensor, "N D"], features_b: Float[Tensor, "M D"]) -> Float[Tensor, ""]:
    r"""Squared distance :math:`|\mu_a - \mu_b|^2 + \mathrm{tr}(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2})`.

    The trace of the root is the nuclear norm of :math:`A B^T`, with A and B the centred features over
    :math:`\sqrt{N - 1}`. That is exact for few samples, where a matrix square root loses half its digits, and needs
    no offset on the diagonal.

    Args:
        features_a: One row a sample.
        features_b: One row a sample; the number of samples may differ.

    Returns:
        A float64 scalar >= 0. With fewer samples than dimensions it is biased upwards: see `sample_warning`.

    Raises:
        ValueError: A set has fewer than two samples, so that it has no covariance, or a value is not finite.

    >>> frechet_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [7.0]])).round(decimals=6)
    tensor(24., dtype=torch.float64)
    """
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError(f"need at least 2 samples a side, got {len(features_a)} and {len(features_b)}")
    a, b = features_a.double(), features_b.double()
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features must be finite")
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    distance = (a.mean(0) - b.mean(0)).square().sum() + root_a.square().sum() + root_b.square().sum()
    cross: Tensor = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return (distance - 2 * cross).clamp_min(0)


def _covariance_root(features: Float[Tensor, "N D"]) -> Float[Tensor, "n D"]:
    """R with R^T R equal to the unbiased covariance, and at most D rows."""
    root: Tensor = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r").R
    return root


def covariance_rank(features: Float[Tensor, "N D"]) -> int:
    """Rank of the covariance: at most one less than the number of samples, and less where samples repeat.

    >>> covariance_rank(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]))
    1
    """
    centred = features.double() - features.double().mean(0)
    return int(torch.linalg.matrix_rank(centred, rtol=1e-6))  # the features were float32


def sample_warning(samples: int, dimensions: int) -> str | None:
    """Why a Frechet distance from so few samples must not be read as an absolute number; None if there are enough.

    >>> sample_warning(4, 400)
    '4 samples in 400 dimensions: covariance of rank 3 at most, biased upwards, compare only at equal sample counts'
    >>> sample_warning(500, 400)
    """
    if samples > dimensions:
        return None
    return (
        f"{samples} samples in {dimensions} dimensions: covariance of rank {samples - 1} at most, "
        "biased upwards, compare only at equal sample counts"
    )


class FrechetDistance(Metric):
    """`frechet_distance` between all features of one side and all of the other; keeps them, as they are few."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    features_a: list[Tensor]
    features_b: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("features_a", [], dist_reduce_fx="cat")
        self.add_state("features_b", [], dist_reduce_fx="cat")

    def update(self, features_a: Float[Tensor, "N D"], features_b: Float[Tensor, "M D"]) -> None:
        """Add samples to both sides."""
        self.features_a.append(features_a.detach())
        self.features_b.append(features_b.detach())

    def compute(self) -> Float[Tensor, ""]:
        """The distance so far."""
        return frechet_distance(dim_zero_cat(self.features_a), dim_zero_cat(self.features_b))
