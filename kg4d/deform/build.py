"""From the config to a deformation."""

import logging
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import assert_never

import torch

from kg4d.deform.base import Deformation, RestGaussians
from kg4d.deform.control_points import ControlPointsConfig
from kg4d.deform.encoding import HSE, HseConfig
from kg4d.deform.flag4d import Flag4dConfig
from kg4d.deform.hexplane import HexPlaneConfig
from kg4d.deform.offsets import Activation, OffsetMlp
from kg4d.deform.skinned import SkinnedConfig

_log = logging.getLogger(__name__)


class DeformationKind(StrEnum):
    """How the canonical Gaussians move."""

    HSE = "hse"
    HEXPLANE = "hexplane"
    SKINNED = "skinned"
    CONTROL_POINTS = "control_points"
    FLAG4D = "flag4d"
    NONE = "none"


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


def build_deformation(config: DeformationConfig, rest: RestGaussians, generator: torch.Generator) -> Deformation:
    """Make the deformation that `config` names.

    Args:
        config: Kind and sizes.
        rest: The Gaussians that it will move.
        generator: Source of the initial weights (CPU).

    Raises:
        ValueError: A size or the radius is not positive, or there are more control points than Gaussians.
    """
    scalings = 1 if rest.isotropic else 3
    match config.kind:
        case DeformationKind.HSE:
            from kg4d.deform.hse_mlp import HseMlp

            encoding = HSE(config.hse, rest.radius)
            mlp = _mlp(config, encoding, 0, generator, scalings)
            return HseMlp(encoding, mlp, config.anchor_first, config.learning_rate)
        case DeformationKind.HEXPLANE:
            from kg4d.deform.hexplane import HexPlane, HexPlaneMlp

            planes = HexPlane(config.hexplane, rest.radius, generator)
            beside = HSE(config.hse, rest.radius) if config.hexplane.use_hse else None
            mlp = _mlp(config, beside, planes.width, generator, scalings)
            return HexPlaneMlp(planes, beside, mlp, config.anchor_first, config.learning_rate)
        case DeformationKind.SKINNED if rest.keypoints == 0:
            _log.warning(
                "there are no keypoints to skin the Gaussians to: the motion is a network (deformation.kind: hse)"
            )
            return build_deformation(replace(config, kind=DeformationKind.HSE), rest, generator)
        case DeformationKind.SKINNED:
            from kg4d.deform.skinned import SkinnedDeformation

            if not config.skinned.residual:
                return SkinnedDeformation(config.skinned, rest.keypoints)
            encoding = HSE(config.hse, rest.radius)
            residual = _mlp(config, encoding, 0, generator, scalings)
            return SkinnedDeformation(config.skinned, rest.keypoints, encoding, residual, config.learning_rate)
        case DeformationKind.CONTROL_POINTS:
            from kg4d.deform.control_points import ControlPoints

            encoding = HSE(config.hse, rest.radius)
            mover = _mlp(config, encoding, 0, generator, 0)
            return ControlPoints(
                config.control_points, rest.means, encoding, mover, config.anchor_first, config.learning_rate
            )
        case DeformationKind.FLAG4D:
            from kg4d.deform.flag4d import Flag4d

            encoding = HSE(config.hse, rest.radius)
            core = _mlp(config, encoding, 0, generator, 7)
            return Flag4d(config.flag4d, encoding, core, rest, config.anchor_first, config.learning_rate, generator)
        case DeformationKind.NONE:
            from kg4d.deform.identity import Identity

            return Identity()
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
