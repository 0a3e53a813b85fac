"""From the config to a deformation."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.control_points import ControlPointsConfig
from kg4d.deform.encoding import HSE, HseConfig
from kg4d.deform.hexplane import HexPlaneConfig
from kg4d.deform.offsets import Activation, OffsetMlp
from kg4d.deform.skinned import SkinnedConfig


class DeformationKind(StrEnum):
    """How the canonical Gaussians move."""

    HSE = "hse"
    HEXPLANE = "hexplane"
    SKINNED = "skinned"
    CONTROL_POINTS = "control_points"
    NONE = "none"


@dataclass
class DeformationConfig:
    """The deformation of the dynamic stage.

    Attributes:
        kind: Which features the network reads; `skinned` are frames at the keypoints that the Gaussians follow, with a
            network only on top; `control_points` are frames spread over the object that the network moves; `none` is no
            motion at all.
        width: Units of a hidden layer.
        depth: Hidden layers.
        activation: Non-linearity of the hidden layers.
        anchor_first: The canonical Gaussians are frame 0: nothing moves at time 0.
        hse: The harmonic encoding.
        hexplane: The planes of `kind: hexplane`.
        skinned: The frames of `kind: skinned`, which always is at rest at time 0.
        control_points: The frames of `kind: control_points`.
    """

    kind: DeformationKind = DeformationKind.HSE
    width: int = 64
    depth: int = 4
    activation: Activation = Activation.RELU
    anchor_first: bool = True
    hse: HseConfig = field(default_factory=HseConfig)
    hexplane: HexPlaneConfig = field(default_factory=HexPlaneConfig)
    skinned: SkinnedConfig = field(default_factory=SkinnedConfig)
    control_points: ControlPointsConfig = field(default_factory=ControlPointsConfig)


def build_deformation(
    config: DeformationConfig,
    scene_radius: float,
    generator: torch.Generator,
    *,
    joints: int = 0,
    means: Float[Tensor, "N 3"] | None = None,
    isotropic: bool = False,
) -> nn.Module:
    """Make the deformation that `config` names; the result satisfies `kg4d.deform.base.Deformation`.

    Args:
        config: Kind and sizes.
        scene_radius: Half extent of the scene, world units; positions are divided by it.
        generator: Source of the initial weights (CPU).
        joints: Number of keypoints, for `skinned`.
        means: Centres of the Gaussians at rest, for `control_points`.
        isotropic: One scaling for all three axes, for isotropic Gaussians.

    Raises:
        ValueError: A size or the radius is not positive, `skinned` has no keypoints, or there are more control points
            than Gaussians.
    """
    scalings = 1 if isotropic else 3
    match config.kind:
        case DeformationKind.HSE:
            from kg4d.deform.hse_mlp import HseMlp

            encoding = HSE(config.hse, scene_radius)
            return HseMlp(encoding, _mlp(config, encoding, 0, generator, scalings), config.anchor_first)
        case DeformationKind.HEXPLANE:
            from kg4d.deform.hexplane import HexPlane, HexPlaneMlp

            planes = HexPlane(config.hexplane, scene_radius, generator)
            beside = HSE(config.hse, scene_radius) if config.hexplane.use_hse else None
            return HexPlaneMlp(
                planes, beside, _mlp(config, beside, planes.width, generator, scalings), config.anchor_first
            )
        case DeformationKind.SKINNED:
            from kg4d.deform.skinned import SkinnedDeformation

            if not config.skinned.residual:
                return SkinnedDeformation(config.skinned, joints, None, None)
            encoding = HSE(config.hse, scene_radius)
            residual = _mlp(config, encoding, 0, generator, scalings)
            return SkinnedDeformation(config.skinned, joints, encoding, residual)
        case DeformationKind.CONTROL_POINTS:
            from kg4d.deform.control_points import ControlPoints

            encoding = HSE(config.hse, scene_radius)
            mover = _mlp(config, encoding, 0, generator, 0)
            places = torch.zeros(0, 3) if means is None else means
            return ControlPoints(config.control_points, places, encoding, mover, config.anchor_first)
        case DeformationKind.NONE:
            from kg4d.deform.identity import StaticDeformation

            return StaticDeformation()
        case _:
            assert_never(config.kind)


def _mlp(
    config: DeformationConfig, encoding: HSE | None, joint_width: int, generator: torch.Generator, scalings: int
) -> OffsetMlp:
    return OffsetMlp(
        0 if encoding is None else encoding.space_width,
        0 if encoding is None else encoding.time_width,
        joint_width,
        width=config.width,
        depth=config.depth,
        activation=config.activation,
        scalings=scalings,
        generator=generator,
    )
