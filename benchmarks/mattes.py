"""Mattes of rendered characters in front of photographs against their true mattes.

The photographs are parts, 90 degrees wide, of the panoramas of real places (Poly Haven, CC0) that come with viser. Each
of ten has the three characters of gltf4d in front of it, in frames 0, 5, 10 and so on: 30 stills. The clips have a
still camera: 8 frames of each character, in place and walking through the picture.
"""

import importlib.util
import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks._harness import Row, arguments, report
from kg4d.data.images import resize_rgba
from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from kg4d.priors.base import Matting
from kg4d.priors.matting import GrabCutMatting
from kg4d.priors.saliency import NetworkMatting, StillCameraMatting
from kg4d.priors.settings import MattingConfig

SCENES = ("cesium_man", "fox", "drone")
SIDE, WIDE = 256, 90.0  # px and degrees of a photograph
TRUTH = "truth of gltf4d"


def panoramas() -> list[Path]:
    """Of real places, from the package viser, which is not loaded."""
    found = importlib.util.find_spec("viser")
    if found is None or found.origin is None:
        raise SystemExit("the photographs come with viser: pip install viser")
    return sorted((Path(found.origin).parent / "_assets/hdri").glob("*.jpg"))


def photograph(panorama: Path, azimuth: float) -> Tensor:
    """The part of an equirectangular panorama that a camera sees: (SIDE, SIDE, 3) in [0, 1]."""
    whole = cv2.cvtColor(cv2.imread(str(panorama)), cv2.COLOR_BGR2RGB)
    height, width = whole.shape[:2]
    focal = SIDE / 2 / math.tan(math.radians(WIDE / 2))
    x, y = np.meshgrid(np.arange(SIDE) + 0.5 - SIDE / 2, np.arange(SIDE) + 0.5 - SIDE / 2)
    longitude = math.radians(azimuth) + np.arctan2(x, focal)
    latitude = np.arctan2(y, np.hypot(x, focal))
    columns = (longitude / (2 * math.pi) % 1 * width - 0.5).astype(np.float32)
    rows = ((latitude / math.pi + 0.5) * height - 0.5).astype(np.float32)
    seen = cv2.remap(whole, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return torch.from_numpy(seen).float() / 255


def before(rgba: Tensor, background: Tensor) -> Tensor:
    """Straight RGBA on a background."""
    return rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])


def iou(matting: Matting, rgb: Tensor, alphas: Tensor) -> float:
    """Mean over the frames; 0 where the matting says that there is no object."""
    try:
        found = matting(rgb) > 0.5
    except InputError:
        return 0.0
    true = alphas > 0.5
    both, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return float((both / either).mean())


def inside(alpha: Tensor) -> tuple[float, float]:
    """The pixel (x, y) of a matte that is farthest from its outline: where a person would click."""
    depth = cv2.distanceTransform((alpha[..., 0] > 0.5).to(torch.uint8).numpy(), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(x), float(y)


def row(claim: str, values: list[float], bar: float | None = None) -> Row:
    """The mean of IoUs."""
    return Row(f"{claim}: IoU, mean of {len(values)}", sum(values) / len(values), "", bar, "higher", TRUTH)


def still_rows(videos: dict[str, Tensor]) -> list[Row]:
    """Single pictures: what stands out, with and without a point, against GrabCut."""
    means: dict[str, list[float]] = {"grabcut": [], "network": [], "network with a point": []}
    for number, rgba in enumerate(videos.values()):
        for place, panorama in enumerate(panoramas()):
            frame = rgba[5 * place % len(rgba)]
            rgb, alpha = (
                before(frame, photograph(panorama, 77 * (3 * number + place) % 360))[None],
                frame[None, ..., 3:],
            )
            means["grabcut"].append(iou(GrabCutMatting(), rgb, alpha))
            means["network"].append(iou(NetworkMatting(), rgb, alpha))
            means["network with a point"].append(iou(NetworkMatting(inside(alpha[0])), rgb, alpha))
    bars = {"network": 0.9}
    return [row(f"stills, {name}", values, bars.get(name)) for name, values in means.items()]


def clip_rows(videos: dict[str, Tensor]) -> list[Row]:
    """Clips of a still camera: the median over time."""
    rows = []
    for motion, step in (("in place", 0), ("walking", 10)):
        means = []
        for number, rgba in enumerate(videos.values()):
            smaller = resize_rgba(rgba[::2], SIDE // 2, SIDE // 2)
            clip = torch.zeros(len(smaller), SIDE, SIDE, 4)
            for t, frame in enumerate(smaller):
                left = 64 + step * t - 4 * step
                clip[t, 90 : 90 + SIDE // 2, left : left + SIDE // 2] = frame
            rgb = before(clip, photograph(panoramas()[4 + number], 120 * number))
            means.append(iou(StillCameraMatting(MattingConfig().tolerance), rgb, clip[..., 3:]))
        rows.append(row(f"clips {motion}, still", means))
    return rows


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__)
    data = Path(os.environ.get("KG4D_DATA", Path(__file__).parents[2] / "shared/data"))
    videos = {name: load_scene(data / "gltf4d" / name).reference.images for name in SCENES}
    report([*still_rows(videos), *clip_rows(videos)], options.json)


if __name__ == "__main__":
    main()
