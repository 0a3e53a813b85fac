"""Models of COLMAP: images with cameras and points, in `sparse/0`, as text or binary; read by COLMAP's own library.

The images are the frames of a video; their names tell the times (`times_by_name`). Those that `test.txt` names, a line
each, are held out. Lens distortion is undone.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kg4d.data.readers.collected import Collected
from kg4d.data.readers.intrinsics import Intrinsics
from kg4d.data.readers.timing import times_by_name
from kg4d.data.readers.transforms import Listed, read_posed_images
from kg4d.data.readers.viewpoints import refuse_points_behind
from kg4d.data.records import Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud
from kg4d.geometry.cameras import Cameras
from kg4d.utils.reading import is_there, read_table, regular

HELD_OUT = "test.txt"
_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "")
_FILES = ("cameras", "images", "points3D")
_BROWN = ("k1", "k2", "p1", "p2")
_KEYS = {  # of each model's parameters, in COLMAP's order; f is fl_x and fl_y
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fl_x", "fl_y", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fl_x", "fl_y", "cx", "cy", *_BROWN),
    "FULL_OPENCV": ("fl_x", "fl_y", "cx", "cy", *_BROWN, "k3", "k4", "k5", "k6"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4"),
}


class Colmap:
    """Reads models of COLMAP."""

    format = "COLMAP (images/, sparse/0/cameras, images and points3D as .bin or .txt)"

    def recognises(self, path: Path) -> bool:
        """Whether there is a model."""
        return _model(path) is not None

    def read(self, path: Path, size: int | Size | None) -> Scene:
        """Read the registered images; see `Reader.read`."""
        folder = _model(path)
        assert folder is not None  # it was recognised
        model = _read(folder)
        held_out, faults, listed = _held_out(path), Collected(path), {}
        images = list(model.images.values())
        if len(images) - len(held_out) < 2:
            raise InputError(folder, f"has {len(images)} images", "a video needs two at least")
        times = times_by_name([image.name for image in images])
        for time, image in sorted(zip(times, images, strict=True), key=lambda pair: pair[0]):
            with faults.catching():
                listed[image.name] = _listed(path, folder, model, image, time)
        faults.raise_any()
        unknown = sorted(held_out - set(listed))
        if unknown:
            raise InputError(path / HELD_OUT, f"names {unknown[0]}, which the model has not", "correct the list")
        reference = read_posed_images(folder, [listed[name] for name in listed if name not in held_out], size)
        tested = [listed[name] for name in listed if name in held_out]
        test = read_posed_images(folder, tested, size, reference.posed.times) if tested else None
        return Scene(
            name=path.resolve().name,
            reference=reference.posed,
            test=test and test.posed,
            points=_points(folder, model, reference.posed.cameras),
            backdrop=True,
            files=reference.files,
        )


def _model(path: Path) -> Path | None:
    """The folder of the model: the first that has its cameras."""
    folders = (path / name for name in _FOLDERS)
    return next((each for each in folders if any(is_there(each / f"cameras.{end}") for end in ("bin", "txt"))), None)


def _read(folder: Path) -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise InputError(folder, "needs pycolmap, which is not installed", 'pip install "kg4d[sfm]"') from error
    end = "bin" if is_there(folder / "cameras.bin") else "txt"
    for name in _FILES:
        file = folder / f"{name}.{end}"
        if not is_there(file):
            raise InputError(file, "no such file", "export the whole model")
        regular(file)
    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # whatever its parser makes of bytes that are no model
        what = f"cannot be read as a model of COLMAP: {str(error).splitlines()[0][:200] if str(error) else 'damaged'}"
        raise InputError(folder, what, "export it again") from error


def _held_out(path: Path) -> set[str]:
    if not is_there(path / HELD_OUT):
        return set()
    return {line.strip() for line in read_table(path / HELD_OUT).splitlines() if line.strip()}


def _listed(path: Path, folder: Path, model: Any, image: Any, time: float) -> Listed:
    file = path / "images" / image.name
    if not file.resolve().is_relative_to(path.resolve()):
        raise InputError(folder, f"names the image {image.name!r:.60}, outside of images/", "correct the model")
    if not file.is_file():
        raise InputError(file, "no such file", "the model names it: add it to images/")
    camera = model.cameras[image.camera_id]
    name = str(camera.model_name)
    if name not in _KEYS:
        raise InputError(folder, f"the camera model {name} is not known", f"known models: {', '.join(_KEYS)}")
    table: dict[str, Any] = {"camera_model": name, "w": camera.width, "h": camera.height}
    for key, value in zip(_KEYS[name], camera.params.tolist(), strict=True):
        table |= {"fl_x": value, "fl_y": value} if key == "f" else {key: value}
    viewmat = np.eye(4)
    viewmat[:3] = image.cam_from_world().matrix()
    if not np.isfinite(viewmat).all() or not all(math.isfinite(value) for value in camera.params):
        raise InputError(folder, f"the camera of {image.name} holds NaN or infinity", "export the model again")
    intrinsics = Intrinsics.read(folder, 0, table, {})
    return Listed(file, time, None, None, torch.from_numpy(viewmat).float(), intrinsics)


def _points(folder: Path, model: Any, cameras: Cameras) -> PointCloud | None:
    points = list(model.points3D.values())
    if not points:
        return None
    xyz = torch.from_numpy(np.stack([point.xyz for point in points])).float()
    colors = torch.from_numpy(np.stack([point.color for point in points])).float() / 255
    kept = xyz.isfinite().all(-1)
    cloud = PointCloud(xyz[kept], colors[kept])
    refuse_points_behind(folder, cloud, cameras)
    return cloud
