"""Settings of `kg4d.deform`: plain data that is checked before torch is loaded."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from kg4d.losses.settings import ArapConfig, HandlesConfig


class DeformationKind(StrEnum):
    """How the canonical Gaussians move."""

    HSE = "hse"
    HEXPLANE = "hexplane"
    SKINNED = "skinned"
    CONTROL_POINTS = "control_points"
    FLAG4D = "flag4d"
    NONE = "none"


@dataclass
class ControlPointsConfig:
    """The control points.

    Attributes:
        count: How many, spread over the Gaussians by farthest-point sampling; no more than there are Gaussians.
        neighbours: How many of them each Gaussian follows.
        arap: How rigidly they move.
    """

    count: int = 512
    neighbours: int = 4
    arap: ArapConfig = field(default_factory=ArapConfig)


@dataclass
class HseConfig:
    """Harmonic encoding with separate frequencies in space and in time (KG4D section 4.2, "decoupled").

    The paper sets all frequencies to 1; K equal ones are K copies of the same eight features, so `[1.0]` in both banks,
    without the input, is its network. High frequencies in time spoil the frames between those that were trained on:
    keep the largest below pi (T - 1) / 4 for T frames.

    Attributes:
        space_frequencies: Radians per scene radius.
        time_frequencies: Radians per clip.
        include_input: Also hand on the position and the time themselves.
    """

    space_frequencies: list[float] = field(default_factory=lambda: [math.pi * 2**k for k in range(4)])
    time_frequencies: list[float] = field(default_factory=lambda: [math.pi * 2**k for k in range(2)])
    include_input: bool = True


@dataclass
class MutualConfig:
    """How the two branches learn from each other (eq. 7).

    Attributes:
        weight: Of the loss.
        to_gmn: Part of it that draws GMN to IDN.
        to_idn: Part of it that draws IDN to GMN.
    """

    weight: float = 0.1
    to_gmn: float = 1.0
    to_idn: float = 0.1


@dataclass
class Flag4dConfig:
    """The two branches. The sizes are for a CPU; `configs/flag4d_paper.yaml` has those of the paper.

    Attributes:
        idn: Use the instantaneous branch; without it GMN sees states at rest and no summary.
        gmn: Use the branch that sees the motion around; without it IDN is what is drawn.
        residual: GMN changes what IDN says at the same time; if not, it starts from the state at rest, as printed.
        window: Times W that IDN is asked at, a frame apart, from one frame before the time on.
        summary_width: Units of the GRU.
        feature_width: Channels of the attention; a multiple of `heads`.
        heads: Of the attention.
        anchors: Gaussians that ask; the others take what the nearest of these found.
        neighbours: Anchors that a Gaussian takes from.
        refinement_width: Units of a hidden layer of the last network, which has three.
        draft_weight: Of the image loss of IDN alone, relative to that of what is drawn.
        mutual: How the branches learn from each other.
    """

    idn: bool = True
    gmn: bool = True
    residual: bool = True
    window: int = 4
    summary_width: int = 32
    feature_width: int = 32
    heads: int = 4
    anchors: int = 512
    neighbours: int = 4
    refinement_width: int = 64
    draft_weight: float = 0.5
    mutual: MutualConfig = field(default_factory=MutualConfig)


@dataclass
class HexPlaneConfig:
    """Size of the planes.

    Attributes:
        resolution: Grid points along a spatial axis at the coarsest level.
        time_resolution: Grid points along time, the same at all levels.
        channels: Features of each level.
        levels: Each level multiplies the spatial resolution by its number.
        use_hse: Hand the harmonic encoding to the network too.
        learning_rate: Of the planes.
        space_variation: Weight of the mean squared difference of neighbours in space; 4DGaussians has 1e-4 for sums of
            means over planes, as here.
        time_curvature: Weight of the mean squared second difference along time; 4DGaussians: 1e-2.
        time_change: Weight of the mean distance of the time planes from 1, where nothing moves; 4DGaussians: 1e-4.
    """

    resolution: int = 32
    time_resolution: int = 8
    channels: int = 16
    levels: list[int] = field(default_factory=lambda: [1, 2])
    use_hse: bool = True
    learning_rate: float = 6.4e-3
    space_variation: float = 0.0
    time_curvature: float = 0.0
    time_change: float = 0.0


class Activation(StrEnum):
    """Non-linearity of the hidden layers."""

    RELU = "relu"
    SILU = "silu"


class Blend(StrEnum):
    """How the motions of several frames are mixed."""

    LINEAR = "linear"  # of matrices: cheap; a limb that is bent or twisted far loses thickness
    DUAL_QUATERNION = "dual_quaternion"  # of rigid motions: it keeps it


@dataclass
class SkinnedConfig:
    """The skinned deformation.

    Attributes:
        blend: How the motions of several frames are mixed.
        temperature: Softmax temperature of the skinning logits.
        sigma: Width of the window around a frame's bones in which Gaussians follow it at the start, world units.
        residual: Add the offsets of the harmonic network to the skinned motion.
        shading: Colours change as the light falls on what has turned; the light is found with the motion.
        normal_width: Deviation of the window in which the directions of the surface are found for that, world units.
        handles: Priors on the frames.
        translation_learning_rate: Of the translations of the frames, world units a step.
        rotation_learning_rate: Of their rotations.
        light_learning_rate: Of the light.
        weight_learning_rate: Of the skinning logits.
    """

    blend: Blend = Blend.LINEAR
    temperature: float = 0.1
    sigma: float = 0.06
    residual: bool = False
    shading: bool = False
    normal_width: float = 0.05
    handles: HandlesConfig = field(default_factory=HandlesConfig)
    translation_learning_rate: float = 5e-3
    rotation_learning_rate: float = 1e-2
    light_learning_rate: float = 1e-2
    weight_learning_rate: float = 2e-2


@dataclass
class DeformationConfig:
    """The deformation of the dynamic stage.

    Attributes:
        kind: Which features the network reads; `skinned` are frames at the keypoints that the Gaussians follow, with a
            network only on top, and that of `hse` alone where there are no keypoints; `control_points` are frames
            spread over the object that the network moves; `flag4d` are two networks that correct each other; `none` is
            no motion at all.
        width: Units of a hidden layer.
        depth: Hidden layers.
        activation: Non-linearity of the hidden layers.
        learning_rate: Of the network.
        anchor_first: The canonical Gaussians are frame 0: nothing moves at time 0.
        hse: The harmonic encoding.
        hexplane: The planes of `kind: hexplane`.
        skinned: The frames of `kind: skinned`, which always is at rest at time 0.
        control_points: The frames of `kind: control_points`.
        flag4d: The networks of `kind: flag4d`.
    """

    kind: DeformationKind = DeformationKind.HSE
    width: int = 64
    depth: int = 4
    activation: Activation = Activation.RELU
    learning_rate: float = 3e-3
    anchor_first: bool = True
    hse: HseConfig = field(default_factory=HseConfig)
    hexplane: HexPlaneConfig = field(default_factory=HexPlaneConfig)
    skinned: SkinnedConfig = field(default_factory=SkinnedConfig)
    control_points: ControlPointsConfig = field(default_factory=ControlPointsConfig)
    flag4d: Flag4dConfig = field(default_factory=Flag4dConfig)

    @property
    def rests_first(self) -> bool:
        """Whether nothing moves at time 0."""
        return self.anchor_first or self.kind in (DeformationKind.SKINNED, DeformationKind.NONE)
