"""Keypoints of people, and which of them are nearer: BlazePose, in each image separately.

The network looks at a square that stands upright on the person: first the one around the matte, then the one that it
proposes itself by two further landmarks, the middle of the hips and a point straight above it. So no detector of people
is needed. Its z is the depth relative to the hips; only its order is used.

It looks at each image four times, in squares of two sizes and in a mirror. The mean of the four jitters less than one,
and where they disagree the network is guessing, so the weight is low there.

Sources: Bazarevsky et al. 2020, "BlazePose: On-device Real-time Body Pose tracking"; weights of MediaPipe, Apache-2.0;
the mean with the mirrored image is customary in the evaluation of pose networks (Newell et al. 2016, "Stacked hourglass
networks for human pose estimation").
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.keypoints.sides import other_sides
from kg4d.networks.weights import WEIGHTS, pinned_file
from kg4d.priors.base import Identity, KeypointTracks
from kg4d.priors.keypoints.flips import body_size, flipped
from kg4d.priors.progress import counted

WEIGHTS_NAME = "blazepose-full"
SIDE = 256  # of the network's input, px
_MARGINS = (1.25, 1.1)  # of the squares; the first as in MediaPipe
_APART = 0.05  # of the body's size: spread of the looks at which a weight falls to half
_PASSES = 3  # the first square is that of the matte
_HIPS, _ABOVE = 33, 34  # landmarks that propose the next square
_SURE = 0.5  # probability below which nobody is seen

# (name, landmarks whose mean it is, parent)
_BODY: tuple[tuple[str, tuple[int, ...], str | None], ...] = (
    ("pelvis", (23, 24), None),
    ("neck", (11, 12), "pelvis"),
    ("head", (7, 8), "neck"),
    ("left_shoulder", (11,), "neck"),
    ("left_elbow", (13,), "left_shoulder"),
    ("left_wrist", (15,), "left_elbow"),
    ("right_shoulder", (12,), "neck"),
    ("right_elbow", (14,), "right_shoulder"),
    ("right_wrist", (16,), "right_elbow"),
    ("left_hip", (23,), "pelvis"),
    ("left_knee", (25,), "left_hip"),
    ("left_ankle", (27,), "left_knee"),
    ("left_foot", (31,), "left_ankle"),
    ("right_hip", (24,), "pelvis"),
    ("right_knee", (26,), "right_hip"),
    ("right_ankle", (28,), "right_knee"),
    ("right_foot", (32,), "right_ankle"),
)
BLAZEPOSE_NAMES = tuple(name for name, _, _ in _BODY)
BLAZEPOSE_PARENTS = tuple(-1 if parent is None else BLAZEPOSE_NAMES.index(parent) for _, _, parent in _BODY)


class _Square(NamedTuple):
    """A square of an image: its middle, its side, and the direction of its upper edge's middle from there."""

    middle: Float[np.ndarray, " 2"]
    side: float
    up: Float[np.ndarray, " 2"]  # of length 1

    def to_image(self) -> Float[np.ndarray, "2 3"]:
        """From pixels of the network's input to pixels of the image."""
        down = -self.up
        across = np.array([down[1], -down[0]])
        axes = np.stack([across, down], axis=1) * (self.side / SIDE)
        return np.concatenate([axes, (self.middle - axes @ np.full(2, SIDE / 2))[:, None]], axis=1)


class BlazePoseKeypoints:
    """Detects 17 keypoints of the matted person, hidden ones included.

    Args:
        interpreter: A loaded interpreter of the network; `load_blazepose` makes it.
    """

    name = "keypoints-blazepose"
    names, parents = BLAZEPOSE_NAMES, BLAZEPOSE_PARENTS

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter

    def identity(self) -> Identity:
        """The hash of the weights, and what surrounds the network."""
        margins = ", ".join(map(str, _MARGINS))
        weights = WEIGHTS[WEIGHTS_NAME].member_sha256
        return {"weights": weights, "margins": margins, "passes": _PASSES, "mirrored": True, "apart": _APART}

    def __call__(self, images: Float[Tensor, "M H W 4"]) -> KeypointTracks:
        """Detect the keypoints in each image; weight 0 where nobody is seen, or outside the image."""
        found = [self._detect(image) for image in counted(images, len(images), "images")]
        uv, weights, depths = (torch.stack(parts) for parts in zip(*found, strict=True))
        inside = ((uv >= 0) & (uv <= torch.tensor([images.shape[2], images.shape[1]]))).all(-1)
        return KeypointTracks(uv, weights * inside, depths)

    def _detect(
        self, image: Float[Tensor, "H W 4"]
    ) -> tuple[Float[Tensor, "17 2"], Float[Tensor, " 17"], Float[Tensor, " 17"]]:
        """Positions, weights and depths: the mean of what several looks at an image show."""
        direct = [self._look(image, margin) for margin in _MARGINS]
        mirrored = [self._look(image.flip(1), margin) for margin in _MARGINS]
        looks = torch.stack([look for look, _ in direct + mirrored])
        persons = torch.tensor([person for _, person in direct + mirrored])
        mirrors = torch.arange(len(looks)) >= len(direct)
        uv = looks[..., :2].clone()
        uv[mirrors, :, 0] = image.shape[1] - uv[mirrors, :, 0]
        others = other_sides(BLAZEPOSE_NAMES)
        return _mean(flipped(KeypointTracks(uv, looks[..., 3], looks[..., 2]), others, mirrors), persons, others)

    def _look(self, image: Float[Tensor, "H W 4"], margin: float) -> tuple[Float[Tensor, "17 4"], float]:
        """Keypoints as (x, y, z in px of the image, probability of being visible), and probability of a person."""
        solid = (image[..., 3] > 0.5).nonzero()
        if len(solid) == 0:
            return torch.zeros(len(_BODY), 4), 0.0
        alpha = image[..., 3:]
        picture = quantize(image[..., :3] * alpha + 1 - alpha).numpy()
        top, bottom = solid.amin(0).numpy()[::-1], (solid.amax(0) + 1).numpy()[::-1]
        square = _Square((top + bottom) / 2, margin * float((bottom - top).max()), np.array([0.0, -1.0]))
        best, sure = np.zeros((39, 4)), -1.0
        for _ in range(_PASSES):
            landmarks, person = self._run(picture, square)
            if person >= sure:
                best, sure = landmarks, person
            upwards = landmarks[_ABOVE, :2] - landmarks[_HIPS, :2]
            length = float(np.linalg.norm(upwards))
            if person < _SURE or length < 1:
                break
            square = _Square(landmarks[_HIPS, :2], 2 * margin * length, upwards / length)
        return torch.from_numpy(np.stack([best[list(rows)].mean(0) for _, rows, _ in _BODY])).float(), sure

    def _run(self, picture: np.ndarray, square: _Square) -> tuple[Float[np.ndarray, "39 4"], float]:
        to_image = square.to_image()
        shifted = to_image.copy()  # in OpenCV pixel centres are whole numbers
        shifted[:, 2] += to_image[:, :2] @ np.full(2, 0.5) - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        white = (255, 255, 255)
        crop = cv2.warpAffine(picture, shifted, (SIDE, SIDE), flags=flags, borderValue=white)
        outputs = self._interpreter.get_output_details()
        self._interpreter.set_tensor(
            self._interpreter.get_input_details()[0]["index"], crop[None].astype(np.float32) / 255
        )
        self._interpreter.invoke()
        values, person = (self._interpreter.get_tensor(outputs[place]["index"]) for place in (0, 1))
        rows = values.reshape(39, 5).astype(np.float64)
        uv = rows[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        depths = rows[:, 2] * (square.side / SIDE)
        visible = 1 / (1 + np.exp(-rows[:, 3]))
        return np.concatenate([uv, depths[:, None], visible[:, None]], axis=1), float(person.reshape(-1)[0])


def _mean(
    looks: KeypointTracks, persons: Float[Tensor, " L"], others: list[int]
) -> tuple[Float[Tensor, "17 2"], Float[Tensor, " 17"], Float[Tensor, " 17"]]:
    """The mean of the looks that see somebody, with left and right as in the first of them; weights fall as they part.

    Args:
        looks: What each of L looks found.
        persons: The probability of a person in each.
        others: As in `kg4d.priors.keypoints.flips.flipped`.
    """
    seen = persons > _SURE
    if not seen.any():
        nothing = torch.zeros_like(looks.weights[0])
        return looks.uv[0], nothing, nothing
    first = looks.uv[int(seen.nonzero()[0])]
    exchanged = flipped(looks, others, torch.ones_like(seen))
    nearer = (exchanged.uv - first).norm(dim=-1).sum(1) < (looks.uv - first).norm(dim=-1).sum(1)
    looks = flipped(looks, others, nearer)
    assert looks.depths is not None
    uv = looks.uv[seen].mean(0)
    weights = (looks.weights * persons[:, None])[seen].mean(0)
    size = body_size(KeypointTracks(uv[None], torch.ones_like(weights)[None]))
    weights = weights / (1 + (looks.uv[seen] - uv).square().sum(-1).mean(0) / (_APART * size) ** 2)
    return uv, weights, looks.depths[seen].mean(0)


def load_blazepose() -> BlazePoseKeypoints:
    """The detector with its pinned weights.

    Raises:
        InputError: The interpreter is not installed, or the weights are not in the cache.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        remedy = 'pip install "kg4d[blazepose]", or mark the keypoints of the first frame yourself'
        raise InputError("keypoints.kind", "BlazePose needs ai-edge-litert, which is not installed", remedy) from error
    interpreter = Interpreter(model_path=str(pinned_file(WEIGHTS_NAME)), num_threads=1)
    interpreter.allocate_tensors()
    return BlazePoseKeypoints(interpreter)
