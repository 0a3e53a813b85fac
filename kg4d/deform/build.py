"""From the config to a deformation."""

import logging
from dataclasses import replace
from typing import assert_never

import torch

from kg4d.deform.base import Deformation, RestGaussians
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp
from kg4d.deform.settings import (
    DeformationConfig,
    DeformationKind,
)

_log = logging.getLogger(__name__)


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
