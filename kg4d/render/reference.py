"""The renderer in plain torch: exact, differentiable by autograd, slow. For tests and machines without a compiler.

EWA splatting (Zwicker et al. 2002; Kerbl et al. 2023) with the rules of gsplat 1.5.3. Runs in float32 or float64.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.covariances import unpacked
from kg4d.geometry.harmonics import seen_colors
from kg4d.geometry.rotations import quat_to_matrix
from kg4d.render.base import Contributors, RasterOptions, RenderOutput
from kg4d.render.blending import MIN_ALPHA, Projections, Splats, blend_weights, contributors_at
from kg4d.render.frames import Frames, draw_one_by_one
from kg4d.render.inputs import check_inputs, check_inputs_finite

_TILE = 16  # pixels are blended in squares of this side, each with the splats whose box reaches it
_MAX_EXTENT = 3.33  # half extent of a splat, standard deviations


class ReferenceRenderer:
    """Plain torch; any device that torch has, float32 or float64."""

    name = "reference"
    reason = "asked for"
    options = RasterOptions()

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(
        self,
        gaussians: GaussianState,
        cameras: Cameras,
        *,
        features: Float[Tensor, "N D"] | Float[Tensor, "C N D"] | None = None,
        background: Float[Tensor, " D"] | Float[Tensor, "C D"] | None = None,
        depth: bool = False,
        absgrad: bool = False,
        options: RasterOptions | None = None,
    ) -> RenderOutput:
        """See `kg4d.render.base.Renderer`; float64 inputs are taken as well."""
        options = options or self.options
        dtypes = (torch.float32, torch.float64)
        inputs = check_inputs(gaussians, cameras, features, background, options, device=self.device, dtypes=dtypes)
        check_inputs_finite(gaussians, cameras, inputs)
        features = inputs.features
        if inputs.harmonics is not None:
            features = seen_colors(features, inputs.harmonics, gaussians.means, cameras.centers)
        projected = _project(gaussians, cameras, options)
        if projected.means2d.requires_grad:
            projected.means2d.retain_grad()
        images = []
        for camera in range(len(cameras)):
            own = features[camera] if features.dim() == 3 else features
            channels = torch.cat([own, projected.depths[camera][:, None]], dim=-1)
            seen = _front_to_back(projected, camera)
            images.append(_blend_image(projected, camera, seen, channels, (cameras.width, cameras.height), absgrad))
        stacked, alpha = (torch.stack(parts) for parts in zip(*images, strict=True))
        image = stacked[..., :-1]
        if inputs.background is not None:
            image = image + (1 - alpha) * inputs.background[:, None, None]
        expected = stacked[..., -1:] / alpha.clamp_min(1e-10) if depth else None
        kept = projected.detach()
        return RenderOutput(image, alpha, expected, projected.means2d, projected.radii, options, kept)

    def frames(
        self,
        gaussians: MovingGaussians,
        cameras: Cameras,
        *,
        features: Float[Tensor, "N D"] | Float[Tensor, "B N D"] | None = None,
        background: Float[Tensor, " D"] | None = None,
        depth: bool = False,
        options: RasterOptions | None = None,
    ) -> RenderOutput:
        """See `kg4d.render.base.Renderer`."""
        return draw_one_by_one(self, gaussians, cameras, features, background, depth, options or self.options)

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        if isinstance(output.handle, Frames):
            return output.handle.contributors(self, camera_ids, pixels, k)
        if not isinstance(output.handle, Projections):
            raise ValueError("this output comes from another renderer")
        return contributors_at(output.handle, camera_ids, pixels.to(output.image.dtype), k)


def _project(gaussians: GaussianState, cameras: Cameras, options: RasterOptions) -> Projections:
    rotation, translation = cameras.viewmats[:, None, :3, :3], cameras.viewmats[:, None, :3, 3]
    local = (rotation @ gaussians.means[:, :, None])[..., 0] + translation
    depths = local[..., 2]
    visible = (depths >= options.near) & (depths <= options.far) & (depths > 0)
    z = torch.where(visible, depths, 1.0)
    fx, fy, cx, cy = (cameras.Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    u, v = local[..., 0] / z, local[..., 1] / z
    means2d = torch.stack([fx * u + cx, fy * v + cy], dim=-1)
    margin_x, margin_y = 0.15 * cameras.width / fx, 0.15 * cameras.height / fy
    u = u.clamp(-cx / fx - margin_x, (cameras.width - cx) / fx + margin_x)
    v = v.clamp(-cy / fy - margin_y, (cameras.height - cy) / fy + margin_y)
    zero = torch.zeros_like(u)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).reshape(*z.shape, 2, 3)
    sharp, det_sharp = _flattened(jacobian @ rotation, gaussians)
    xx, xy, yy = sharp[..., 0, 0] + options.eps2d, sharp[..., 0, 1], sharp[..., 1, 1] + options.eps2d
    det = det_sharp + options.eps2d * (sharp[..., 0, 0] + sharp[..., 1, 1] + options.eps2d)
    visible = visible & (det > 0)
    det = torch.where(det > 0, det, 1.0)
    opacities = gaussians.opacities.expand_as(z)
    if options.antialiased:
        opacities = opacities * (det_sharp / det).clamp_min(torch.finfo(det.dtype).tiny).sqrt()
    conics = torch.stack([yy / det, -xy / det, xx / det], dim=-1)
    with torch.no_grad():
        extent = (2 * (opacities.clamp_min(MIN_ALPHA) / MIN_ALPHA).log()).sqrt().clamp_max(_MAX_EXTENT)
        radii = torch.ceil(extent[..., None] * torch.stack([xx, yy], dim=-1).sqrt())
        reaches = (means2d + radii > 0) & (means2d - radii < means2d.new_tensor([cameras.width, cameras.height]))
        shown = visible & (opacities >= MIN_ALPHA) & (radii > options.radius_clip).any(-1) & reaches.all(-1)
        radii = torch.where(shown[..., None], radii, 0.0).to(torch.int32)
    return Projections(means2d, conics, opacities, depths, radii, (cameras.width, cameras.height))


def _flattened(
    plane: Float[Tensor, "C N 2 3"], gaussians: GaussianState
) -> tuple[Float[Tensor, "C N 2 2"], Float[Tensor, "C N"]]:
    """Covariances that a linear map makes flat, and their determinants."""
    if gaussians.covariances is not None:
        sharp = plane @ unpacked(gaussians.covariances) @ plane.mT
        return sharp, (sharp[..., 0, 0] * sharp[..., 1, 1] - sharp[..., 0, 1].square()).clamp_min(0)
    quats, scales = gaussians.ellipsoids
    factor = plane @ (quat_to_matrix(quats) * scales[:, None])
    across = torch.linalg.cross(factor[..., 0, :], factor[..., 1, :])  # a sum of squares: nothing cancels
    return factor @ factor.mT, across.square().sum(-1)


def _front_to_back(projected: Projections, camera: int) -> Splats:
    shown = (projected.radii[camera] > 0).all(-1).nonzero()[:, 0]
    ids = shown[projected.depths[camera, shown].argsort(stable=True)]
    own = (projected.means2d, projected.conics, projected.opacities)
    return Splats(ids, *(values[camera, ids] for values in own))


def _blend_image(
    projected: Projections,
    camera: int,
    splats: Splats,
    channels: Float[Tensor, "N D"],
    size: tuple[int, int],
    absgrad: bool,
) -> tuple[Float[Tensor, "H W D"], Float[Tensor, "H W 1"]]:
    radii = projected.radii[camera, splats.ids].to(channels.dtype)
    low, high = splats.means2d.detach() - radii, splats.means2d.detach() + radii
    rows = []
    for top in range(0, size[1], _TILE):
        tiles = []
        for left in range(0, size[0], _TILE):
            right, bottom = min(left + _TILE, size[0]), min(top + _TILE, size[1])
            reach = (low < low.new_tensor([right, bottom])) & (high > high.new_tensor([left, top]))
            near = reach.all(-1).nonzero()[:, 0]
            local = Splats(*(values[near] for values in splats))
            ys, xs = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
            pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(channels) + 0.5
            means2d = local.means2d.expand(len(pixels), -1, -1)
            if absgrad and means2d.requires_grad:
                means2d.register_hook(_collect_absolute(projected.means2d, camera, local.ids))  # type: ignore[no-untyped-call]
            weights, transmittance = blend_weights(pixels, means2d, local)
            blended = torch.cat([weights @ channels[local.ids], 1 - transmittance[:, None]], dim=-1)
            tiles.append(blended.reshape(bottom - top, right - left, -1))
        rows.append(torch.cat(tiles, dim=1))
    image = torch.cat(rows, dim=0)
    return image[..., :-1], image[..., -1:]


class _collect_absolute:  # noqa: N801  # used like a function
    """Gradient hook that adds the absolute values of per-pixel gradients to `means2d.absgrad`."""

    def __init__(self, means2d: Tensor, camera: int, ids: Tensor) -> None:
        self.means2d, self.camera, self.ids = means2d, camera, ids

    def __call__(self, gradient: Float[Tensor, "P n 2"]) -> None:
        total = getattr(self.means2d, "absgrad", None)
        if total is None:
            total = torch.zeros_like(self.means2d, requires_grad=False)
            self.means2d.absgrad = total  # type: ignore[attr-defined]
        total[self.camera].index_add_(0, self.ids, gradient.abs().sum(0))
