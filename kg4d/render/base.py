"""The protocol that all renderers follow, with its options and its result."""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import EPS2D


@dataclass(frozen=True)
class RasterOptions:
    """Rules of the rasteriser; the defaults are those of gsplat 1.5.3.

    Attributes:
        eps2d: Variance added to each axis of a projected Gaussian, px².
        near: Centres nearer than this are dropped, world units.
        far: Centres farther than this are dropped, world units.
        radius_clip: Gaussians whose radius is at most this are dropped, px.
        antialiased: Scale opacity by sqrt(det before / det after eps2d) (Mip-Splatting).
    """

    eps2d: float = EPS2D
    near: float = 0.01
    far: float = 1e10
    radius_clip: float = 0.0
    antialiased: bool = False


@dataclass(frozen=True)
class RenderOutput:
    """Images of C cameras, and what densification and contributor look-ups need.

    Attributes:
        image: Blended features on `background`; D is the number of feature channels.
        alpha: Coverage in [0, 1]: one minus the transmittance left behind the last Gaussian.
        depth: Expected depth, sum of w z over alpha, world units; 0 where alpha is 0. None unless asked for.
        means2d: Projected centres, px; without meaning where `radii` is 0. A node of the graph on which `.grad` is
            retained; with `absgrad=True` it also gets `.absgrad`, the per-pixel absolute gradients summed (AbsGS),
            after `backward()`.
        radii: Half extents of the pixel boxes, px, (x, y); (0, 0) means culled.
        options: The rules that it was drawn by.
        handle: Private state of the backend for `Renderer.contributors`.

    In a render of frames (`Renderer.frames`) C is the number of frames, and `means2d` has no history.
    """

    image: Float[Tensor, "C H W D"]
    alpha: Float[Tensor, "C H W 1"]
    depth: Float[Tensor, "C H W 1"] | None
    means2d: Float[Tensor, "C N 2"]
    radii: Int[Tensor, "C N 2"]
    options: RasterOptions
    handle: object

    def first(self, count: int) -> "RenderOutput":
        """What the first `count` cameras see; contributors are asked for in the whole."""
        return replace(
            self,
            image=self.image[:count],
            alpha=self.alpha[:count],
            depth=None if self.depth is None else self.depth[:count],
            means2d=self.means2d[:count],
            radii=self.radii[:count],
        )


class Contributors(NamedTuple):
    """The K Gaussians of largest blending weight at each of P pixels, heaviest first."""

    ids: Int[Tensor, "P K"]  # int64 indices into the Gaussians; -1 where fewer than K contribute
    weights: Float[Tensor, "P K"]  # blending weights T_i alpha_i in [0, 1], detached; 0 where the id is -1


@runtime_checkable  # for the tests, which check arguments at run time
class Renderer(Protocol):
    """Differentiable splatting. Inputs are float32 on `device`; a wrong dtype, device or shape raises ValueError."""

    name: str  # "cuda" | "cpu" | "reference"
    device: torch.device  # a GPU with its number
    reason: str  # why it was chosen, for the record of a run
    options: RasterOptions  # what it goes by where a call says nothing else

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
        """Render `features` (the colours when None, as each camera sees them) of the Gaussians in each camera.

        Args:
            gaussians: What to draw.
            cameras: C views.
            features: Per-Gaussian channels, any D >= 1, shared by the cameras or one set per camera.
            background: Feature value where nothing covers; zero when None.
            depth: Also blend the expected depth.
            absgrad: Also collect absolute screen-space gradients.
            options: Rules of the rasteriser; those of the renderer when None.
        """
        ...

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
        """Render Gaussians at B times: the b-th camera sees them at the b-th time. On a GPU all are drawn together.

        Args:
            gaussians: At B times, B >= 1.
            cameras: B views.
            features: Per-Gaussian channels, any D >= 1, shared by the times or one set per time; the colours when None.
            background: Feature value where nothing covers; zero when None.
            depth: Also blend the expected depth.
            options: Rules of the rasteriser; those of the renderer when None.
        """
        ...

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """The heaviest `k` Gaussians at the pixel that contains each point (evaluated at the pixel's centre).

        No gradient flows.

        Args:
            output: A render by this renderer.
            camera_ids: For each point, the index of its camera in that render.
            pixels: The points (x right, y down), px; outside the image there are no contributors.
            k: How many are wanted, >= 1.
        """
        ...


AnyRenderer = TypeVar("AnyRenderer", bound=Renderer)


def between_planes(renderer: AnyRenderer, near: float, far: float) -> AnyRenderer:
    """The same renderer, which drops what is nearer or farther where a call has no options of its own.

    Args:
        renderer: Not modified.
        near: Distance along the optical axis, world units, > 0.
        far: The same, beyond `near`.
    """
    return with_options(renderer, replace(renderer.options, near=near, far=far))


def with_options(renderer: AnyRenderer, options: RasterOptions) -> AnyRenderer:
    """The same renderer, which goes by other rules where a call has none of its own.

    Args:
        renderer: Not modified.
        options: The rules.
    """
    made = copy.copy(renderer)
    made.options = options
    return made
