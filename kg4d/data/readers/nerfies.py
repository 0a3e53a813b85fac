"""Scenes of Nerfies, HyperNeRF and NeRF-DS: a hand-held video of a room, and held-out images of a second camera.

`dataset.json` names the images, `metadata.json` says when each was taken, `camera/<id>.json` by which camera and
`rgb/<n>x/<id>.png` what it saw, n times smaller; `points.npy` has points from structure from motion. Lens distortion is
undone. The world is that of the cameras, before `scene.json` scales it, which also says from where to where it lies.

Sources: Park et al. 2021, "Nerfies: deformable neural radiance fields"; Park et al. 2021, "HyperNeRF"; Yan et al. 2023,
"NeRF-DS"; the layout is that of their data sets.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.images import read_mask, resample
from kg4d.data.readers.arrays import Archive
from kg4d.data.readers.collected import Collected
from kg4d.data.readers.intrinsics import Intrinsics
from kg4d.data.readers.transforms import Listed, ReadImages, read_posed_images
from kg4d.data.readers.undistorted import undistort_depth, undistort_flow
from kg4d.data.readers.viewpoints import refuse_points_behind
from kg4d.data.records import Depth, Flow, Scene, Truth
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud, read_points
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.lenses import Lens, Undistortion
from kg4d.geometry.rotations import nearest_rotation
from kg4d.geometry.sampling import sample_image
from kg4d.utils.reading import is_finite, is_there, read_json, shown

DATASET, METADATA, SCENE = "dataset.json", "metadata.json", "scene.json"
DEPTH, FLOW = "gt/depth.npz", "gt/flow.npz"  # of the training images; measured against, and never trained on
POINTS, COLOURED = "points.npy", "points3D_downsample2.ply"
_RANGE: dict[str, list[float] | None] = {"near": None, "far": None, "scale": [1.0]}  # and what holds without them
_RIGID = 1e-3  # largest entry of R Rᵀ - 1
_REGIONS = {  # files of the parts that are measured by themselves, and whether these parts are black in them
    "dynamic": (("gt/mask/{name}.png", False), ("resized_mask/{factor}x/{name}.png.png", True)),
    "covisible": (("gt/covisible/{name}.png", False),),
}


class Nerfies:
    """Reads scenes in the layout of Nerfies, HyperNeRF and NeRF-DS."""

    format = f"Nerfies, HyperNeRF, NeRF-DS ({DATASET}, {METADATA}, camera/, rgb/1x/, {POINTS})"

    def recognises(self, path: Path) -> bool:
        """Whether there is a list of images and a folder of cameras."""
        return is_there(path / DATASET) and (path / "camera").is_dir()

    def read(self, path: Path, size: int | Size | None) -> Scene:
        """Read the training images as the reference video, the others as test images; see `Reader.read`."""
        ids, test_ids = _ids(path)
        factor = _factor(path, ids[0], size)
        times = _times(path, [*ids, *test_ids])
        faults, listed = Collected(path), {}
        for name in (*ids, *test_ids):
            with faults.catching():
                listed[name] = _listed(path, name, factor, times[name])
        faults.raise_any()
        video = sorted((listed[name] for name in ids), key=lambda entry: cast(float, entry.time))
        _refuse_two_at_once(path, video)
        reference = read_posed_images(path / DATASET, video, size)
        held_out = [listed[name] for name in test_ids]
        test = read_posed_images(path / DATASET, held_out, size, reference.posed.times) if held_out else None
        for read, entries in ((reference, video), (test, held_out)):
            if read is not None:
                _refuse_other_sizes(read.grid, entries, factor)
        return Scene(
            name=path.resolve().name,
            reference=reference.posed,
            test=test and test.posed,
            points=_points(path, reference.posed.cameras),
            regions={} if test is None else _regions(path, test_ids, test, factor, size),
            backdrop=True,
            truth=_truth(path, [entry.image.stem for entry in video], reference, size),
            depth_range=_depth_range(path / SCENE),
            files=reference.files,
        )


def _ids(path: Path) -> tuple[list[str], list[str]]:
    """The images of the training and of the test camera."""
    table = _object(path / DATASET)
    ids = {key: _names(path / DATASET, table, key) for key in ("train_ids", "val_ids")}
    both = [name for name in ids["train_ids"] if name in set(ids["val_ids"])]
    if both:
        what = f"{shown(both[0])} is in val_ids too" + (f", and {len(both) - 1} more" if len(both) > 1 else "")
        raise InputError(f"{path / DATASET}: train_ids", what, "no image may be trained on and measured on")
    if len(ids["train_ids"]) < 2:
        raise InputError(f"{path / DATASET}: train_ids", "lists fewer than two images", "a video needs two at least")
    return ids["train_ids"], ids["val_ids"]


def _names(path: Path, table: Mapping[str, Any], key: str) -> list[str]:
    names = table.get(key, [])
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not name or "/" in name or "\0" in name or name.startswith("."):
            raise InputError(f"{path}: {key}", f"must be a list of names of images, not {shown(name)}", "correct it")
    repeated = len(names) - len(set(names))
    if repeated:
        raise InputError(f"{path}: {key}", f"lists {repeated} images twice", "list each once")
    return list(names)


def _object(path: Path) -> Mapping[str, Any]:
    if not is_there(path):
        raise InputError(path, "no such file", "a scene of this layout needs it")
    try:
        table = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not readable JSON: {str(error)[:200]}", "repair or fetch it again") from error
    if not isinstance(table, dict):
        raise InputError(path, "holds no JSON object", "repair or fetch it again")
    return table


def _depth_range(path: Path) -> tuple[float, float] | None:
    """From where to where the scene lies, in the world of the cameras; None where the file does not say."""
    if not is_there(path):
        return None
    table = _object(path)
    if "near" not in table and "far" not in table:
        return None
    near, far, scale = (_numbers(path, table, key, 1, without)[0] for key, without in _RANGE.items())
    if not 0 < near < far or not scale > 0:
        what = f"near, far and scale are {near:g}, {far:g} and {scale:g}"
        raise InputError(path, what, "give 0 < near < far and a positive scale, or leave near and far out")
    return near / scale, far / scale


def _factor(path: Path, name: str, size: int | Size | None) -> int:
    """Which of `rgb/1x`, `rgb/2x`, ... is read: the smallest images that are no smaller than asked for."""
    there = sorted(int(found.name[:-1]) for found in (path / "rgb").glob("*x") if found.name[:-1].isdigit())
    if not there:
        raise InputError(path / "rgb", "holds no folder 1x, 2x, ...", "add the images")
    width, height = _numbers(path / "camera" / f"{name}.json", _camera(path, name), "image_size", 2)
    wanted = Size(round(width), round(height)).within(size)
    enough = [factor for factor in there if width / factor >= wanted.width and height / factor >= wanted.height]
    return there[0] if size is None or not enough else enough[-1]


def _times(path: Path, names: Sequence[str]) -> dict[str, float]:
    """When each image was taken, from 0 for the earliest to 1 for the latest."""
    table, moments = _object(path / METADATA), {}
    for name in names:
        entry = table.get(name)
        if not isinstance(entry, dict):
            raise InputError(f"{path / METADATA}: {name}", "is missing or no object", "say when the image was taken")
        key = next((key for key in ("time_id", "warp_id") if key in entry), "warp_id")
        if not is_finite(entry.get(key)):
            what = f"must be a finite number, not {shown(entry.get(key))}"
            raise InputError(f"{path / METADATA}: {name}.{key}", what, "correct the file")
        moments[name] = float(entry[key])
    first, last = min(moments.values()), max(moments.values())
    if first == last:
        raise InputError(path / METADATA, "gives all images the same time", "a video needs two at least")
    return {name: (moment - first) / (last - first) for name, moment in moments.items()}


def _camera(path: Path, name: str) -> Mapping[str, Any]:
    return _object(path / "camera" / f"{name}.json")


def _listed(path: Path, name: str, factor: int, time: float) -> Listed:
    image, file = path / "rgb" / f"{factor}x" / f"{name}.png", path / "camera" / f"{name}.json"
    camera = _camera(path, name)
    if not image.is_file():
        raise InputError(image, "no such file", f"{DATASET} names it: add it or take it from the list")
    width, height = _numbers(file, camera, "image_size", 2)
    (focal,) = _numbers(file, camera, "focal_length", 1)
    (aspect,) = _numbers(file, camera, "pixel_aspect_ratio", 1, [1.0])
    (skew,) = _numbers(file, camera, "skew", 1, [0.0])
    if min(width, height, focal, aspect) <= 0:
        raise InputError(file, "image_size, focal_length and pixel_aspect_ratio must be positive", "correct it")
    if skew != 0:
        raise InputError(f"{file}: skew", f"is {skew:g}: pixels must be upright", "give images without skew")
    center = _numbers(file, camera, "principal_point", 2)
    radial = _numbers(file, camera, "radial_distortion", 3, [0.0, 0.0, 0.0])
    key = "tangential_distortion" if "tangential_distortion" in camera else "tangential"
    tangential = _numbers(file, camera, key, 2, [0.0, 0.0])
    lens = Lens(False, (*radial[:2], *tangential, radial[2], 0.0, 0.0, 0.0))
    intrinsics = Intrinsics(
        file,
        size=(width, height),
        focal=(focal, focal * aspect),
        angle=None,
        center=(center[0], center[1]),
        lens=lens if lens.bends else None,
    )
    return Listed(image, time, None, None, _viewmat(file, camera), intrinsics)


def _viewmat(file: Path, camera: Mapping[str, Any]) -> Float[Tensor, "4 4"]:
    """World to camera, from `orientation` (a rotation, world to camera, OpenCV axes) and `position`."""
    rows = camera.get("orientation")
    flat = [entry for row in rows if isinstance(row, list) for entry in row] if isinstance(rows, list) else []
    if len(flat) != 9 or not all(is_finite(entry) for entry in flat):
        raise InputError(f"{file}: orientation", "is missing, or no 3 x 3 matrix of finite numbers", "correct it")
    rotation = torch.tensor(flat, dtype=torch.float64).reshape(3, 3)
    wrong = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().max()
    if wrong > _RIGID or torch.linalg.det(rotation) < 0:
        raise InputError(f"{file}: orientation", "is no rotation: it scales, shears or mirrors", "correct it")
    rotation = nearest_rotation(rotation)
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ torch.tensor(_numbers(file, camera, "position", 3), dtype=torch.float64)
    return viewmat.float()


def _numbers(
    file: Path, table: Mapping[str, Any], key: str, count: int, without: list[float] | None = None
) -> list[float]:
    value = table.get(key, without)
    values = value if isinstance(value, list) else [value]
    if len(values) != count or not all(is_finite(number) for number in values):
        wanted = "a finite number" if count == 1 else f"{count} finite numbers"
        raise InputError(f"{file}: {key}", f"must be {wanted}, not {shown(value)}", "correct it")
    return [float(cast(float, number)) for number in values]


def _refuse_two_at_once(path: Path, video: Sequence[Listed]) -> None:
    for before, after in itertools.pairwise(video):
        if before.time == after.time:
            what = f"{before.image.stem} and {after.image.stem} show the same time"
            raise InputError(f"{path / DATASET}: train_ids", what, "keep one camera for training")


def _refuse_other_sizes(grid: Size, entries: Sequence[Listed], factor: int) -> None:
    """Check that images are as large as their cameras say; sides of reduced ones are rounded up or down."""
    for entry in entries:
        width, height = entry.intrinsics.size or grid
        if abs(grid.width - width / factor) >= 1 or abs(grid.height - height / factor) >= 1:
            what = f"says {width:g} x {height:g}, but {entry.image.name} is {grid} in {factor}x"
            raise InputError(f"{entry.intrinsics.path}: image_size", what, "correct either")


def _points(path: Path, cameras: Cameras) -> PointCloud | None:
    """The points of structure from motion, with colours where there are any."""
    if not is_there(path / POINTS):
        return None
    cloud = read_points(path / POINTS)
    if is_there(path / COLOURED):
        coloured = read_points(path / COLOURED)
        if coloured.points.shape == cloud.points.shape:
            cloud = coloured
    refuse_points_behind(path / POINTS, cloud, cameras)
    return cloud


def _regions(
    path: Path, ids: Sequence[str], test: ReadImages, factor: int, size: int | Size | None
) -> dict[str, Bool[Tensor, "M H W"]]:
    """Parts of the test images that are measured by themselves, where all images have them."""
    regions: dict[str, Tensor] = {}
    for region, kinds in _REGIONS.items():
        for pattern, black in kinds:
            files = [path / pattern.format(name=name, factor=factor) for name in ids]
            if region not in regions and all(file.is_file() for file in files):
                lenses = zip(files, test.lenses, strict=True)
                masks = torch.stack([_mask(file, lens, test.grid, size) for file, lens in lenses])
                regions[region] = ~masks if black else masks
    return regions


def _truth(path: Path, names: Sequence[str], reference: ReadImages, size: int | Size | None) -> Truth | None:
    """What `gt/` knows of the training images, in the order of `names`: depth, flow to the next one, what moves."""
    grid, files, depth, flow, moving = reference.grid, reference.files, None, None, None
    axes = {"T": len(names), "T-1": len(names) - 1, "H": grid.height, "W": grid.width}
    if is_there(path / DEPTH):
        archive = Archive(path / DEPTH, ("depth",), **axes)
        values = archive.numbers("depth", "T H W")
        known = (values > 0) & values.isfinite()
        depth = undistort_depth(Depth(torch.where(known, values, 0), known.float()), files)
    if is_there(path / FLOW):
        archive = Archive(path / FLOW, ("flow", "valid"), **axes)
        valid = archive.weights("valid", "T-1 H W")
        values = archive.numbers("flow", "T-1 2 H W").movedim(1, -1).contiguous()
        valid = valid * values.isfinite().all(-1)
        flow = undistort_flow(Flow(values.nan_to_num(0.0), valid), files.lenses)
    masks = [path / f"gt/mask/{name}.png" for name in names]
    if all(mask.is_file() for mask in masks):
        lenses = zip(masks, files.lenses, strict=True)
        moving = torch.stack([_mask(mask, lens, grid, None) for mask, lens in lenses])
    if depth is None and flow is None and moving is None:
        return None
    truth = Truth(depth, flow, moving)
    return truth if size is None else truth.resized(grid, size)


def _mask(file: Path, lens: Undistortion | None, grid: Size, size: int | Size | None) -> Bool[Tensor, "H W"]:
    mask = read_mask(file)[None]
    if Size.of(mask.shape) != grid:
        mask = resample(mask, *grid)
    if lens is not None:
        mask = sample_image(mask[0], lens.source)[None]
    return resample(mask, *grid.within(size))[0, ..., 0] > 0.5
