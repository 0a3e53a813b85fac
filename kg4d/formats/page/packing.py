"""A film as bytes, as `film.js` reads them.

The bytes `KG4D`, the length of the header as a little-endian uint32, the header in JSON, and from the next multiple of
4 on the blocks, each at a multiple of 4. Numbers are little-endian. Centres are uint16 in the box of all frames,
quaternions int16 of unit length, logarithms of scales uint16 between the extremes of all frames, colours and opacities
uint8 in [0, 1], harmonics int8 up to the largest, errors uint8 up to their 99th percentile with 255 for what nothing
shows, keypoints float32. A block has the rows of all frames, one frame
after the other, or those of one (`once`) where all frames have the same.
"""

import colorsys
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.formats.page.film import CameraPath, Film
from kg4d.gaussians.state import GaussianState
from kg4d.metrics.keys import METRIC_KEYS

MAGIC = b"KG4D"
_UP = (0.0, 1.0, 0.0)
_TURN = 137.508  # degrees of hue from one keypoint to the next, so that neighbours differ
_UNSEEN = 255


def pack(film: Film) -> bytes:
    """The bytes of a film; the same film gives the same bytes."""
    states = [state.detach().to("cpu") for state in film.states]
    blocks = _Blocks([len(state) for state in states])
    header: dict[str, Any] = {
        "title": film.title,
        "note": film.note,
        "fps": film.fps,
        "times": film.times.tolist(),
        "counts": blocks.counts,
        "linked": len(set(blocks.counts)) == 1,
        "background": film.background,
        "up": _up(film.paths[0]),
        "names": list(film.names) if film.keypoints is not None else [],
        "parents": list(film.parents) if film.keypoints is not None else [],
        "metrics": _figures(film.metrics),
        **_gaussians(blocks, states),
        **_owners(blocks, states, film.names),
        **_errors(blocks, film),
        "views": [_view(blocks, path) for path in film.paths],
    }
    if film.keypoints is not None:
        blocks.add("keypoints", film.keypoints.detach().float().cpu().numpy())
    header["blocks"] = blocks.table
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    start = MAGIC + len(text).to_bytes(4, "little") + text
    return start + bytes(-len(start) % 4) + bytes(blocks.content)


class _Blocks:
    """Blocks one behind the other, with a table of where they begin.

    Attributes:
        counts: Gaussians in each frame.
        table: Type, offset, and length of each named block in numbers.
        content: The blocks.
    """

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.table: dict[str, dict[str, Any]] = {}
        self.content = bytearray()

    def put(self, content: bytes) -> int:
        """Append; returns where it begins."""
        offset = len(self.content)
        self.content += content + bytes(-len(content) % 4)
        return offset

    def add(self, name: str, values: np.ndarray, **further: Any) -> None:
        """Append numbers under a name."""
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        self.table[name] = {"type": kind, "offset": self.put(little.tobytes()), "length": values.size, **further}

    def add_rows(self, name: str, frames: Sequence[np.ndarray]) -> None:
        """Append the rows of all frames, or those of one where all frames have the same."""
        same = all(np.array_equal(frames[0], frame) for frame in frames[1:])
        self.add(name, frames[0] if same else np.concatenate(list(frames)), once=same)


def _gaussians(blocks: _Blocks, states: Sequence[GaussianState]) -> dict[str, Any]:
    """Add what is drawn; returns what is needed to read it."""
    shapes = [state.ellipsoids for state in states]
    means = [state.means.double() for state in states]
    logs = [shape.scales.double().log() for shape in shapes]
    every = torch.cat(means) if any(blocks.counts) else torch.zeros(1, 3, dtype=torch.float64)
    low, high = every.amin(0), every.amax(0)
    sizes = torch.cat(logs) if any(blocks.counts) else torch.zeros(1, 3, dtype=torch.float64)
    least, most = sizes.min(), sizes.max()
    blocks.add_rows(
        "means", [_levels((mean - low) / (high - low).clamp_min(1e-300), 65535, np.uint16) for mean in means]
    )
    unit = [shape.quats.double() / shape.quats.double().norm(dim=-1, keepdim=True) for shape in shapes]
    blocks.add_rows("quats", [_levels(quats, 32767, np.int16) for quats in unit])
    blocks.add_rows(
        "scales", [_levels((log - least) / (most - least).clamp_min(1e-300), 65535, np.uint16) for log in logs]
    )
    blocks.add_rows("colors", [_levels(state.colors.clamp(0, 1), 255, np.uint8) for state in states])
    blocks.add_rows("opacities", [_levels(state.opacities.clamp(0, 1), 255, np.uint8) for state in states])
    return {
        "box": [low.tolist(), high.tolist()],
        "log_scales": [float(least), float(most)],
        **_harmonics(blocks, states),
    }


def _harmonics(blocks: _Blocks, states: Sequence[GaussianState]) -> dict[str, Any]:
    given = [state.harmonics for state in states if state.harmonics is not None]
    if len(given) < len(states):
        return {"harmonics_count": 0}
    top = max((float(harmonics.abs().max()) for harmonics in given if harmonics.numel()), default=0.0) or 1.0
    blocks.add_rows("harmonics", [_levels(harmonics / top, 127, np.int8) for harmonics in given])
    return {"harmonics_count": given[0].shape[1], "harmonics": top}


def _owners(blocks: _Blocks, states: Sequence[GaussianState], names: Sequence[str]) -> dict[str, Any]:
    """Add the colour of each Gaussian, mixed from those of the keypoints by the weights that it has of each.

    These are its skinning weights, else its part in the keypoints' places (eq. 7), in the sum of 1 over the keypoints.
    """
    given = [state.skinning_logits for state in states if state.skinning_logits is not None]
    skinned = len(given) == len(states) and given[0].shape[1] > 0
    logits = given if skinned else [state.keypoint_logits.log_softmax(0) for state in states]
    count = logits[0].shape[1]
    hues = torch.tensor([_hue(index) for index in range(max(count, len(names)))]).reshape(-1, 3)
    if count:
        mixed = [rows.softmax(1) @ hues[:count].to(rows) for rows in logits]
        blocks.add_rows("owners", [_levels(rows.clamp(0, 1), 255, np.uint8) for rows in mixed])
    return {
        "hues": hues.tolist(),
        "owner_names": list(names) if len(names) == count else [f"frame {index}" for index in range(count)],
        "owned_by": "Mixed by the skinning weights of each Gaussian"
        if skinned
        else "Mixed by the part of each Gaussian in the keypoints",
    }


def _hue(index: int) -> tuple[float, float, float]:
    """RGB in [0, 1], bright enough for a dark and dark enough for a light background."""
    return colorsys.hls_to_rgb(index * _TURN % 360 / 360, 0.45 if index % 2 else 0.58, 0.75)


def _errors(blocks: _Blocks, film: Film) -> dict[str, Any]:
    """Add how far the pictures are off where each Gaussian is seen."""
    seen = torch.cat([rows[rows.isfinite()] for rows in film.errors]) if film.errors else torch.zeros(0)
    if not len(seen):
        return {"errors_top": 0, "errors_of": ""}
    top = float(np.quantile(seen.numpy(), 0.99)) or 1.0
    levels = [(rows / top).clamp(0, 1).nan_to_num(_UNSEEN / (_UNSEEN - 1)) for rows in film.errors]
    blocks.add_rows("errors", [_levels(rows, _UNSEEN - 1, np.uint8) for rows in levels])
    return {"errors_top": top, "errors_of": film.errors_of}


def _view(blocks: _Blocks, path: CameraPath) -> dict[str, Any]:
    cameras, shots = path.cameras, []
    for index, time in enumerate(path.times.tolist()):
        K = cameras.Ks[index]
        shot: dict[str, Any] = {
            "time": time,
            "viewmat": cameras.viewmats[index].flatten().tolist(),
            "K": [K[0, 0].item(), K[1, 1].item(), K[0, 2].item(), K[1, 2].item()],
        }
        if path.pictures:
            picture = path.pictures[index]
            shot["picture"] = {"offset": blocks.put(picture), "length": len(picture)}
        shots.append(shot)
    size = {"width": cameras.width, "height": cameras.height}
    return {"name": path.name, "held_out": path.held_out, **size, "shots": shots}


def _up(path: CameraPath) -> list[float]:
    """What hands turn the camera about: +Y, or what is up in the first picture where that is far from it."""
    seen: Float[Tensor, " 3"] = -path.cameras.viewmats[0, 1, :3]
    return list(_UP) if float(seen[1]) > 0.5 else seen.tolist()


def _figures(metrics: Mapping[str, float]) -> dict[str, dict[str, str]]:
    table = {}
    for key, value in metrics.items():
        known = METRIC_KEYS.get(key)
        unit, arrow = (known.unit, known.arrow) if known else ("", "")
        table[key] = {
            "label": " ".join(word for word in (key, arrow, f"({unit})" if unit else "") if word),
            "value": f"{value:.4g}",
            "meaning": known.meaning if known else key,
        }
    return table


def _levels(values: Tensor, top: int, kind: type[np.generic]) -> np.ndarray:
    return (values.double() * top).round().numpy().astype(kind)
