"""Gaussians in space and time: what is seen at a time is a slice of them (Yang et al. 2024; KG4D eq. 5)."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.records import PosedImages, Scene
from kg4d.deform.settings import SkinnedConfig
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.errors import InputError
from kg4d.gaussians.init import initial_state, visual_hull
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.settings import GaussiansConfig, LearningRates
from kg4d.gaussians.slicing import spacetime_velocities
from kg4d.gaussians.spacetime import SpacetimeModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import joined
from kg4d.geometry.point_sets import nearest_neighbours
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.keypoints.motion import KeypointMotion
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.representation.base import Representation
from kg4d.representation.settings import SpacetimeConfig, SpacetimeInit

_RENEWED = 100  # steps after which neighbours are looked for again
_TINY = 1e-6


class SpacetimeGaussians(Representation):
    """Gaussians in R^4. The static stage fits those of frame 0, from which they start; the dynamic stage fits them.

    Attributes:
        gaussians: Those of frame 0.
        spacetime: Those in space and time.
    """

    def __init__(self, gaussians: GaussianModel, config: SpacetimeConfig, keypoint_temperature: float) -> None:
        """Start with the Gaussians of frame 0, at rest.

        Args:
            gaussians: Those of frame 0; shared, not copied.
            config: How they start, and how they learn.
            keypoint_temperature: Of the softmax over the Gaussians that makes a keypoint of their logits.
        """
        super().__init__()
        self.gaussians = gaussians
        self.config = config
        self.keypoint_temperature = keypoint_temperature
        self._placed = False
        self._neighbours: tuple[int, Tensor] | None = None  # calls since they were found, and who they are
        with torch.no_grad():
            still = MovingGaussians.still(gaussians.state(), config.segments)
            self.spacetime = SpacetimeModel.from_moving(still, self._centres(), self._deviation(), config.waves)

    def _centres(self) -> Float[Tensor, " K"]:
        """The times of the pieces."""
        count = self.config.segments
        return torch.linspace(0, 1, count) if count > 1 else torch.tensor([0.5])

    def _deviation(self) -> float:
        """The standard deviation of each along time; a single one lasts for all of the clip."""
        count = self.config.segments
        return self.config.overlap / (count - 1) if count > 1 else 100.0

    def states(self, times: Float[Tensor, " B"], only: Int[Tensor, " n"] | None = None) -> MovingGaussians:
        """The slices at `times`; opacities are 0 where a Gaussian is not there. `only` some of them, or all."""
        return self.spacetime.states(times, self.config.least_weight, only)

    def rest(self) -> GaussianState:
        """The Gaussians of frame 0, as the static stage has left them."""
        return self.gaussians.state()

    def keypoints(self, times: Float[Tensor, " B"], moving: MovingGaussians | None = None) -> Float[Tensor, "B J 3"]:
        """Barycentres of the Gaussians that are there at each time (eq. 7)."""
        moving = moving or self.states(times)
        logits, temperature = moving.base.keypoint_logits, self.keypoint_temperature
        if moving.opacities is None:  # at rest, where all are there
            return barycentre(assignment(logits, temperature), moving.means)
        there = (moving.opacities / moving.base.opacities).clamp_min(_TINY).log()
        weights = [assignment(logits + temperature * row[:, None], temperature) for row in there]
        return torch.stack([barycentre(*pair) for pair in zip(weights, moving.means, strict=True)])

    def motion_groups(self) -> list[ParameterGroup]:
        """Where the Gaussians are in space and time, and their shapes."""
        config, own = self.config, self.spacetime
        return [
            ParameterGroup("means", [own.means], config.learning_rate),
            ParameterGroup("left", [own.left], config.rotation_learning_rate),
            ParameterGroup("right", [own.right], config.rotation_learning_rate),
            ParameterGroup("log_scales", [own.log_scales], config.scale_learning_rate),
        ]

    def colour_groups(self, rate: float) -> list[ParameterGroup]:
        """The colours, their harmonics, and what changes them along time."""
        own = self.spacetime
        groups = own.color_groups(rate)
        if own.waves.shape[1]:
            groups.append(ParameterGroup("waves", [own.waves], self.config.wave_learning_rate))
        return groups

    def rest_groups(self, rates: LearningRates) -> list[ParameterGroup]:
        """Opacities and colours, at the rates of the static stage."""
        opacities = ParameterGroup("opacity_logits", [self.spacetime.opacity_logits], rates.opacity_logits)
        return [opacities, *self.colour_groups(rates.colors)]

    def editable(self) -> SpacetimeModel:
        """Those in space and time."""
        return self.spacetime

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Opacities near 0 or 1, and neighbours in space and time that move alike."""
        config = self.config
        if config.entropy > 0:
            opacities = self.spacetime.opacity_logits.sigmoid().clamp(_TINY, 1 - _TINY)
            entropy = -(opacities * opacities.log() + (1 - opacities) * (1 - opacities).log())
            objective.add("entropy", entropy.mean(), config.entropy)
        if config.consistency > 0 and len(self.spacetime) > config.neighbours:
            objective.add("consistency", self._inconsistency(), config.consistency)

    def _inconsistency(self) -> Float[Tensor, ""]:
        """Mean squared difference of the velocities of some Gaussians and their neighbours."""
        calls, near = self._neighbours or (_RENEWED, None)
        if near is None or calls >= _RENEWED or len(near) != len(self.spacetime):
            calls, near = 0, nearest_neighbours(self.spacetime.means.detach(), self.config.neighbours).ids
        self._neighbours = calls + 1, near
        count = len(self.spacetime)
        step = max(1, count // self.config.samples)
        chosen = torch.arange(calls % step, count, step, device=near.device)  # others at the next call
        rows = torch.cat([chosen[:, None], near[chosen]], dim=1)
        velocities = spacetime_velocities(self.spacetime.activated(rows.flatten())).reshape(*rows.shape, 3)
        return (velocities[:, 1:] - velocities[:, :1]).square().sum(-1).mean()

    def place(self, scene: Scene, config: GaussiansConfig, generator: torch.Generator) -> None:
        """Start in the hull of every frame, where that is asked for.

        Raises:
            InputError: There are no videos from around, or their mattes have nothing in common.
        """
        if self.config.init is not SpacetimeInit.HULL:
            return
        if scene.videos is None:
            what = "a hull of every frame needs several videos at once"
            raise InputError("representation.spacetime.init", what, "set it to lift, or choose frames.videos")
        frames, times = len(scene.reference), scene.reference.times
        count = max(1, self.config.segments * config.count // frames)
        states = [
            self._in_hull([scene.reference, scene.videos], frame, count, config, generator) for frame in range(frames)
        ]
        deviation = self.config.overlap * float(times[-1] - times[0]) / max(1, frames - 1)
        device = self.spacetime.means.device
        parts = [
            SpacetimeModel.from_moving(MovingGaussians.still(state, 1), time[None], deviation, self.config.waves)
            for state, time in zip(states, times, strict=True)
        ]
        self._replace(
            {name: torch.cat([part.get_parameter(name) for part in parts]).to(device) for name in SpacetimeModel.NAMES}
        )
        self._placed = True

    def _in_hull(
        self, videos: list[PosedImages], frame: int, count: int, config: GaussiansConfig, generator: torch.Generator
    ) -> GaussianState:
        """Gaussians in the hull of one frame, with the colours and features of the nearest ones of frame 0."""
        seen = [video[torch.nonzero(video.frames == frame)[:, 0]] for video in videos]
        cameras, alphas = joined([part.cameras for part in seen]), torch.cat([part.alphas for part in seen])
        try:
            points = visual_hull(
                cameras,
                alphas,
                count,
                generator,
                resolution=config.hull_resolution,
                half_extent=config.hull_half_extent,
            )
        except ValueError as error:
            raise InputError(
                "representation.spacetime.init", f"frame {frame}: {error}", "check masks and cameras, or set it to lift"
            ) from error
        first = self.gaussians.state().detach().to("cpu")
        nearest = torch.cdist(points, first.means).argmin(1)
        state = initial_state(points, first.colors[nearest], 0.5, first.keypoint_logits.shape[1], generator)
        harmonics = None if first.harmonics is None else first.harmonics[nearest]
        return replace(state, keypoint_logits=first.keypoint_logits[nearest], harmonics=harmonics)

    @torch.no_grad()
    def start(self, tracks: KeypointMotion) -> None:
        """Spread each Gaussian of frame 0 along the tracks of the keypoints whose bones are near."""
        if self._placed:
            return
        canonical = self.gaussians.state()
        carried = SkinnedDeformation(SkinnedConfig(), len(tracks.rest)).to(canonical.means.device)
        carried.start(tracks)
        canonical = replace(canonical, skinning_logits=carried.skinning_logits(canonical.means))
        times = self._centres().to(canonical.means)
        step = 0.5 * self._deviation()
        before, after = (times - step).clamp_min(0), (times + step).clamp_max(1)
        apart = (after - before).clamp_min(_TINY)[:, None, None]
        velocities = (carried(canonical, after).means - carried(canonical, before).means) / apart
        moving = replace(carried(canonical, times), velocities=velocities)
        self._replace(
            dict(SpacetimeModel.from_moving(moving, times, self._deviation(), self.config.waves).named_parameters())
        )

    def _replace(self, values: dict[str, Tensor]) -> None:
        self.spacetime.replace_parameters(values)
        self._neighbours = None
