"""Cameras and points of a casual video of a place, by structure from motion: COLMAP, with what moves masked out.

All frames share one camera with one radial coefficient. The result is a model of COLMAP with its images, which
`kg4d.data.readers.colmap` reads; its points keep their reprojection errors.

Source: Schoenberger and Frahm 2016, "Structure-from-motion revisited".
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d import __version__
from kg4d.data.images import write_png
from kg4d.data.readers.scene_folder import RECORD
from kg4d.data.scene_writer import check_writable
from kg4d.data.spans import Span
from kg4d.data.videos import Clip, read_clip
from kg4d.errors import InputError
from kg4d.priors.files import hash_of
from kg4d.priors.flow import dis_both_ways
from kg4d.utils.files import replacing_folder

_log = logging.getLogger(__name__)

_FEWEST_POINTS = 50  # of a model that is worth anything
_REGISTERED = 0.9  # share of the frames that must have a camera
_PARALLAX = 2.0  # degrees; median angle between the rays to a point, below which a camera has hardly moved
_EXHAUSTIVE = 120  # frames up to which each is matched with each; beyond, with the ones around it
_OFF = 1.5  # px off the epipolar line that the static part of a place still is
_GROWN = 7  # px that a mask is grown by
_LARGEST = 0.5  # share of a frame that may move; a mask that says more is wrong


class Structure(NamedTuple):
    """How a reconstruction went."""

    frames: int  # of the video
    registered: int  # of them with a camera
    points: int
    reprojection_px: float  # mean error of the points
    parallax: float  # degrees, median over the points of the largest angle between two of their rays


def prepare_place(source: Path, out: Path, span: Span, seed: int = 0) -> Structure:
    """Make a scene folder of a video of a place; it appears complete or not at all.

    Args:
        source: A video or a folder of frames.
        out: The folder to write; must not exist or be empty.
        span: Which frames are used.
        seed: Of the random choices of COLMAP.

    Raises:
        InputError: pycolmap is not installed, the input is no video, or no cameras can be found; it says why.
    """
    check_writable(out)
    colmap = _library()
    clip = read_clip(source, span)
    if len(clip.frames) < 3:
        raise InputError(source, f"has {len(clip.frames)} frames", "cameras=sfm needs a video of a moving camera")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        names = _write_frames(clip, work)
        found = _reconstruct(colmap, work, len(names), seed)
        structure = _judged(source, found, len(names))
        with replacing_folder(out) as part:
            model = part / "sparse" / "0"
            model.mkdir(parents=True)
            found.write_binary(str(model))
            (part / "images").mkdir()
            for image in found.images.values():
                shutil.copy(work / "images" / image.name, part / "images" / image.name)
            (part / RECORD).write_text(json.dumps(_record(source, clip, structure), indent=1), encoding="utf-8")
    return structure


def _library() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise InputError(
            "--cameras sfm", "needs pycolmap, which is not installed", 'pip install "kg4d[sfm]"'
        ) from error
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    return pycolmap


def _write_frames(clip: Clip, work: Path) -> list[str]:
    """The frames, and masks that are black where COLMAP must not look."""
    (work / "images").mkdir()
    (work / "masks").mkdir()
    moving, names = moving_parts(clip.frames), []
    for index, (frame, mask) in enumerate(zip(clip.frames, moving, strict=True)):
        name = f"{index:06d}.png"
        write_png(work / "images" / name, frame[..., :3])
        write_png(work / "masks" / f"{name}.png", (~mask).float()[..., None].expand(-1, -1, 3))
        names.append(name)
    return names


def moving_parts(video: Float[Tensor, "T H W 4"]) -> Bool[Tensor, "T H W"]:
    """Where a video of a moving camera shows something that moves by itself.

    The flow between two frames of what stands still lies on epipolar lines. What is off them, to the next frame or from
    the one before, moves.
    """
    forward, backward = dis_both_ways(video)
    masks = torch.zeros(video.shape[:3], dtype=torch.bool)
    for index, (there, back) in enumerate(zip(forward, backward, strict=True)):
        masks[index] |= _off_lines(there)
        masks[index + 1] |= _off_lines(back)
    for index, mask in enumerate(masks):
        grown = cv2.morphologyEx(mask.numpy().astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        grown = cv2.dilate(grown, np.ones((2 * _GROWN + 1,) * 2, np.uint8))
        masks[index] = torch.from_numpy(grown > 0) if grown.mean() < _LARGEST else False
    return masks


def _off_lines(flow: Float[Tensor, "H W 2"]) -> Bool[Tensor, "H W"]:
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    start = np.stack([columns, rows], -1).reshape(-1, 2)
    end = start + flow.reshape(-1, 2).numpy()
    some = slice(None, None, max(1, len(start) // 4000))
    cv2.setRNGSeed(0)
    F, _ = cv2.findFundamentalMat(start[some], end[some], cv2.FM_RANSAC, _OFF / 3, 0.999, 2000)
    if F is None or F.shape != (3, 3):
        return torch.zeros(height, width, dtype=torch.bool)
    ones = np.ones((len(start), 1))
    lines, back = np.hstack([start, ones]) @ F.T, np.hstack([end, ones]) @ F
    product = (np.hstack([end, ones]) * lines).sum(-1)
    length = (lines[:, :2] ** 2).sum(-1) + (back[:, :2] ** 2).sum(-1)  # Sampson: to first order, both ends may be off
    distance = np.abs(product) / np.sqrt(np.maximum(length, 1e-12))
    return torch.from_numpy(distance.reshape(height, width) > _OFF)


def _reconstruct(colmap: Any, work: Path, count: int, seed: int) -> Any:
    """The largest model that COLMAP finds; None where it finds none."""
    colmap.set_random_seed(seed)
    database, images = work / "database.db", work / "images"
    reader, extraction = colmap.ImageReaderOptions(), colmap.FeatureExtractionOptions()
    reader.camera_model, reader.mask_path = "SIMPLE_RADIAL", work / "masks"
    extraction.use_gpu = False
    extraction.num_threads = 1  # with several, the order of the features is chance
    colmap.extract_features(
        database, images, camera_mode=colmap.CameraMode.SINGLE, reader_options=reader, extraction_options=extraction
    )
    matching = colmap.FeatureMatchingOptions()
    matching.use_gpu, matching.num_threads = False, 1
    if count <= _EXHAUSTIVE:
        colmap.match_exhaustive(database, matching_options=matching)
    else:
        colmap.match_sequential(database, matching_options=matching)
    options = colmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, seed
    (work / "models").mkdir()
    found = colmap.incremental_mapping(database, images, work / "models", options)
    return max(found.values(), key=lambda model: model.num_reg_images(), default=None)


def _judged(source: Path, model: Any, count: int) -> Structure:
    """How good a model is.

    Raises:
        InputError: It is no good; the message says why and what to do.
    """
    remedy = "film again: walk sideways around what you film, slowly, with texture in view; or give cameras of your own"
    if model is None or model.num_points3D() < _FEWEST_POINTS:
        points = 0 if model is None else model.num_points3D()
        raise InputError(source, f"too few matches between its frames: {points} points in space were found", remedy)
    registered = model.num_reg_images()
    if registered < _REGISTERED * count:
        what = f"cameras were found for {registered} of {count} frames: the video has cuts, blur or too little texture"
        raise InputError(source, what, remedy)
    structure = Structure(
        count, registered, model.num_points3D(), float(model.compute_mean_reprojection_error()), _parallax(model)
    )
    if structure.parallax < _PARALLAX:
        what = f"the camera turns but hardly moves: rays to the same point differ by {structure.parallax:.1f} degrees"
        raise InputError(source, what, remedy)
    if registered < count:
        _log.warning("%s: %d of %d frames have no camera and are left out", source, count - registered, count)
    return structure


def _parallax(model: Any) -> float:
    """Median over the points of the largest angle between the rays from their first camera and any other, degrees."""
    centers = {key: np.asarray(image.projection_center()) for key, image in model.images.items()}
    angles = []
    for point in model.points3D.values():
        rays = np.stack([point.xyz - centers[element.image_id] for element in point.track.elements])
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip(rays @ rays[0], -1, 1).min())))
    return float(np.median(angles))


def _record(source: Path, clip: Clip, structure: Structure) -> dict[str, Any]:
    return {
        "format": 1,
        "package": __version__,
        "source": {
            "path": str(source),
            "sha256": hash_of(source),
            "frames": clip.source_frames,
            "fps": clip.fps,
        },
        "cameras": structure._asdict(),
    }
