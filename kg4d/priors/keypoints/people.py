"""Keypoints of people, detected in each image separately: RTMPose through rtmlib.

Source: Jiang et al. 2023, "RTMPose". The matte shows where the person is, so no person detector is needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.priors.base import Identity, KeypointTracks
from kg4d.priors.keypoints.settings import PersonConfig
from kg4d.priors.progress import counted
from kg4d.priors.weights import hash_of_weights

# (name, parent) of the 17 keypoints of COCO
COCO = (
    ("nose", None),
    ("left_eye", "nose"),
    ("right_eye", "nose"),
    ("left_ear", "left_eye"),
    ("right_ear", "right_eye"),
    ("left_shoulder", "nose"),
    ("right_shoulder", "nose"),
    ("left_elbow", "left_shoulder"),
    ("right_elbow", "right_shoulder"),
    ("left_wrist", "left_elbow"),
    ("right_wrist", "right_elbow"),
    ("left_hip", "left_shoulder"),
    ("right_hip", "right_shoulder"),
    ("left_knee", "left_hip"),
    ("right_knee", "right_hip"),
    ("left_ankle", "left_knee"),
    ("right_ankle", "right_knee"),
)
COCO_NAMES = tuple(name for name, _ in COCO)
COCO_PARENTS = tuple(-1 if parent is None else COCO_NAMES.index(parent) for _, parent in COCO)


class PersonKeypoints:
    """Detects the 17 COCO keypoints of the matted person.

    Args:
        config: The network.

    Raises:
        InputError: rtmlib is not installed, or the network is not available or cannot be read.
    """

    name = "keypoints-rtmpose"
    names, parents = COCO_NAMES, COCO_PARENTS

    def __init__(self, config: PersonConfig) -> None:
        self.config, self.network = config, _load(config)

    def identity(self) -> Identity:
        """The name of the network, the hash of its file, and the size of its input."""
        weights, config = hash_of_weights(Path(self.network.onnx_model)), self.config
        return {"model": config.model, "weights": weights, "width": config.width, "height": config.height}

    def __call__(self, images: Float[Tensor, "M H W 4"]) -> KeypointTracks:
        """Detect the keypoints in each image; weight 0 if the matte is empty or a keypoint is outside the image."""
        uv, weights = [], []
        for image in counted(images, len(images), "images"):
            found, scores = self._detect(image)
            inside = ((found >= 0) & (found <= torch.tensor([image.shape[1], image.shape[0]]))).all(-1)
            uv.append(found)
            weights.append(scores.clamp(0, 1) * inside)
        return KeypointTracks(torch.stack(uv), torch.stack(weights))

    def _detect(self, image: Float[Tensor, "H W 4"]) -> tuple[Float[Tensor, "17 2"], Float[Tensor, " 17"]]:
        solid = (image[..., 3] > 0.5).nonzero()
        if len(solid) == 0:
            return torch.zeros(len(COCO), 2), torch.zeros(len(COCO))
        (top, left), (bottom, right) = solid.amin(0).tolist(), (solid.amax(0) + 1).tolist()
        alpha = image[..., 3:]
        bgr = quantize(image[..., :3] * alpha + 1 - alpha).numpy()[..., ::-1]
        found, scores = self.network(np.ascontiguousarray(bgr), bboxes=[[left, top, right, bottom]])
        # in rtmlib pixel centres are whole numbers
        return torch.from_numpy(np.asarray(found[0])).float() + 0.5, torch.from_numpy(np.asarray(scores[0])).float()


def _load(config: PersonConfig) -> Any:
    try:
        from rtmlib import RTMPose
    except ImportError as error:
        remedy = 'pip install "kg4d[people]", or mark the keypoints of the first frame yourself'
        raise InputError("keypoints.kind", "RTMPose needs rtmlib, which is not installed", remedy) from error
    try:
        return RTMPose(config.model, model_input_size=(config.width, config.height), backend="onnxruntime")
    except Exception as error:  # the library raises many kinds for networks and files
        what = (
            f"RTMPose {config.model} cannot be had: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        )
        remedy = "give its ONNX file, or run once where there is a network"
        raise InputError("keypoints.person.model", what, remedy) from error
