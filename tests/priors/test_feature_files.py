"""Feature maps from files: what is read, what is refused, and how a fit sees them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kg4d.data.records import ImageFiles, Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.geometry.lenses import Lens, Undistortion
from kg4d.geometry.sampling import pixel_centers
from kg4d.pipeline import fit
from kg4d.priors.feature_files import read_feature_maps
from kg4d.priors.flow_features import components
from kg4d.runs.build import build_run_features
from kg4d.runs.read_back import load_run
from tests.make import FRAMES, tiny_scene
from tests.tiny_runs import tiny

SIZE = 32  # of the images here: 4 x 4 maps


def scene_of(size: int = SIZE) -> Scene:
    return tiny_scene().resized(size)


def maps(channels: int = 3, height: int = 4, width: int = 4, frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((frames, channels, height, width)).astype(np.float32)


def write(folder: Path, values: np.ndarray, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(values, start):
        np.save(folder / f"{index}.npy", one)
    return folder


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    values = maps()
    found = read_feature_maps(write(tmp_path, values, start=8), scene_of())  # 8, 9, 10, 11
    assert np.array_equal(found.numpy(), values)


def test_maps_of_any_size_cover_the_image(tmp_path: Path) -> None:
    rows, columns = np.meshgrid(np.arange(24) + 0.5, np.arange(40) + 0.5, indexing="ij")
    plane = np.broadcast_to(np.stack([rows / 24, columns / 40]), (FRAMES, 2, 24, 40)).astype(np.float16)
    found = read_feature_maps(write(tmp_path, plane), scene_of())
    assert found.shape == (FRAMES, 2, 4, 4)
    centers = pixel_centers(4, 4) / 4
    torch.testing.assert_close(found[0, 0, 1:3, 1:3], centers[1:3, 1:3, 1], atol=5e-3, rtol=0)
    torch.testing.assert_close(found[0, 1, 1:3, 1:3], centers[1:3, 1:3, 0], atol=5e-3, rtol=0)
    small = read_feature_maps(write(tmp_path / "one", np.full((FRAMES, 1, 1, 1), 3, np.int32)), scene_of())
    assert torch.equal(small, torch.full((FRAMES, 1, 4, 4), 3.0))


def test_maps_go_through_the_lens_of_their_image(tmp_path: Path) -> None:
    """A function of the line of sight, seen through a lens, is that function in the undistorted image."""
    size = 128
    K = torch.tensor([[140.0, 0, 66.0], [0, 140.0, 60.0], [0, 0, 1]])
    lens = Undistortion.of(Lens(False, (-0.2, *[0.0] * 7)), K, size, size)
    centers = pixel_centers(size, size)
    behind = torch.from_numpy(lens.lens.undistort(((centers.reshape(-1, 2) - K[:2, 2]) / 140).double().numpy()))
    seen = behind.reshape(size, size, 2).nan_to_num(1.0).movedim(-1, 0).float()
    scene = replace(scene_of(size), files=ImageFiles(Size(size, size), (lens,) * FRAMES))
    found = read_feature_maps(write(tmp_path, seen.expand(FRAMES, -1, -1, -1).numpy()), scene)
    true = (8 * pixel_centers(16, 16) - lens.pinhole[:2, 2]) / lens.pinhole.diagonal()[:2]
    inner = slice(1, -1)
    assert float((found[0].movedim(0, -1) - true)[inner, inner].abs().max()) < 1e-3
    plain = read_feature_maps(tmp_path, scene_of(size))
    assert float((plain[0].movedim(0, -1) - true)[inner, inner].abs().max()) > 0.01


def damaged(folder: Path) -> None:
    (folder / "1.npy").write_bytes(b"\x93NUMPY nothing")


def archive(folder: Path) -> None:
    with (folder / "1.npy").open("wb") as file:
        np.savez(file, a=np.ones(3))


def with_objects(folder: Path) -> None:
    np.save(folder / "2.npy", np.array([[[{}]]], dtype=object), allow_pickle=True)


def saved(name: str, values: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, values)


ERRORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "too few": (lambda folder: (folder / "3.npy").unlink(), "holds 3 .npy for 4 frames"),
    "too many": (saved("4.npy", maps()[0]), "holds 5 .npy for 4 frames"),
    "no channels": (saved("0.npy", np.ones((4, 4))), r"0.npy: holds float64 of the shape \(4, 4\)"),
    "nothing in it": (saved("0.npy", np.ones((3, 0, 4))), "of the shape"),
    "complex": (saved("0.npy", np.ones((3, 4, 4), complex)), "holds complex128"),
    "too many channels": (saved("0.npy", np.ones((4097, 1, 1))), "of the shape"),
    "other channels": (saved("2.npy", np.ones((2, 4, 4))), "2.npy: holds 2 channels, those before it 3"),
    "damaged": (damaged, "1.npy: is no readable .npy"),
    "archive": (archive, "1.npy: is an archive"),
    "objects": (with_objects, "2.npy: is no readable .npy"),
    "not finite": (saved("2.npy", np.full((3, 4, 4), np.nan)), "2.npy: holds NaN or infinity"),
    "too large": (saved("2.npy", np.full((3, 4, 4), 1e300)), "beyond those of 32 bits"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_files_that_are_wrong_are_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "maps", maps())
    damage, words = ERRORS[name]
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        read_feature_maps(folder, scene_of())
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "maps.npy").write_bytes(b"")
    with pytest.raises(InputError, match="no such folder"):
        read_feature_maps(tmp_path / "maps.npy", scene_of())


def test_frames_and_mirror_choose_what_is_seen(tmp_path: Path) -> None:
    values, scene = maps(), scene_of()
    words = [f"flow_features.path={write(tmp_path / 'maps', values)}", f"image_size={SIZE}"]

    def seen(*more: str) -> torch.Tensor:
        provider = build_run_features(tiny(tmp_path, *words, *more, file="flag4d"), scene)
        kept = scene.reference.images[:: 2 if "frames.every=2" in more else 1]
        return provider(kept)[:, 10:13]

    whole = components(torch.from_numpy(values))[:, :3]
    torch.testing.assert_close(seen(), whole)
    torch.testing.assert_close(seen("world.mirrored=true"), whole.flip(3))
    torch.testing.assert_close(seen("frames.every=2"), components(torch.from_numpy(values[::2]))[:, :3])


def test_a_fit_watches_files(tmp_path: Path) -> None:
    values = maps(channels=40, height=9, width=13, frames=24)
    words = ("static.steps=1", "dynamic.steps=3", "gaussians.count=100", f"priors.cache={tmp_path / 'cache'}")
    config = tiny(tmp_path, *words, f"flow_features.path={write(tmp_path / 'maps', values)}", file="flag4d")
    run = load_run(fit(config))
    states = dict(run.fitted.representation.named_buffers())
    (kept,) = [value for name, value in states.items() if name.endswith("deformation.maps")]
    assert kept.shape == (24, 42, 3, 4)
    read = torch.from_numpy(values)
    pooled = torch.nn.functional.interpolate(read, (3, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(kept[:, 10:].float(), components(pooled), atol=5e-3, rtol=5e-3)


def test_a_fit_says_before_it_begins_what_is_wrong(tmp_path: Path) -> None:
    config = tiny(tmp_path, f"flow_features.path={write(tmp_path / 'maps', maps())}", file="flag4d")
    with pytest.raises(InputError, match="holds 4 .npy for 24 frames"):
        fit(config)
