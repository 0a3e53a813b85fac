"""What keeps a motion together: rigid neighbourhoods, bones of keypoint frames, stiff control points."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kg4d.data.batches.batch import step_generator
from kg4d.deform.base import DeformedGeometry
from kg4d.deform.control_points import ControlPoints
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.point_sets import nearest_neighbours
from kg4d.losses.motion_priors import (
    ArapConfig,
    HandlesConfig,
    RigidityConfig,
    acceleration_loss,
    arap_loss,
    carried_bones_loss,
    coherence_loss,
    neighbour_weights,
    rigidity_loss,
)
from kg4d.stages.objective import Objective


class Rigidity:
    """Neighbourhoods of the Gaussians at rest, found once; each step looks at some of them."""

    def __init__(self, config: RigidityConfig, canonical: GaussianState, seed: int) -> None:
        self.config, self.canonical, self.seed = config, canonical, seed
        if config.weight > 0:
            distances, self.neighbours = nearest_neighbours(canonical.means, config.neighbours)
            self.weights = neighbour_weights(distances)

    def add(self, objective: Objective, geometry: DeformedGeometry, step: int) -> None:
        """Let the neighbourhoods that are drawn for this step move as rigid bodies."""
        if self.config.weight <= 0:
            return
        generator = step_generator(self.seed, "rigidity", step)
        samples = torch.randint(len(self.canonical), (self.config.samples,), generator=generator)
        loss = rigidity_loss(
            geometry.means,
            geometry.quats,
            self.canonical.means,
            self.canonical.quats,
            self.neighbours,
            self.weights,
            samples.to(geometry.means.device),
        )
        objective.add("rigidity", loss, self.config.weight)


def add_handles(
    objective: Objective, deformation: nn.Module, parents: Int[Tensor, " J"], config: HandlesConfig
) -> None:
    """Let the keypoint frames of `deformation`, where it has any, carry their bones, smoothly and alike."""
    if not isinstance(deformation, SkinnedDeformation):
        return
    shifts, quats = deformation.keys()
    if config.bones > 0:
        rest = deformation.rest
        loss = carried_bones_loss(rest, shifts, quats, parents, loose=config.loose, stretch=config.stretch)
        objective.add("handle_bones", loss, config.bones)
    if config.smoothness > 0:
        objective.add("handle_smoothness", acceleration_loss(shifts), config.smoothness)
    if config.coherence > 0:
        objective.add("handle_coherence", coherence_loss(quats, parents), config.coherence)


def add_arap(objective: Objective, deformation: nn.Module, times: Tensor, config: ArapConfig) -> None:
    """Let the control points of `deformation`, where it has any, move as rigidly as possible at `times`."""
    if not isinstance(deformation, ControlPoints) or config.weight <= 0:
        return
    rest = deformation.rest
    near = nearest_neighbours(rest, min(config.neighbours, len(rest) - 1))
    loss = arap_loss(deformation.places(times), rest, near.ids, neighbour_weights(near.distances))
    objective.add("arap", loss, config.weight)
