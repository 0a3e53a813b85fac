"""Settings of `kg4d.gaussians`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, replace
from enum import StrEnum


class InitKind(StrEnum):
    """Source of the first points."""

    AUTO = "auto"
    HULL = "hull"
    INFLATED = "inflated"
    BALL = "ball"
    POINTS = "points"


class FarSide(StrEnum):
    """What becomes of the side that the only view of the first frame does not show."""

    MIRRORED = "mirrored"  # the near side's mirror image along the lines of sight, in the static stage
    FREE = "free"  # Gaussians of its own, from the back of the inflated matte


class Middle(StrEnum):
    """The surface about which near and far side of the only view are mirror images."""

    PLANE = "plane"  # through the origin, facing the camera
    BONES = "bones"  # at the depths of the keypoints in the first frame, as far as the video tells them


@dataclass
class GaussiansConfig:
    """The first Gaussians.

    Attributes:
        count: Number of Gaussians. A point cloud with more points is thinned to that number.
        init: Where they start; `auto` is the points of the scene where it has any, the hull where there are at least
            two views of the first frame, the view inflated where there is one, and the ball where there is none.
        ball_radius: Radius of the ball, world units.
        hull_resolution: Voxels along each axis of the hull's grid.
        hull_half_extent: Half the side of that grid, world units, centred at the origin.
        points: The point cloud (.ply or .npy) of `init: points`; that of the scene, without its outliers, when null.
        initial_opacity: Opacity at the start; None means 0.5, but 0.1 in a ball, where most are off the surface.
        isotropic: Tie the three scales of each Gaussian.
        far_side: What becomes of the side that the only view does not show, where the start is that view inflated.
            Adaptive density control leaves it free.
        middle: The surface between near and far side; `bones` needs keypoints with bones, and is the plane without.
        expected: One view: how many pixels a Gaussian must show in to differ from what is expected: the colour of its
            pixel, and opaque. 0 expects nothing.
        sh_degree: Spherical harmonics of the colours up to this degree, at most 3; 0 is the same colour from all sides.
        sh_warmup: Steps of the static stage after which each further degree begins; 0 begins with all. Later stages
            have all degrees.
    """

    count: int = 5000
    init: InitKind = InitKind.AUTO
    ball_radius: float = 0.5
    hull_resolution: int = 96
    hull_half_extent: float = 0.85
    points: str | None = None
    initial_opacity: float | None = None
    isotropic: bool = False
    far_side: FarSide = FarSide.MIRRORED
    middle: Middle = Middle.BONES
    expected: float = 2.0
    sh_degree: int = 0
    sh_warmup: int = 50


RATED = ("means", "quats", "log_scales", "opacity_logits", "colors")  # each has a learning rate of its own


@dataclass
class LearningRates:
    """Adam rates of the per-Gaussian tensors at the first step.

    Attributes:
        means: Centres, world units a step.
        quats: Rotations.
        log_scales: Scales.
        opacity_logits: Opacities.
        colors: Colours; harmonics learn at a twentieth of it.
        final_means: Factor that the rate of the centres falls to.
        final_others: Factor that the other rates fall to.
    """

    means: float = 2e-3
    quats: float = 1e-2
    log_scales: float = 1e-2
    opacity_logits: float = 5e-2
    colors: float = 2e-2
    final_means: float = 0.05
    final_others: float = 0.2

    def scaled(self, factor: float) -> "LearningRates":
        """All rates times a factor."""
        return replace(self, **{name: factor * getattr(self, name) for name in RATED})
