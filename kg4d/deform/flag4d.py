r"""The dual deformation of FLAG-4D: an instantaneous network, and one that sees the motion around and corrects it.

A state is :math:`\theta = (x, q, \log s, rgb, logit\, o)`, 14 numbers a Gaussian, and both networks change it:

- IDN: :math:`\delta^{IDN}(t)` from harmonic features of position and time. It is asked at W times around t, and a GRU
  sums up what it says (eq. 1-2).
- GMN: features of the video's flow at t are keys and values, and states with that summary are queries of an attention
  (eq. 3-5); a network turns what was found, the time, and the state that IDN gave one frame before into
  :math:`\delta^{GMN}(t)` (eq. 6). This is what is drawn.

IDN is drawn too while it is trained, and both are drawn to each other where they are seen (eq. 7). All that a moment
needs is kept with the weights, so any moment can be drawn without another.

Source: FLAG-4D, eq. 1-7. `docs/flag4d.md` says what the paper leaves open and what was decided.
"""

import math
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kg4d.data.records import VideoFeatures
from kg4d.deform.base import Deformation, Draft, RestGaussians
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp, anchored, linear
from kg4d.deform.settings import Activation, Flag4dConfig
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.point_sets import farthest_points

STATE = 14  # numbers of a state
_UNITS = (1.0,) * 13 + (0.2,)  # of the two branches' distance: logits of opacity are five times as large as the rest
_EPS = 1e-6
LayerT = TypeVar("LayerT", bound=nn.Module)


class Flag4d(Deformation):
    """Moves Gaussians by IDN and GMN.

    Args:
        config: The branches.
        encoding: Of positions and times.
        idn: The instantaneous network, 14 outputs.
        rest: The Gaussians at birth; the anchors are chosen among them.
        anchor_first: Nothing moves at time 0.
        learning_rate: Of all weights.
        generator: Source of the initial weights (CPU).

    Raises:
        ValueError: Neither branch is used, or a size is not positive or does not divide another.
    """

    anchors: Tensor
    maps: Tensor
    moments: Tensor

    def __init__(
        self,
        config: Flag4dConfig,
        encoding: HSE,
        idn: OffsetMlp,
        rest: RestGaussians,
        anchor_first: bool,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = config.window, config.summary_width, config.feature_width, config.heads, config.anchors
        if not (config.idn or config.gmn) or min(*sizes, config.neighbours, config.refinement_width) < 1:
            raise ValueError("flag4d: needs one of its branches, and sizes of at least 1")
        if config.feature_width % config.heads or config.feature_width % 4:
            raise ValueError("flag4d: feature_width must be a multiple of heads and of 4")
        self.config, self.encoding, self.anchor_first = config, encoding, anchor_first
        self.learning_rate, self.isotropic = learning_rate, rest.isotropic
        self.wants_video, self.pointwise = config.gmn, not config.gmn  # anchors stand for the Gaussians around them
        self.idn = idn if config.idn else None
        self.gmn = MotionNetwork(config, encoding.time_width, generator) if config.gmn else None
        chosen = farthest_points(rest.means, min(config.anchors, len(rest.means)))
        self.register_buffer("anchors", rest.means.detach()[chosen].clone())
        self.register_buffer("maps", torch.zeros(0, VideoFeatures.CHANNELS, 1, 1))
        self.register_buffer("moments", torch.zeros(0))
        self._draft: Draft | None = None

    def watch(self, features: VideoFeatures) -> None:
        """Keep the features of the video's flow, in half precision."""
        device = self.anchors.device
        self.maps, self.moments = features.maps.half().to(device), features.times.to(device)

    def draft(self) -> Draft | None:
        """What IDN said of the last batch, where both branches are trained."""
        return self._draft

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`."""
        rest = state_vectors(canonical, self.encoding.extent.radius)
        space, self._draft = self.encoding.space(canonical.means.detach()), None

        def both(times: Float[Tensor, " R"]) -> Float[Tensor, "R N D"]:
            plain = self._instantaneous(space, times)
            if self.gmn is None:
                assert plain is not None  # one of them is used
                return plain
            known = None if plain is None else plain.detach()
            corrected = self._corrected(canonical.means.detach(), space, rest, times, known)
            return corrected if plain is None else torch.cat([corrected, plain], dim=-1)

        found = anchored(both, times) if self.anchor_first else both(times)
        drawn = found[..., :STATE]
        moving = moved(canonical, drawn, self.isotropic)
        if found.shape[-1] > STATE and torch.is_grad_enabled():
            self._draft = self._drafted(canonical, drawn, found[..., STATE:])
        return moving

    def _drafted(
        self, canonical: GaussianState, drawn: Float[Tensor, "B N 14"], plain: Float[Tensor, "B N 14"]
    ) -> Draft:
        mutual, units = self.config.mutual, drawn.new_tensor(_UNITS)
        to_gmn = ((plain.detach() - drawn) * units).square().sum(-1)
        to_idn = ((plain - drawn.detach()) * units).square().sum(-1)
        apart = mutual.to_gmn * to_gmn + mutual.to_idn * to_idn
        return Draft(moved(canonical, plain, self.isotropic), apart, self.config.draft_weight, mutual.weight)

    def _instantaneous(self, space: Float[Tensor, "N F"], times: Float[Tensor, " B"]) -> Float[Tensor, "B N 14"] | None:
        """Changes of the states by IDN; None without it."""
        return None if self.idn is None else self.idn(space, self.encoding.time(times))

    def _corrected(
        self,
        means: Float[Tensor, "N 3"],
        space: Float[Tensor, "N F"],
        rest: Float[Tensor, "N 14"],
        times: Float[Tensor, " B"],
        plain: Float[Tensor, "B N 14"] | None,
    ) -> Float[Tensor, "B N 14"]:
        """Changes of the states by GMN. IDN's are inputs here, and learn nothing from it."""
        assert self.gmn is not None
        step, now = 1 / max(1, len(self.moments) - 1), self.encoding.time(times)
        with torch.no_grad():
            near, weights, nearest = self._followed(means)
            before = self._instantaneous(space, (times - step).clamp_min(0))
            windows = self._windows(space[nearest], times, step)
        base = rest.new_zeros(len(times), *rest.shape) if before is None else before
        asked = self.gmn.ask(rest[nearest].detach(), windows, self.gmn.encode(self._maps_at(times), now))
        seen = (asked.expand(len(times), -1, -1)[:, near] * weights[..., None]).sum(2)
        change: Tensor = self.gmn.refine(None, now, torch.cat([rest.detach() + base, seen], dim=-1))
        return change if plain is None or not self.config.residual else plain + change

    def _windows(
        self, space: Float[Tensor, "M F"], times: Float[Tensor, " B"], step: float
    ) -> Float[Tensor, "B M W 14"] | None:
        """What IDN says of the anchors at the times of each window."""
        if self.idn is None:
            return None
        asked = times[:, None] + step * (torch.arange(self.config.window, device=times.device) - 1)
        said = self._instantaneous(space, asked.clamp(0, 1).flatten())
        assert said is not None
        return said.reshape(*asked.shape, *said.shape[1:]).movedim(1, 2)

    def _followed(
        self, means: Float[Tensor, "N 3"]
    ) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"], Int[Tensor, " M"]]:
        """The anchors that each Gaussian takes from, by what weights, and the Gaussian at each anchor."""
        distances = torch.cdist(means, self.anchors)
        found = distances.topk(min(self.config.neighbours, len(self.anchors)), largest=False)
        weights = 1 / (found.values.square() + _EPS * self.encoding.extent.radius**2)
        return found.indices, weights / weights.sum(-1, keepdim=True), distances.argmin(0)

    def _maps_at(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B C h w"] | None:
        """The features at each time, between those of the two frames around it."""
        if not len(self.moments):
            return None
        later = torch.searchsorted(self.moments, times.contiguous()).clamp(1, len(self.moments) - 1)
        start, end = self.moments[later - 1], self.moments[later]
        share = ((times - start) / (end - start)).clamp(0, 1)[:, None, None, None]
        return torch.lerp(self.maps[later - 1].float(), self.maps[later].float(), share)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the checkpoint's anchors and features, of whatever number and size."""
        for name in ("anchors", "maps", "moments"):
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor) and value.dim() == getattr(self, name).dim():
                setattr(self, name, getattr(self, name).new_empty(value.shape, dtype=value.dtype))
        super()._load_from_state_dict(state_dict, prefix, *args)


class MotionNetwork(nn.Module):
    """The parts of GMN: fusion encoder of flow features, attention from anchors to them, refinement network.

    Args:
        config: Sizes.
        time_width: Features of a time.
        generator: Source of the initial weights (CPU).
    """

    def __init__(self, config: Flag4dConfig, time_width: int, generator: torch.Generator) -> None:
        super().__init__()
        width, self.heads = config.feature_width, config.heads
        self.reduce = _convolution(VideoFeatures.CHANNELS, width, 1, generator)
        self.mix = nn.ModuleList([_convolution(width, width, 3, generator) for _ in range(2)])
        self.norms = nn.ModuleList([nn.GroupNorm(4, width) for _ in range(2)])
        self.film = linear(time_width, 2 * width, generator)
        self.state = linear(STATE, width, generator)
        self.summary = _gru(STATE, config.summary_width, generator) if config.idn else None
        self.join = linear(config.summary_width, width, generator) if config.idn else None
        self.query, self.value, self.out = (linear(width, width, generator) for _ in range(3))
        self.key = _unbiased(width, width, generator)  # what is added to all keys changes no attention
        self.norm = nn.LayerNorm(width)
        self.refine = OffsetMlp(
            0,
            time_width,
            STATE + width,
            width=config.refinement_width,
            depth=3,
            activation=Activation.RELU,
            scalings=STATE - 7,
            generator=generator,
        )

    def encode(
        self, maps: Float[Tensor, "B C h w"] | None, times: Float[Tensor, "B F"]
    ) -> Float[Tensor, "B hw d"] | None:
        """Features of the flow at B times, told of the time and of their place in the image."""
        if maps is None:
            return None
        x = self.reduce(maps)
        for convolution, norm in zip(self.mix, self.norms, strict=True):
            x = F.silu(norm(convolution(x)))
        scale, shift = self.film(times)[..., None, None].chunk(2, dim=1)
        channels, height, width = x.shape[1:]
        x = x * (1 + scale) + shift + places(channels, height, width, x.device)
        return x.flatten(2).mT  # type: ignore[no-any-return]

    def ask(
        self,
        states: Float[Tensor, "M 14"],
        windows: Float[Tensor, "B M W 14"] | None,
        features: Float[Tensor, "B hw d"] | None,
    ) -> Float[Tensor, "B M d"]:
        """What the anchors find in the features; what they know themselves where there are none.

        Args:
            states: Of the anchors at rest.
            windows: What IDN says of them at the times of each window; None without IDN.
            features: From `encode`; None without a video.
        """
        asked: Tensor = self.state(states)[None]
        if windows is not None and self.summary is not None and self.join is not None:
            _, last = self.summary(windows.flatten(0, 1))
            asked = asked + self.join(last[0]).unflatten(0, windows.shape[:2])
        if features is None:
            return self.norm(asked)  # type: ignore[no-any-return]
        asked = asked.expand(len(features), -1, -1)
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).movedim(-2, 1)
            for layer, x in ((self.query, asked), (self.key, features), (self.value, features))
        )
        found = F.scaled_dot_product_attention(query, key, value).movedim(1, -2).flatten(-2)
        return self.norm(asked + self.out(found))  # type: ignore[no-any-return]


def state_vectors(gaussians: GaussianState, radius: Tensor) -> Float[Tensor, "N 14"]:
    """The states of Gaussians as vectors, positions in units of the scene's radius; no gradient flows."""
    quats, scales = gaussians.ellipsoids
    parts = [
        gaussians.means / radius,
        F.normalize(quats, dim=-1),
        (scales / radius).log(),
        gaussians.colors,
        torch.logit(gaussians.opacities, eps=_EPS)[:, None],
    ]
    return torch.cat(parts, dim=-1).detach()


def moved(canonical: GaussianState, changes: Float[Tensor, "B N 14"], isotropic: bool = False) -> MovingGaussians:
    """Gaussians whose states have changed; positions change in world units, all axes of `isotropic` ones alike."""
    translations, rotations, scalings, colors, logits = torch.split(changes, [3, 4, 3, 3, 1], dim=-1)
    if isotropic:
        scalings = scalings.mean(-1, keepdim=True)
    quats, scales = canonical.ellipsoids
    return MovingGaussians(
        canonical,
        means=canonical.means + translations,
        quats=quats + quats.norm(dim=-1, keepdim=True) * rotations,
        scales=scales * scalings.exp(),
        colors=canonical.colors + colors,
        opacities=torch.sigmoid(torch.logit(canonical.opacities, eps=_EPS) + logits[..., 0]),
    )


def places(
    channels: int, height: int, width: int, device: torch.device | None = None
) -> Float[Tensor, "channels height width"]:
    """Sines and cosines of the place in the image, of wavelengths from twice the image's side to 1 / 32 of it.

    Source: Vaswani et al. 2017, section 3.5, for both axes.
    """
    count = channels // 4
    waves = math.pi * 64 ** (torch.arange(count, device=device) / max(1, count - 1))
    rows = torch.linspace(0, 1, height, device=device)[:, None] * waves
    columns = torch.linspace(0, 1, width, device=device)[:, None] * waves
    down = torch.cat([rows.sin(), rows.cos()], dim=-1)[:, None].expand(-1, width, -1)
    across = torch.cat([columns.sin(), columns.cos()], dim=-1)[None].expand(height, -1, -1)
    return torch.cat([down, across], dim=-1).movedim(-1, 0)


def _convolution(inputs: int, outputs: int, side: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, device="meta").to_empty(device="cpu")
    return _started(layer, 1 / math.sqrt(inputs * side * side), generator)


def _unbiased(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device="cpu")
    return _started(layer, 1 / math.sqrt(inputs), generator)


def _gru(inputs: int, units: int, generator: torch.Generator) -> nn.GRU:
    layer = nn.GRU(inputs, units, batch_first=True, device="meta").to_empty(device="cpu")
    return _started(layer, 1 / math.sqrt(units), generator)


def _started(layer: LayerT, bound: float, generator: torch.Generator) -> LayerT:
    """A layer with torch's usual start, drawn from `generator`."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator)
    return layer
