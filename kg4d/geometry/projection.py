"""Perspective projection of 3D Gaussians to 2D Gaussians in the image (EWA splatting).

Source: Zwicker et al. 2002, "EWA splatting", in the form of gsplat 1.5: the same clamp and the same dilation, so that
losses on these 2D Gaussians see what the renderers draw. KG4D writes one constant 2x3 matrix Q for all Gaussians
(section 4.3); it is several pixels off at the camera distances used here, so each Gaussian has its own Jacobian.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.cameras import image_size
from kg4d.geometry.covariances import unpacked
from kg4d.geometry.rotations import quat_to_matrix

EPS2D = 0.3  # px², what gsplat and the renderers here add to both axes unless told otherwise
_MIN_DEPTH = 0.01  # the near plane of the renderers: what is nearer is never drawn, here it only must stay finite


class Gaussians2D(NamedTuple):
    """Gaussians in the image plane."""

    means: Float[Tensor, "*batch 2"]  # px, (x right, y down); the centre of the top left pixel is (0.5, 0.5)
    covs: Float[Tensor, "*batch 2 2"]  # px², symmetric


def projection_factor(
    means: Float[Tensor, "*batch 3"],
    quats: Float[Tensor, "*batch 4"],
    scales: Float[Tensor, "*batch 3"],
    viewmat: Float[Tensor, "*C 4 4"],
    K: Float[Tensor, "*C 3 3"],
    width: int,
    height: int,
) -> Float[Tensor, "*batch 2 3"]:
    """The factor M = J W R diag(s) of the projected covariance, px: without dilation, cov = M Mᵀ.

    J is the Jacobian of the perspective division at the centre, W the rotation of the camera, R and s the rotation and
    the scales of the Gaussian. Inside J, x/z and y/z are clamped to the image widened by 15 % of its extent on each
    side (Zwicker et al. 2002, with gsplat's clamp).

    Args:
        means: Centres, world units.
        quats: Rotations (w, x, y, z), any norm but zero.
        scales: Standard deviations along the local axes, world units.
        viewmat: World-to-camera matrix, OpenCV axes; its leading axes, if any, are the first ones of the Gaussians.
        K: Intrinsics in pixels, likewise.
        width: Image width in pixels.
        height: Image height in pixels.
    """
    plane = _plane(_to_camera(means, viewmat), viewmat, K, width, height)
    return plane @ (quat_to_matrix(quats) * scales[..., None, :])


def project_gaussians(
    means: Float[Tensor, "*batch 3"],
    quats: Float[Tensor, "*batch 4"],
    scales: Float[Tensor, "*batch 3"],
    viewmat: Float[Tensor, "*C 4 4"],
    K: Float[Tensor, "*C 3 3"],
    width: int,
    height: int,
    *,
    eps2d: float = EPS2D,
) -> Gaussians2D:
    """Project Gaussians into one camera, differentiably (Zwicker et al. 2002).

    Args:
        means: Centres, world units. Depths below 0.01 are taken as 0.01; check them before trusting the result.
        quats: Rotations (w, x, y, z), any norm but zero.
        scales: Standard deviations along the local axes, world units.
        viewmat: World-to-camera matrix, OpenCV axes; its leading axes, if any, are the first ones of the Gaussians.
        K: Intrinsics in pixels, likewise.
        width: Image width in pixels.
        height: Image height in pixels.
        eps2d: Variance added to both axes, px², as the renderers do.

    Returns:
        Centres and covariances in pixels.
    """
    factor = projection_factor(means, quats, scales, viewmat, K, width, height)
    return _in_image(_to_camera(means, viewmat), K, factor @ factor.mT, eps2d)


def project_covariances(
    means: Float[Tensor, "*batch 3"],
    covariances: Float[Tensor, "*batch 6"],
    viewmat: Float[Tensor, "*C 4 4"],
    K: Float[Tensor, "*C 3 3"],
    width: int,
    height: int,
    *,
    eps2d: float = EPS2D,
) -> Gaussians2D:
    """Project Gaussians whose shapes are covariances (xx, xy, xz, yy, yz, zz); else as `project_gaussians` does."""
    local = _to_camera(means, viewmat)
    plane = _plane(local, viewmat, K, width, height)
    return _in_image(local, K, plane @ unpacked(covariances) @ plane.mT, eps2d)


def _in_image(
    local: Float[Tensor, "*batch 3"], K: Float[Tensor, "*C 3 3"], covs: Float[Tensor, "*batch 2 2"], eps2d: float
) -> Gaussians2D:
    pixels = (local @ K.mT)[..., :2] / local[..., 2:]
    return Gaussians2D(pixels, covs + eps2d * torch.eye(2, dtype=local.dtype, device=local.device))


def _plane(
    local: Float[Tensor, "*batch 3"],
    viewmat: Float[Tensor, "*C 4 4"],
    K: Float[Tensor, "*C 3 3"],
    width: int,
    height: int,
) -> Float[Tensor, "*batch 2 3"]:
    """J W: what carries a small step in the world to one in the image, px per world unit."""
    rotation = viewmat[..., :3, :3]
    rotation = rotation if rotation.dim() == 2 else rotation[..., None, :, :]
    return _perspective_jacobian(local, K, width, height) @ rotation


def _to_camera(means: Float[Tensor, "*batch 3"], viewmat: Float[Tensor, "*C 4 4"]) -> Float[Tensor, "*batch 3"]:
    local = means @ viewmat[..., :3, :3].mT + _for_each(viewmat[..., :3, 3])
    return torch.cat([local[..., :2], local[..., 2:].clamp_min(_MIN_DEPTH)], dim=-1)


def _for_each(values: Float[Tensor, "*C n"]) -> Float[Tensor, "*_ n"]:
    """Values of one camera, or of several with an axis for the Gaussians that each of them sees."""
    return values if values.dim() == 1 else values[..., None, :]


def _perspective_jacobian(
    local: Float[Tensor, "*batch 3"], K: Float[Tensor, "*C 3 3"], width: int, height: int
) -> Float[Tensor, "*batch 2 3"]:
    """d pixel / d camera-space point, at directions clamped as gsplat does."""
    size = image_size(K, width, height)
    focal, center = _for_each(K.diagonal(dim1=-2, dim2=-1)[..., :2]), _for_each(K[..., :2, 2])
    margin = 0.3 * size / (2 * focal)
    z = local[..., 2:]
    slope = (local[..., :2] / z).clamp(-center / focal - margin, (size - center) / focal + margin)
    return torch.cat([torch.diag_embed(focal / z), (-focal * slope / z)[..., None]], dim=-1)
