"""Keypoints of people, and which of them are nearer: BlazePose, in each image separately.

The network looks at a square that stands upright on the person: first the one around the matte, then the one that it
proposes itself by two further landmarks, the middle of the hips and a point straight above it. So no detector of people
is needed. Its z is the depth relative to the hips; only its order is used.

Source: Bazarevsky et al. 2020, "BlazePose: On-device Real-time Body Pose tracking"; weights of MediaPipe, Apache-2.0.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.networks.weights import WEIGHTS, pinned_file
from kg4d.priors.base import Identity, KeypointTracks
from kg4d.priors.progress import counted

WEIGHTS_NAME = "blazepose-full"
SIDE = 256  # of the network's input, px
_MARGIN = 1.25  # of the square, as in MediaPipe
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
        return {"weights": WEIGHTS[WEIGHTS_NAME].member_sha256, "margin": _MARGIN, "passes": _PASSES}

    def __call__(self, images: Float[Tensor, "M H W 4"]) -> KeypointTracks:
        """Detect the keypoints in each image; weight 0 where nobody is seen, or outside the image."""
        found = [self._detect(image) for image in counted(images, len(images), "images")]
        landmarks = torch.stack([each[0] for each in found])
        seen = torch.tensor([each[1] for each in found])
        joints = torch.stack([landmarks[:, list(rows)].mean(1) for _, rows, _ in _BODY], dim=1)
        uv = joints[..., :2]
        inside = ((uv >= 0) & (uv <= torch.tensor([images.shape[2], images.shape[1]]))).all(-1)
        weights = joints[..., 3] * inside * (seen * (seen > _SURE))[:, None]
        return KeypointTracks(uv, weights, joints[..., 2])

    def _detect(self, image: Float[Tensor, "H W 4"]) -> tuple[Float[Tensor, "39 4"], float]:
        """Landmarks as (x, y, z in px of the image, probability of being visible), and probability of a person."""
        solid = (image[..., 3] > 0.5).nonzero()
        if len(solid) == 0:
            return torch.zeros(39, 4), 0.0
        alpha = image[..., 3:]
        picture = quantize(image[..., :3] * alpha + 1 - alpha).numpy()
        top, bottom = solid.amin(0).numpy()[::-1], (solid.amax(0) + 1).numpy()[::-1]
        square = _Square((top + bottom) / 2, _MARGIN * float((bottom - top).max()), np.array([0.0, -1.0]))
        best, sure = torch.zeros(39, 4), -1.0
        for _ in range(_PASSES):
            landmarks, person = self._run(picture, square)
            if person >= sure:
                best, sure = torch.from_numpy(landmarks).float(), person
            upwards = landmarks[_ABOVE, :2] - landmarks[_HIPS, :2]
            length = float(np.linalg.norm(upwards))
            if person < _SURE or length < 1:
                break
            square = _Square(landmarks[_HIPS, :2], 2 * _MARGIN * length, upwards / length)
        return best, sure

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
