"""What a person should know about an input and its mattes before minutes are spent: each finding with its number.

Each function measures one thing, and returns a sentence with a remedy, or None where all is well.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.data.images import quantize

_GREY_SIDE = 320  # px: large enough to see a camera move by a hundredth of the picture
_STRIP = 0.15  # the outer part of the picture, as a fraction of its sides, mostly shows the background
_CORNERS, _LEAST_CORNERS = 200, 12  # followed, and needed to tell a moving camera from noise
_SHIFT = 0.02  # a camera that moves the picture's corners by less, as a fraction of its longer side, is still
_LEVELS, _CHANGED = 12, 1e-4  # levels of 255 beyond the noise of a codec, in more than this fraction of the picture
_JUMP = 1.5  # by this factor a matte may grow or shrink from one frame to the next
_ONE_PART = 0.9  # the largest part has at least this fraction of a matte
_CUT_OFF = 0.01  # this fraction of the border may be object
_MOST = 0.5  # more object than this is more likely background


def findings_in_frames(frames: Float[Tensor, "T H W 4"], background_seen: bool) -> list[str]:
    """What the frames alone tell, in under a second: nothing moves, the camera moves.

    Args:
        frames: Straight RGBA in [0, 1]; T >= 2.
        background_seen: The background is neither transparent nor of one colour, so it shows whether the camera moves.
    """
    found = [nothing_moves(frames), camera_moves(frames[..., :3]) if background_seen else None]
    return [text for text in found if text is not None]


def findings_in_mattes(mattes: Float[Tensor, "T H W 1"], names: Sequence[str]) -> list[str]:
    """What the mattes tell: jumps of their area, several parts, an object cut off by the border, too much object.

    Args:
        mattes: In [0, 1].
        names: Of the frames, as a person knows them.
    """
    solid = (mattes[..., 0] > 0.5).numpy()
    found = [area_jumps(solid, names), several_parts(solid, names), touches_border(solid), mostly_object(solid)]
    return [text for text in found if text is not None]


def nothing_moves(frames: Float[Tensor, "T H W 4"]) -> str | None:
    """Whether all frames show the same: hardly a cell of 4 x 4 px differs from the first frame by more than noise."""
    shown = 255 * F.avg_pool2d((frames[..., :3] * frames[..., 3:]).movedim(-1, 1), 4, ceil_mode=True)
    changed = max(float(((frame - shown[0]).abs().amax(0) > _LEVELS).float().mean()) for frame in shown[1:])
    if changed > _CHANGED:
        return None
    return (
        f"nothing moves: at most {changed:.3%} of the picture changes over {len(frames)} frames; "
        "choose a part of the video with motion (start=SECONDS end=SECONDS)"
    )


def camera_moves(rgb: Float[Tensor, "T H W 3"]) -> str | None:
    """Whether the background moves: a similarity is fitted to the corners of the outer strip, from frame to frame.

    Corners are followed by pyramidal Lucas-Kanade; RANSAC leaves out those on the object.
    """
    height, width = rgb.shape[1:3]
    shrink = min(1.0, _GREY_SIDE / max(height, width))
    size = (max(16, round(width * shrink)), max(16, round(height * shrink)))
    pictures = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in quantize(rgb).numpy()]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    ends = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], np.float64)
    moved, farthest = np.eye(3), 0.0
    for before, after in pairwise(greys):
        step = _similarity(before, after)
        if step is None:  # too smooth a background to tell
            return None
        moved = step @ moved
        farthest = max(farthest, float(np.linalg.norm((ends @ moved.T - ends)[:, :2], axis=1).max()) / max(size))
    if farthest <= _SHIFT:
        return None
    return (
        f"the camera moves: the background shifts by up to {farthest:.0%} of the picture, and the fit takes its camera "
        "for still; stabilise the video, or give a scene folder with a camera for each frame"
    )


def _similarity(before: UInt8[np.ndarray, "H W"], after: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "3 3"] | None:
    """The motion of the outer strip between two frames; None if too few corners could be followed."""
    height, width = before.shape
    strip = np.full_like(before, 255)
    rows, columns = round(_STRIP * height), round(_STRIP * width)
    strip[rows:-rows, columns:-columns] = 0
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 5, mask=strip)
    if corners is None or len(corners) < _LEAST_CORNERS:
        return None
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, corners.copy())
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, there.copy())
    same = np.linalg.norm((back - corners)[:, 0], axis=-1) < 1
    good = (seen[:, 0] == 1) & (seen_back[:, 0] == 1) & same
    if good.sum() < _LEAST_CORNERS:
        return None
    cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's global generator
    fitted, _ = cv2.estimateAffinePartial2D(corners[good], there[good], ransacReprojThreshold=1.0)
    return None if fitted is None else np.vstack([fitted, [0, 0, 1]])


def area_jumps(solid: np.ndarray, names: Sequence[str]) -> str | None:
    """Whether a matte is much larger or smaller than that of the frame before."""
    areas = np.maximum(solid.sum(axis=(1, 2)), 1).astype(float)
    ratios = np.maximum(areas[1:] / areas[:-1], areas[:-1] / areas[1:])
    if not len(ratios) or ratios.max() <= _JUMP:
        return None
    jumps, worst = int((ratios > _JUMP).sum()), int(ratios.argmax())
    return (
        f"the matte's area jumps {jumps} times, most between {names[worst]} and {names[worst + 1]} "
        f"(factor {ratios.max():.1f}): look at the preview; matting.point=[x,y] names the object, "
        "matting.path=FOLDER takes masks of your own"
    )


def several_parts(solid: np.ndarray, names: Sequence[str]) -> str | None:
    """Whether a matte falls into parts, none of which is nearly all of it."""
    shares = [_largest_part(matte) for matte in solid]
    least = int(np.argmin(shares))
    if shares[least] >= _ONE_PART:
        return None
    apart = sum(share < _ONE_PART for share in shares)
    return (
        f"the matte falls into parts in {apart} of {len(shares)} frames: the largest has {shares[least]:.0%} of it in "
        f"{names[least]}; matting.point=[x,y] keeps the part at a pixel of the first frame"
    )


def _largest_part(matte: np.ndarray) -> float:
    """The largest connected part of a matte, as a fraction of it."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(matte.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 1.0


def touches_border(solid: np.ndarray) -> str | None:
    """Whether the object leaves the picture."""
    border = np.concatenate([solid[:, 0], solid[:, -1], solid[:, 1:-1, 0], solid[:, 1:-1, -1]], axis=1).mean(1)
    if border.max() <= _CUT_OFF:
        return None
    return (
        f"the object touches the border in {(border > _CUT_OFF).sum()} of {len(border)} frames, with up to "
        f"{border.max():.0%} of it: what lies beyond is missing; choose frames that show all of it (start=, end=)"
    )


def mostly_object(solid: np.ndarray) -> str | None:
    """Whether so much of the picture is object that the background may be part of it."""
    share = float(solid.mean())
    if share <= _MOST:
        return None
    return (
        f"{share:.0%} of the picture is object: if that is the background, name the object by matting.point=[x,y], or "
        "give masks (matting.path=FOLDER)"
    )
