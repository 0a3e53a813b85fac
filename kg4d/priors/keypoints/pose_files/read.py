"""From a file or folder of keypoints to what it holds; its format is recognised by its content."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kg4d.errors import InputError
from kg4d.priors.keypoints.marked import SupportKeypoints, parse_support
from kg4d.priors.keypoints.pose_files.coco import is_coco, parse_coco
from kg4d.priors.keypoints.pose_files.deeplabcut import is_deeplabcut, parse_deeplabcut
from kg4d.priors.keypoints.pose_files.hdf5 import MAGIC, read_hdf5
from kg4d.priors.keypoints.pose_files.openpose import ENDING, is_openpose, parse_openpose
from kg4d.priors.keypoints.pose_files.own import is_own, is_tracked, parse_tracks
from kg4d.priors.keypoints.pose_files.poses import Poses
from kg4d.utils.reading import read_json, read_table, regular

_FORMATS = (
    "give COCO keypoints, OpenPose (a file, or a folder of *_keypoints.json), DeepLabCut (.csv, .h5), an analysis file "
    'of SLEAP (.h5), {"names": [...], "parents": [...], "uv": [...]}, or a keypoints.npz'
)


def read_keypoint_file(path: Path, width: int, height: int) -> SupportKeypoints | Poses:
    """Read keypoints of the first frame in our own JSON, or poses in any other format.

    Args:
        path: A file, or a folder of OpenPose's files.
        width: Width of the input, px.
        height: Height of the input, px.

    Raises:
        InputError: The file is unreadable, malformed, or of no known format.
    """
    if path.is_dir():
        return parse_openpose(_folder(path))
    try:
        with regular(path).open("rb") as opened:
            is_hdf5 = opened.read(len(MAGIC)) == MAGIC
        if is_hdf5:
            return read_hdf5(path)
        text = read_table(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), _FORMATS) from error
    except ValueError as error:
        raise InputError(path, "is neither text nor HDF5", _FORMATS) from error
    if is_deeplabcut(text):
        return parse_deeplabcut(text, path)
    table = _json(path)
    if is_own(table) and not is_tracked(table):
        return parse_support(table, path, width, height)
    return _poses(table, path)


def _poses(table: Any, path: Path) -> Poses:
    if is_own(table):
        return parse_tracks(table, path)
    if is_openpose(table):
        return parse_openpose([(path, table)])
    if is_coco(table):
        return parse_coco(table, path)
    raise InputError(path, "holds keypoints in no format that is known here", _FORMATS)


def _folder(path: Path) -> Sequence[tuple[Path, Any]]:
    files = sorted(file for file in path.iterdir() if file.name.endswith(ENDING))
    if not files:
        raise InputError(path, f"is a folder without any file *{ENDING}", _FORMATS)
    found = [(file, _json(file)) for file in files]
    for file, table in found:
        if not is_openpose(table):
            raise InputError(file, "is no file of OpenPose: it has no list of people", "take it out of the folder")
    return found


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), _FORMATS) from error
    except ValueError as error:
        raise InputError(path, f"is not valid JSON: {str(error)[:200]}", "correct it") from error
