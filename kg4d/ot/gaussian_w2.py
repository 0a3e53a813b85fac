r"""Squared 2-Wasserstein distance between 2D Gaussians, in closed form and without a matrix root.

Write a covariance as :math:`\Sigma = \frac t2 I + \begin{pmatrix} p & q \\ q & -p \end{pmatrix}` and let
:math:`r = \sqrt{\det \Sigma}`. In two dimensions :math:`\operatorname{tr} (\Sigma_1^{1/2} \Sigma_2
\Sigma_1^{1/2})^{1/2} = s` with :math:`s^2 = t_1 t_2 / 2 + 2 (p_1 p_2 + q_1 q_2) + 2 r_1 r_2`, and since
:math:`t^2 / 4 = r^2 + p^2 + q^2` the Bures term becomes

.. math:: t_1 + t_2 - 2 s = 4 \frac{(r_1 - r_2)^2 + (p_1 - p_2)^2 + (q_1 - q_2)^2}{t_1 + t_2 + 2 s}.

The right side never cancels, is >= 0 as it stands, and has finite gradients at equal and at isotropic covariances,
where the gradient of an eigendecomposition does not exist. KG4D uses the isotropic form only (section 4.3).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

_FLOOR = 1e-12  # of det and s², px⁴: keeps square roots differentiable; renderers' dilation keeps det above 0.09


class _Parts(NamedTuple):
    trace: Float[Tensor, "*batch"]
    root_det: Float[Tensor, "*batch"]
    p: Float[Tensor, "*batch"]  # half the difference of the diagonal entries
    q: Float[Tensor, "*batch"]  # the off-diagonal entry


def gaussian_w2(
    means_a: Float[Tensor, "*#batch 2"],
    covs_a: Float[Tensor, "*#batch 2 2"],
    means_b: Float[Tensor, "*#batch 2"],
    covs_b: Float[Tensor, "*#batch 2 2"],
) -> Float[Tensor, "*#batch"]:
    """Squared 2-Wasserstein distance; leading axes broadcast, so (n, 1) against (m) gives the cost matrix.

    Args:
        means_a: Centres, px.
        covs_a: Covariances, px², symmetric, positive semidefinite.
        means_b: Centres, px.
        covs_b: Covariances, px², symmetric, positive semidefinite.

    Returns:
        px², >= 0. Its gradient is finite, but grows as 1 / sqrt(det) towards degenerate covariances.

    >>> import torch
    >>> gaussian_w2(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]), 4 * torch.eye(2))  # 25 + 2 (2 - 1)²
    tensor(27.)
    """
    a, b = _parts(covs_a), _parts(covs_b)
    gap = (a.root_det - b.root_det).square() + (a.p - b.p).square() + (a.q - b.q).square()
    bures = 4 * gap / (a.trace + b.trace + 2 * _cross_trace(a, b))
    return (means_a - means_b).square().sum(-1) + bures


def gaussian_w2_isotropic(
    means_a: Float[Tensor, "*#batch 2"],
    covs_a: Float[Tensor, "*#batch 2 2"],
    means_b: Float[Tensor, "*#batch 2"],
    covs_b: Float[Tensor, "*#batch 2 2"],
) -> Float[Tensor, "*#batch"]:
    """`gaussian_w2` of the isotropic Gaussians of equal trace: |dmu|² + 2 (sigma_a - sigma_b)² (KG4D section 4.3).

    It is blind to rotation: an ellipse rotated by 90 degrees costs nothing.

    Args:
        means_a: Centres, px.
        covs_a: Covariances, px², symmetric, positive semidefinite; sigma² is half the trace.
        means_b: Centres, px.
        covs_b: Covariances, px², symmetric, positive semidefinite.

    Returns:
        px², >= 0.
    """
    sigma_a, sigma_b = ((_parts(covs).trace / 2).clamp_min(_FLOOR).sqrt() for covs in (covs_a, covs_b))
    return (means_a - means_b).square().sum(-1) + 2 * (sigma_a - sigma_b).square()


def _parts(covs: Float[Tensor, "*batch 2 2"]) -> _Parts:
    xx, xy, _, yy = covs.flatten(-2).unbind(-1)  # not three indices: each would have a backward pass of its own
    return _Parts(xx + yy, (xx * yy - xy.square()).clamp_min(_FLOOR).sqrt(), (xx - yy) / 2, xy)


def _cross_trace(a: _Parts, b: _Parts) -> Float[Tensor, "*batch"]:
    """s = tr (Sigma_a^½ Sigma_b Sigma_a^½)^½."""
    squared = a.trace * b.trace / 2 + 2 * (a.p * b.p + a.q * b.q) + 2 * a.root_det * b.root_det
    return squared.clamp_min(_FLOOR).sqrt()
