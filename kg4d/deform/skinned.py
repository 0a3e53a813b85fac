"""Keypoints as the handles of the motion: a frame at each keypoint, and Gaussians that follow by skinning weights."""

from collections.abc import Callable
from typing import Any, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.deform.base import Deformation
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp, anchored, apply_offsets
from kg4d.deform.settings import Blend, SkinnedConfig
from kg4d.deform.shading import Shading
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply, slerp
from kg4d.geometry.skinning import dual_quaternion_blend, linear_blend
from kg4d.keypoints.barycentre import FAR, log_window
from kg4d.keypoints.motion import FrameMotion, KeypointMotion
from kg4d.keypoints.skeleton import bone_distances, bone_rotations
from kg4d.losses.motion_priors import Bones, acceleration_loss, carried_bones_loss, coherence_loss
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective

_REST = -1.0  # when the frames of a motion that begins anywhere are at rest


class SkinnedDeformation(Deformation):
    """J frames, each with a translation and a rotation at each key time; Gaussians follow them by skinning weights.

    The skinning weights are the softmax over J of the logits that the canonical Gaussians carry. At the first key time
    the frames are at rest, so nothing moves there; a motion that does not begin at rest has it before time 0. Between
    key times translations follow a cubic (Catmull-Rom) and rotations the shortest arc.

    Attributes:
        rest: Positions of the frames at the first key time, world units.
        times: Key times, ascending.
        parents: Parent of each frame; -1 for roots, and where the bone is cut.
        known: Whether Gaussians may follow the frame.
        translations: How far each frame has gone at the later key times, world units.
        quats: Its rotations since rest there; any norm but zero.
        keypoint_offsets: How far each keypoint is from its frame there, world units.
        shading: The light; None where colours do not change.
    """

    rest: Tensor
    times: Tensor
    parents: Tensor
    known: Tensor
    keypoint_offsets: Tensor

    def __init__(
        self,
        config: SkinnedConfig,
        joints: int,
        encoding: HSE | None = None,
        residual: OffsetMlp | None = None,
        learning_rate: float = 0.0,
    ) -> None:
        """Frames at the origin with two key times, 0 and 1, until the motion starts.

        Args:
            config: Blending, priors, rates.
            joints: J.
            encoding: Features of the residual network; None without one.
            residual: Offsets on top of the skinned motion; None without.
            learning_rate: Of the residual network.

        Raises:
            ValueError: There is no frame, or the temperature or one of the widths is not positive.
        """
        super().__init__()
        if joints < 1:
            raise ValueError("skinning needs keypoints, and there are none")
        if min(config.temperature, config.sigma) <= 0:
            what = f"temperature {config.temperature} and sigma {config.sigma}"
            raise ValueError(f"skinning needs a temperature and a sigma that are positive, not {what}")
        self.config = config
        self.learning_rate = learning_rate
        self.skinning_learning_rate = config.weight_learning_rate
        self.encoding = encoding
        self.residual = residual
        self.register_buffer("rest", torch.zeros(joints, 3))
        self.register_buffer("times", torch.tensor([0.0, 1.0]))
        self.register_buffer("parents", torch.full((joints,), -1), persistent=False)
        self.register_buffer("known", torch.ones(joints, dtype=torch.bool), persistent=False)
        self.register_buffer("keypoint_offsets", torch.zeros(1, joints, 3))
        self.translations = nn.Parameter(torch.zeros(1, joints, 3))
        self.quats = nn.Parameter(_identities(1, joints, torch.device("cpu")))
        self.shading = Shading(config.normal_width) if config.shading else None
        self._bones: tuple[Tensor, Bones] | None = None  # with the parents that they come from

    def start(self, tracks: KeypointMotion) -> None:
        """Put the frames on the keypoints, rotated as best carries the bones between them."""
        self.parents, self.known = tracks.parents.to(self.rest.device), tracks.known.to(self.rest.device)
        rotations = bone_rotations(tracks.rest, tracks.positions, tracks.parents.to(tracks.rest.device))
        self.set_keys(tracks.times, tracks.rest, tracks.positions, rotations)

    def skinning_logits(self, means: Float[Tensor, "N 3"]) -> Float[Tensor, "N J"]:
        """Logits whose softmax is a normal window around the bones of each frame that is known."""
        distances = bone_distances(means, self.rest, self.parents)
        window = torch.where(self.known, log_window(distances, self.config.sigma), -FAR)
        return self.config.temperature * window

    @torch.no_grad()
    def set_keys(
        self,
        times: Float[Tensor, " T"],
        rest: Float[Tensor, "J 3"],
        positions: Float[Tensor, "T J 3"],
        quats: Float[Tensor, "T J 4"],
    ) -> None:
        """Put the frames at `rest` at the first time, at `positions` with rotations `quats` at the others.

        Keypoints are where their frames are again.

        Args:
            times: Key times up to 1, ascending.
            rest: World positions at the first.
            positions: World positions; those at the first time are not read.
            quats: Rotations since rest.

        Raises:
            ValueError: There are fewer than two times, or they do not ascend.
        """
        if len(times) < 2 or not bool((times.diff() > 0).all()):
            raise ValueError("key times must ascend, and be two or more")
        self.rest, self.times = rest.to(self.rest), times.to(self.times)
        self.translations.data = (positions[1:] - rest).to(self.rest)
        self.quats.data = quats[1:].to(self.rest).clone()
        self.keypoint_offsets = torch.zeros_like(self.translations.data)

    @torch.no_grad()
    def correct_keypoints(self, correct: Callable[[Float[Tensor, "T J 3"]], Float[Tensor, "T J 3"]]) -> None:
        """Say where the keypoints are at the key times after the first, given where their frames are; world units.

        The frames stay where they carry the Gaussians best.
        """
        positions = correct(self.rest + self.keys()[0])
        self.keypoint_offsets = positions[1:].to(self.rest) - self.rest - self.translations

    @torch.no_grad()
    def frame_motion(self, times: Float[Tensor, " B"]) -> FrameMotion:
        """The frames at any times."""
        translations, quats = self.frames(times)
        return FrameMotion(times, self.rest, self.rest + translations, quats)

    def follow(self, motion: FrameMotion) -> None:
        """Put the frames where the motion has them; offsets that were learnt for another motion are dropped."""
        upright = _identities(1, len(motion.rest), motion.quats.device)
        before = motion.times.new_tensor([_REST])
        self.set_keys(
            torch.cat([before, motion.times]),
            motion.rest,
            torch.cat([motion.rest[None], motion.positions]),
            torch.cat([upright, motion.quats]),
        )
        self.encoding = self.residual = None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Translations and rotations of the frames, the light and the residual network, each at a rate of its own."""
        config = self.config
        residual = [] if self.residual is None else list(self.residual.parameters())
        light = [] if self.shading is None else [self.shading.light]
        return [
            ParameterGroup("network", residual, self.learning_rate),
            ParameterGroup("translations", [self.translations], config.translation_learning_rate),
            ParameterGroup("rotations", [self.quats], config.rotation_learning_rate),
            ParameterGroup("light", light, config.light_learning_rate),
        ]

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Let the frames carry their bones, smoothly and alike, at all key times."""
        handles = self.config.handles
        translations, quats = self.keys()
        if self._bones is None or self._bones[0] is not self.parents:
            self._bones = self.parents, Bones.of(self.parents)
        bones = self._bones[1]
        if handles.bones > 0:
            loss = carried_bones_loss(
                self.rest, translations, quats, bones, loose=handles.loose, stretch=handles.stretch
            )
            objective.add("handle_bones", loss, handles.bones)
        if handles.smoothness > 0:
            objective.add("handle_smoothness", acceleration_loss(translations, self.times), handles.smoothness)
        if handles.coherence > 0:
            objective.add("handle_coherence", coherence_loss(quats, bones), handles.coherence)

    def keys(self) -> tuple[Float[Tensor, "T J 3"], Float[Tensor, "T J 4"]]:
        """Translations and rotations since rest at all key times."""
        first = self.translations.new_zeros(1, *self.rest.shape)
        upright = _identities(1, len(self.rest), self.quats.device)
        return torch.cat([first, self.translations]), torch.cat([upright, self.quats])

    def frames(self, times: Float[Tensor, " B"]) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J 4"]]:
        """Translations and rotations since rest at any times; beyond the key times those of the nearest."""
        translations, quats = self.keys()
        left, fraction = self._spans(times)
        rotations = slerp(quats[left], quats[left + 1], fraction[:, None])
        return _catmull_rom(translations, left, fraction, self.times), rotations

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """Where the keypoints are: the positions of their frames, unless `correct_keypoints` has said otherwise."""
        translations = self.keys()[0]
        moved = torch.cat([translations[:1], translations[1:] + self.keypoint_offsets])
        return self.rest + _catmull_rom(moved, *self._spans(times), self.times)

    def _spans(self, times: Float[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The key before each time, and how far on the way to the next one it is, in [0, 1]."""
        inside = times.clamp(self.times[0], self.times[-1])
        left = (torch.searchsorted(self.times, inside, right=True) - 1).clamp(0, len(self.times) - 2)
        return left, (inside - self.times[left]) / (self.times[left + 1] - self.times[left])

    def skinning_weights(self, canonical: GaussianState) -> Float[Tensor, "N J"]:
        """How far each Gaussian follows each frame; rows sum to 1.

        Raises:
            ValueError: The Gaussians carry no skinning logits.
        """
        if canonical.skinning_logits is None:
            raise ValueError("a skinned motion needs Gaussians that carry skinning logits")
        return (canonical.skinning_logits / self.config.temperature).softmax(dim=1)

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`."""
        match self.config.blend:
            case Blend.LINEAR:
                blend = linear_blend
            case Blend.DUAL_QUATERNION:
                blend = dual_quaternion_blend
            case _:
                assert_never(self.config.blend)
        moved = blend(canonical.means, self.skinning_weights(canonical), self.rest, *self.frames(times))
        own = canonical.ellipsoids
        moving = MovingGaussians(
            canonical,
            means=moved.points,
            quats=quat_multiply(moved.rotations, own.quats),
            scales=own.scales.expand(len(times), -1, -1),
            colors=None if self.shading is None else canonical.colors * self.shading(canonical, moved.rotations),
        )
        if self.encoding is None or self.residual is None:
            return moving
        space, encode, residual = self.encoding.space(canonical.means.detach()), self.encoding.time, self.residual
        return apply_offsets(moving, anchored(lambda rows: residual(space, encode(rows)), times))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the checkpoint's number of key times."""
        for name in ("translations", "quats"):
            value, own = state_dict.get(prefix + name), self.get_parameter(name)
            if isinstance(value, Tensor) and value.shape[1:] == own.shape[1:]:
                own.data, own.grad = own.data.new_empty(value.shape), None
        for name in ("times", "keypoint_offsets"):
            value, kept = state_dict.get(prefix + name), self.get_buffer(name)
            if isinstance(value, Tensor) and value.shape[1:] == kept.shape[1:]:
                setattr(self, name, kept.new_empty(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _identities(times: int, joints: int, device: torch.device) -> Float[Tensor, "{times} {joints} 4"]:
    """Made where they are used, so that no step waits for a copy."""
    quats = torch.zeros(times, joints, 4, device=device)
    quats[..., 0] = 1
    return quats


def _catmull_rom(
    values: Float[Tensor, "T J 3"], left: Int[Tensor, " B"], fraction: Float[Tensor, " B"], times: Float[Tensor, " T"]
) -> Float[Tensor, "B J 3"]:
    """The cubic through the values whose slope at a key is that of its two neighbours (one-sided at the ends)."""
    last = len(times) - 1

    def slope(key: Int[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        before, after = (key - 1).clamp_min(0), (key + 1).clamp_max(last)
        return (values[after] - values[before]) / (times[after] - times[before])[:, None, None]

    u = fraction[:, None, None]
    width = (times[left + 1] - times[left])[:, None, None]
    start, end = values[left], values[left + 1]
    hermite = (2 * u - 3) * u * u
    return (
        start
        - hermite * (end - start)
        + ((u - 2) * u + 1) * u * width * slope(left)
        + (u - 1) * u * u * width * slope(left + 1)
    )
