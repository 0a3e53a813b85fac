"""What keeps any motion together: neighbourhoods of Gaussians that move as rigid bodies."""

import torch

from kg4d.data.batches.batch import step_generator
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.point_sets import nearest_neighbours
from kg4d.losses.motion_priors import neighbour_weights, rigidity_loss
from kg4d.losses.settings import RigidityConfig
from kg4d.optim.objective import Objective
from kg4d.utils.devices import sent


class Rigidity:
    """Neighbourhoods of the Gaussians at rest, found once; each step looks at some of them."""

    def __init__(self, config: RigidityConfig, rest: GaussianState, seed: int) -> None:
        self.config, self.count, self.seed = config, len(rest), seed
        if config.weight > 0:
            distances, self.neighbours = nearest_neighbours(rest.means, config.neighbours)
            self.weights = neighbour_weights(distances)

    def add(self, objective: Objective, moving: MovingGaussians, rest: GaussianState, step: int) -> None:
        """Let the neighbourhoods that are drawn for this step move as rigid bodies from where they rest now."""
        if self.config.weight <= 0:
            return
        generator = step_generator(self.seed, "rigidity", step)
        samples = torch.randint(self.count, (self.config.samples,), generator=generator)
        loss = rigidity_loss(
            moving.means,
            moving.ellipsoids.quats,
            rest.means,
            rest.ellipsoids.quats,
            self.neighbours,
            self.weights,
            sent(samples, moving.means.device),
        )
        objective.add("rigidity", loss, self.config.weight)
