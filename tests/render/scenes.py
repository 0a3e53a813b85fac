"""Small scenes that all renderers draw, and gradients of one loss on them."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import RasterOptions, Renderer, RenderOutput
from tests import make


@dataclass
class Case:
    """One render call in float64; `on` gives it to a renderer in its dtype and device with fresh leaves."""

    gaussians: GaussianState
    cameras: Cameras
    features: Tensor | None  # None draws the colours
    background: Tensor | None = None
    depth: bool = False
    absgrad: bool = False
    options: RasterOptions = field(default_factory=RasterOptions)

    def on(self, renderer: Renderer, dtype: torch.dtype = torch.float32) -> "Case":
        def leaf(tensor: Tensor) -> Tensor:
            return tensor.to(renderer.device, dtype, copy=True).requires_grad_()

        cameras = replace(
            self.cameras, viewmats=leaf(self.cameras.viewmats), Ks=self.cameras.Ks.to(renderer.device, dtype)
        )
        background = None if self.background is None else leaf(self.background)
        return replace(
            self,
            gaussians=self.gaussians.map(leaf),
            cameras=cameras,
            features=None if self.features is None else leaf(self.features),
            background=background,
        )

    def render(self, renderer: Renderer) -> RenderOutput:
        return renderer(
            self.gaussians,
            self.cameras,
            features=self.features,
            background=self.background,
            depth=self.depth,
            absgrad=self.absgrad,
            options=self.options,
        )


def random_case(
    *,
    count: int = 200,
    width: int = 45,
    height: int = 38,
    cameras: int = 1,
    channels: int = 3,
    per_camera: bool = False,
    seed: int = 0,
    **rest: object,
) -> Case:
    """Thin and thick Gaussians in a ball before cameras on a ring; float64."""
    g = torch.Generator().manual_seed(seed)
    f64 = torch.float64
    means = torch.randn(count, 3, generator=g, dtype=f64) * 0.5
    scales = 0.09 * torch.exp(0.6 * torch.randn(count, 3, generator=g, dtype=f64)) * torch.tensor([1.0, 1.0, 0.3])
    gaussians = make.gaussians(
        means,
        quats=torch.randn(count, 4, generator=g, dtype=f64),
        scales=scales,
        opacities=torch.sigmoid(0.5 + 1.5 * torch.randn(count, generator=g, dtype=f64)),
        colors=torch.rand(count, 3, generator=g, dtype=f64),
    )
    shape = (cameras, count, channels) if per_camera else (count, channels)
    return Case(
        gaussians,
        ring(cameras, width, height),
        torch.randn(*shape, generator=g, dtype=f64),
        torch.rand(cameras, channels, generator=g, dtype=f64),
        **rest,  # type: ignore[arg-type]
    )


def ring(count: int, width: int, height: int, distance: float = 3.0) -> Cameras:
    """Cameras around the y axis that look at the origin; float64."""
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for i in range(count):
        angle = 0.3 + 2 * math.pi * i / count
        c, s = math.cos(angle), math.sin(angle)
        viewmats[i, :3, :3] = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
        viewmats[i, 2, 3] = distance
    K = torch.tensor([[1.2 * width, 0.0, width / 2], [0.0, 1.1 * width, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(viewmats, K.double().repeat(count, 1, 1), width, height)


def one_gaussian(mean: tuple[float, float, float] = (0.0, 0.0, 2.0), scale: float = 0.2, opacity: float = 0.8) -> Case:
    """One white ball on the axis of one camera at the origin: 33 x 33 px, the middle pixel's centre on the axis."""
    f64 = torch.float64
    gaussians = make.gaussians(torch.tensor([mean], dtype=f64), scales=scale, opacities=opacity)
    K = torch.tensor([[[40.0, 0.0, 16.5], [0.0, 40.0, 16.5], [0.0, 0.0, 1.0]]], dtype=f64)
    return Case(gaussians, Cameras(torch.eye(4, dtype=f64)[None], K, 33, 33), gaussians.colors)


def gradients(case: Case, renderer: Renderer, seed: int = 1) -> tuple[RenderOutput, dict[str, Tensor]]:
    """Render a case made by `Case.on` and take a random linear loss of all outputs back to all inputs."""
    output = case.render(renderer)
    g = torch.Generator().manual_seed(seed)

    def weigh(image: Tensor) -> Tensor:
        return (image * torch.randn(image.shape, generator=g, dtype=torch.float64).to(image)).sum()

    loss = weigh(output.image) + weigh(output.alpha)
    if output.depth is not None:
        loss = loss + 0.1 * weigh(output.depth)
    loss.backward()
    names = ("means", "quats", "scales", "covariances", "opacities")
    found = {name: getattr(getattr(case.gaussians, name), "grad", None) for name in names}
    if case.features is None:
        found |= {"colors": case.gaussians.colors.grad, "harmonics": getattr(case.gaussians.harmonics, "grad", None)}
    else:
        found["features"] = case.features.grad
    found |= {"viewmats": case.cameras.viewmats.grad, "means2d": output.means2d.grad}
    if case.background is not None:
        found["background"] = case.background.grad
    if case.absgrad:
        found["absgrad"] = output.means2d.absgrad  # type: ignore[attr-defined]
    return output, {name: gradient.double().cpu() for name, gradient in found.items() if gradient is not None}


def relative(found: Tensor, expected: Tensor) -> float:
    """L2 distance over the L2 norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def moving_case(count: int = 150) -> tuple[MovingGaussians, Cameras]:
    """Gaussians at three times, float32 leaves, and a camera for each."""
    g, case = torch.Generator().manual_seed(3), random_case(count=count, cameras=3)
    base = case.gaussians.map(torch.Tensor.float)
    means, colors = base.means + 0.1 * torch.randn(3, count, 3, generator=g), torch.rand(3, count, 3, generator=g)
    quats, scales = (values.expand(3, -1, -1).clone() for values in (base.quats, base.scales))
    leaves = [values.requires_grad_() for values in (means, quats, scales, colors)]
    cameras = replace(case.cameras, viewmats=case.cameras.viewmats.float(), Ks=case.cameras.Ks.float())
    return MovingGaussians(base, *leaves), cameras


def moving_gradients(renderer: Renderer, per_frame: bool) -> dict[str, Tensor]:
    """What a render of the frames of `moving_case` gives, with gradients of a random linear loss."""
    g, (moving, cameras) = torch.Generator().manual_seed(4), moving_case()
    features = torch.randn(3, 150, 5, generator=g).requires_grad_() if per_frame else None
    background = torch.rand(3 if features is None else 5, generator=g)
    output = renderer.frames(moving, cameras, features=features, background=background, depth=True)
    assert output.depth is not None
    parts = {"image": output.image, "alpha": output.alpha, "depth": output.depth}
    torch.stack([(part * torch.randn(part.shape, generator=g)).sum() for part in parts.values()]).sum().backward()
    leaves = {"means": moving.means, "quats": moving.quats, "scales": moving.scales}
    leaves["features"] = moving.colors if features is None else features
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}
    return {**parts, "means2d": output.means2d, "radii": output.radii, **gradients}
