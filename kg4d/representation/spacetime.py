"""Gaussians in space and time: what is seen at a time is a slice of them (Yang et al. 2024; KG4D eq. 5)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from kg4d.data.records import PosedImages, Scene
from kg4d.deform.settings import SkinnedConfig
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.errors import InputError
from kg4d.gaussians.init import initial_state, visual_hull
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.settings import GaussiansConfig, LearningRates
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

_TINY = 1e-6


class SpacetimeGaussians(Representation):
    """Gaussians in R^4. The static stage fits those of frame 0, from which they start; the dynamic stage fits them.

    Attributes:
        gaussians: Those of frame 0.
        spacetime: Those in space and time.
        elsewhere: Those that are not there in the window that is being fitted; mostly there are none.
        windows: Their number. The time of the Gaussians runs from 0 to this, so that rates and scales along it are
            those of a window, however long the clip is.
    """

    windows: Tensor
    window: Tensor  # first and last time of the one that is fitted now

    def __init__(
        self, gaussians: GaussianModel, config: SpacetimeConfig, keypoint_temperature: float, windows: int = 1
    ) -> None:
        """Start with the Gaussians of frame 0, at rest.

        Args:
            gaussians: Those of frame 0; shared, not copied.
            config: How they start, and how they learn.
            keypoint_temperature: Of the softmax over the Gaussians that makes a keypoint of their logits.
            windows: Into how many a long clip is cut.
        """
        super().__init__()
        self.gaussians = gaussians
        self.config = config
        self.register_buffer("windows", torch.tensor(float(windows), device=gaussians.means.device))
        self.keypoint_temperature = keypoint_temperature
        self._placed = False
        self._neighbours: tuple[int, Tensor] | None = None  # calls so far, and who they are
        with torch.no_grad():
            still = MovingGaussians.still(gaussians.state(), len(self._centres()))
            self.spacetime = SpacetimeModel.from_moving(still, self._centres(), self._deviation(), config.waves)
            self.elsewhere = self.spacetime.rows(torch.zeros(0, dtype=torch.int64, device=self.spacetime.means.device))
        self.register_buffer("window", torch.tensor([0.0, 1.0], device=gaussians.means.device))

    def _centres(self) -> Float[Tensor, " K"]:
        """The times of the pieces, in the Gaussians' own time."""
        length = float(self.windows)
        count = round(self.config.segments * length)
        return torch.linspace(0, length, count) if count > 1 else torch.tensor([0.5])

    def _deviation(self) -> float:
        """The standard deviation of each along its own time; a single one lasts for all of the clip."""
        length = float(self.windows)
        count = round(self.config.segments * length)
        return self.config.overlap * length / (count - 1) if count > 1 else 100.0

    def states(self, times: Float[Tensor, " B"], only: Int[Tensor, " n"] | None = None) -> MovingGaussians:
        """The slices at `times`; opacities are 0 where a Gaussian is not there. `only` some of them, or all."""
        model = self.spacetime
        if len(self.elsewhere) and not self._inside(times):
            model = self.spacetime.joined(self.elsewhere)  # to look at: nobody fits there now
        moving = model.states(times * self.windows, self.config.least_weight, only)
        assert moving.velocities is not None
        return replace(moving, velocities=moving.velocities * self.windows)

    def _inside(self, times: Float[Tensor, " B"]) -> bool:
        return bool(((times >= self.window[0]) & (times <= self.window[1])).all())

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

    def pieces(self) -> Pieces:
        """Each at its own time, clips; without the Fourier series of the colours."""
        own = self.spacetime.joined(self.elsewhere).pieces(self.config.least_weight)
        clip = self.windows
        return replace(own, times=own.times / clip, durations=own.durations / clip, velocities=own.velocities * clip)

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Opacities near 0 or 1, and neighbours in space and time that are corrected alike."""
        config = self.config
        if config.entropy > 0:
            opacities = self.spacetime.opacity_logits.sigmoid().clamp(_TINY, 1 - _TINY)
            entropy = -(opacities * opacities.log() + (1 - opacities) * (1 - opacities).log())
            objective.add("entropy", entropy.mean(), config.entropy)
        if config.consistency > 0 and len(self.spacetime) > config.neighbours:
            objective.add("consistency", self._inconsistency(), config.consistency)

    def _inconsistency(self) -> Float[Tensor, ""]:
        """Mean squared difference of how far some Gaussians and their neighbours have moved from where they started."""
        calls, near = self._neighbours or (0, None)
        own = self.spacetime
        if near is None or len(near) != len(own):
            started = torch.cat([own.origins, own.means[:, 3:]], dim=-1)
            near = nearest_neighbours(started.detach(), self.config.neighbours).ids
        self._neighbours = calls + 1, near
        count = len(own)
        step = max(1, count // self.config.samples)
        chosen = torch.arange(calls % step, count, step, device=near.device)  # others at the next call
        rows = torch.cat([chosen[:, None], near[chosen]], dim=1)
        moved = own.means[rows, :3] - own.origins[rows]
        return (moved[:, 1:] - moved[:, :1]).square().sum(-1).mean()

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
        count = max(1, round(self.config.segments * float(self.windows)) * config.count // frames)
        states = [
            self._in_hull([scene.reference, scene.videos], frame, count, config, generator) for frame in range(frames)
        ]
        times = times * float(self.windows)
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
        self._spread(lambda times: carried(canonical, times))

    @torch.no_grad()
    def carry(self, carrier: Representation) -> None:
        """Spread each Gaussian of frame 0 along the way on which another representation carries it.

        Args:
            carrier: Of the same Gaussians, fitted.
        """
        self._spread(carrier.states)
        self._placed = True

    def _spread(self, moved: Callable[[Tensor], MovingGaussians]) -> None:
        own = self._centres().to(self.spacetime.means)
        times = own / self.windows
        step = 0.5 * self._deviation() / float(self.windows)
        before, after = (times - step).clamp_min(0), (times + step).clamp_max(1)
        apart = (after - before).clamp_min(_TINY)[:, None, None]
        velocities = (moved(after).means - moved(before).means) / apart
        moving = replace(moved(times), velocities=velocities / self.windows)
        self._replace(
            dict(SpacetimeModel.from_moving(moving, own, self._deviation(), self.config.waves).named_parameters())
        )

    def get_extra_state(self) -> Int[Tensor, " n"]:
        """Who is whose neighbour, and since when: a fit that goes on later needs the same."""
        calls, near = self._neighbours or (0, torch.zeros(0, dtype=torch.int64))
        return torch.cat([near.new_tensor([calls]), near.flatten()])

    def set_extra_state(self, state: Int[Tensor, " n"]) -> None:
        """Take it up again."""
        calls, near = int(state[0]), state[1:].to(self.spacetime.means.device)
        self._neighbours = (calls, near.reshape(-1, self.config.neighbours)) if len(near) else None

    @torch.no_grad()
    def focus(self, window: tuple[float, float] | None, optimizer: Optimizer) -> None:
        """Keep aside what is not there in the window: it is neither drawn nor fitted until the next one.

        Args:
            window: Its first and last time; all come back when None.
            optimizer: Of the stage, kept in step; the moments of what comes back start at zero.
        """
        count, everything = len(self.spacetime), self.spacetime.joined(self.elsewhere)
        there = torch.ones_like(everything.opacity_logits, dtype=torch.bool)
        if window is not None:
            begin, end = window[0] * self.windows, window[1] * self.windows
            first, last = everything.lifetimes(self.config.least_weight)
            there = (last >= begin) & (first <= end)
            there[(everything.means[:, 3] - begin).abs().argmin()] = True  # one at least
        chosen, other = torch.nonzero(there)[:, 0], torch.nonzero(~there)[:, 0]
        inherit = torch.where(chosen < count, chosen, -1)
        self.spacetime.replace_parameters(dict(everything.rows(chosen).named_parameters()), optimizer, inherit)
        self.elsewhere.replace_parameters(dict(everything.rows(other).named_parameters()))
        self.window.copy_(torch.tensor(window or (0.0, 1.0)))
        self._neighbours = None

    @torch.no_grad()
    def hold_before(self, time: float) -> None:
        """Let no step change what frames up to `time` see."""
        held = self.spacetime.lifetimes(self.config.least_weight)[0] <= time * self.windows
        for name in SpacetimeModel.NAMES:
            gradient = self.spacetime.get_parameter(name).grad
            if gradient is not None:
                gradient[held] = 0

    def _replace(self, values: dict[str, Tensor]) -> None:
        self.spacetime.replace_parameters(values)
        self._neighbours = None
