"""A contact sheet of a prepared scene, to see at a glance what the priors got wrong."""

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.spans import evenly_spaced

_COLUMNS = 8


def preview(scene: Scene) -> Float[Tensor, "height width 3"]:
    """Draw a scene: a row of frames with keypoints and bones, a row of mattes, a row of flow, and rows of views.

    Keypoints are green where their confidence is high, red where it is low, and hollow where it is 0. The hue of the
    flow is its direction and the saturation its length; it fades to white where its confidence is low.
    """
    frames = evenly_spaced(len(scene.reference), _COLUMNS)
    rows = [
        _marked(scene.reference, scene.keypoints, frames),
        [quantize(scene.reference.alphas[frame].expand(-1, -1, 3)).numpy() for frame in frames],
    ]
    if scene.flow is not None:
        rows.append(_flow_pictures(scene.flow, evenly_spaced(len(scene.flow.flow), _COLUMNS)))
    if scene.ring is not None:
        views = _marked(scene.ring, scene.keypoints, list(range(len(scene.ring))), ring=True)
        rows += [views[first : first + _COLUMNS] for first in range(0, len(views), _COLUMNS)]
    columns = max(len(row) for row in rows)
    blank = np.full_like(rows[0][0], 255)
    sheet = np.concatenate([np.concatenate(row + [blank] * (columns - len(row)), axis=1) for row in rows])
    return torch.from_numpy(sheet).float() / 255


def _marked(
    posed: PosedImages, keypoints: Keypoints | None, which: list[int], ring: bool = False
) -> list[UInt8[np.ndarray, "H W 3"]]:
    colors = posed.composited(torch.ones(3))
    pictures = [np.ascontiguousarray(quantize(colors[index]).numpy()) for index in which]
    if keypoints is None:
        return pictures
    uv, weights = (keypoints.ring_uv, keypoints.ring_weights) if ring else (keypoints.uv, keypoints.weights)
    if uv is None or weights is None:
        return pictures
    for index, picture in zip(which, pictures, strict=True):
        _draw(picture, uv[index], weights[index], keypoints.parents)
    return pictures


def _draw(
    picture: UInt8[np.ndarray, "H W 3"],
    uv: Float[Tensor, "J 2"],
    weights: Float[Tensor, " J"],
    parents: tuple[int, ...],
) -> None:
    pixels = [(round(x - 0.5), round(y - 0.5)) for x, y in uv.tolist()]  # in OpenCV pixel centres are whole numbers
    size = max(2, picture.shape[0] // 96)
    for pixel, parent, weight in zip(pixels, parents, weights.tolist(), strict=True):
        if parent >= 0 and weight > 0 and weights[parent] > 0:
            cv2.line(picture, pixel, pixels[parent], (90, 90, 90), 1, cv2.LINE_AA)
    for pixel, weight in zip(pixels, weights.tolist(), strict=True):
        color = (round(255 * (1 - weight)), round(200 * weight), 0)
        cv2.circle(picture, pixel, size, color, -1 if weight > 0 else 1, cv2.LINE_AA)


def _flow_pictures(flow: Flow, which: list[int]) -> list[UInt8[np.ndarray, "H W 3"]]:
    lengths = flow.flow.norm(dim=-1)
    used = lengths[flow.weights > 0]
    longest = float(used.quantile(0.98)) if 0 < used.numel() < 1 << 24 else float(lengths.max())
    pictures = []
    for index in which:
        x, y = flow.flow[index].numpy().transpose(2, 0, 1)
        hue = np.degrees(np.arctan2(y, x)) % 360 / 2
        strength = (lengths[index] / max(longest, 1e-6)).clamp(0, 1) * flow.weights[index]
        hsv = np.stack([hue, 255 * strength.numpy(), np.full_like(hue, 255)], axis=-1)
        pictures.append(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))
    return pictures
