"""From the config to a representation."""

from typing import assert_never

import torch

from kg4d.deform.base import RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.settings import DeformationConfig
from kg4d.gaussians.model import GaussianModel
from kg4d.representation.base import Representation
from kg4d.representation.settings import RepresentationConfig, RepresentationKind
from kg4d.representation.spacetime import SpacetimeGaussians

_LEAST_RADIUS = 1e-3  # world units


def build_representation(
    config: RepresentationConfig,
    deformation: DeformationConfig,
    gaussians: GaussianModel,
    keypoint_temperature: float,
    generator: torch.Generator,
    windows: int = 1,
) -> Representation:
    """Make the representation that `config` names around the Gaussians of the static stage.

    All that decides it is in a checkpoint, or comes from the seed: a run that is read back gets the same modules.

    Args:
        config: Kind.
        deformation: Of `kind: canonical`.
        gaussians: As the static stage has left them; shared, not copied.
        keypoint_temperature: Of the softmax over the Gaussians that makes a keypoint of their logits.
        generator: Source of the initial weights (CPU).
        windows: Into how many a long clip is cut, for `kind: spacetime`.

    Raises:
        ValueError: The settings describe no representation.
    """
    match config.kind:
        case RepresentationKind.CANONICAL:
            from kg4d.representation.canonical import CanonicalGaussians

            means = gaussians.means.detach()
            radius = max(float(means.abs().max()), _LEAST_RADIUS)
            isotropic = gaussians.log_scales.shape[1] == 1
            rest = RestGaussians(means, radius, gaussians.keypoint_logits.shape[1], isotropic)
            motion = build_deformation(deformation, rest, generator).to(means.device)
            return CanonicalGaussians(gaussians, motion, keypoint_temperature)
        case RepresentationKind.SPACETIME:
            return SpacetimeGaussians(gaussians, config.spacetime, keypoint_temperature, windows)
        case _:
            assert_never(config.kind)
