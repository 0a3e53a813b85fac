"""Inputs of the kinds that people bring: squeezed pixels, still videos, odd names, empty frames, odd PNGs."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.images import quantize, write_png
from kg4d.data.scene import load_scene
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.formats.mp4 import write_mp4
from kg4d.priors.settings import PriorsConfig
from tests.data.test_videos import HEIGHT, WIDTH, encode, numbered
from tests.priors.clips import moving, on_white, save_frames
from tests.priors.commands import prepared


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))


def squeezed(path: Path, sar: str) -> Path:
    """A disc of 12 px, stored with pixels of that shape."""
    frames = np.full((3, HEIGHT, WIDTH, 4), 255, np.uint8)
    frames[:, 6:18, 10:22, :3] = 0
    return encode(path, frames, "-vf", f"setsar={sar}", "-crf", "1")


@pytest.mark.parametrize("sar", ["2/1", "1/2", "4/3", "1/1"])
def test_pixels_become_square(sar: str, tmp_path: Path) -> None:
    wide, high = (int(part) for part in sar.split("/"))
    clip = read_clip(squeezed(tmp_path / "tape.mp4", sar), Span(16))
    size = (round(HEIGHT * max(1, high / wide)), round(WIDTH * max(1, wide / high)))
    assert clip.frames.shape[1:3] == size
    dark = clip.frames[0, ..., 0] < 0.5
    width, height = int(dark.any(0).sum()), int(dark.any(1).sum())
    assert width / height == pytest.approx(wide / high, rel=0.15)


def test_a_still_video_is_said_and_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mp4(tmp_path / "still.mp4", on_white(moving(1)).expand(5, -1, -1, -1), fps=8)
    assert prepared(tmp_path / "still.mp4", tmp_path / "scene") == 0
    said = capsys.readouterr().out
    assert "nothing moves: at most 0.000% of the picture changes over 5 frames" in said
    assert said.index("nothing moves") < said.index("fit it")


def test_what_is_printed_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a  b ü 'c"
    assert prepared(save_frames(tmp_path / "frames"), out) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fit it")]
    words = shlex.split(line.removeprefix("fit it"))
    assert words[:3] == [sys.executable, "-m", "kg4d.fit"]
    assert words[-1] == f"scene={out}"


@pytest.mark.parametrize("kind", ["auto", "files"])
def test_an_empty_matte_names_the_frame_of_the_input(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, masks = save_frames(tmp_path / "frames", 6), tmp_path / "masks"
    for index, frame in enumerate(moving(6)):
        write_png(masks / f"{index}.png", frame[..., 3:].expand(-1, -1, 3) * (index != 4))
    empty = moving(6)[4] * torch.tensor([1.0, 1.0, 1.0, 0.0])
    if kind == "auto":
        write_png(frames / "4.png", empty)
    words = [] if kind == "auto" else [f"matting.path={masks}"]
    assert prepared(frames, tmp_path / "scene", *words) == 2
    line = capsys.readouterr().err
    assert "matting: nothing is opaque in 4.png (leave that frame out" in line
    assert not (tmp_path / "scene").exists()
    assert prepared(frames, tmp_path / "scene", *words, "every=3") == 0


def test_a_frame_without_object_is_named_by_its_place_in_the_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = on_white(moving(9))
    frames[6] = 1.0
    write_mp4(tmp_path / "gone.mp4", frames, fps=8)
    assert prepared(tmp_path / "gone.mp4", tmp_path / "scene", "every=3") == 2
    assert "matting: frame 6: no clear foreground: 0.0%" in capsys.readouterr().err


def grey16(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame[..., 0].astype(np.uint16) * 257)


ODD = {
    "palette": lambda frame: Image.fromarray(frame[..., :3]).quantize(64),
    "grey": lambda frame: Image.fromarray(frame[..., 0]),
    "grey with alpha": lambda frame: Image.fromarray(frame).convert("LA"),
    "16-bit grey": grey16,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pngs_are_prepared_and_read_in_scenes(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, rgba in enumerate(moving()):
        shown = rgba if "alpha" in name else torch.cat([on_white(rgba), torch.ones(96, 96, 1)], dim=-1)
        ODD[name](quantize(shown).numpy()).save(folder / f"{index}.png")
    assert prepared(folder, tmp_path / "scene", "keypoints.kind=none", "flow.kind=none") == 0
    before = load_scene(tmp_path / "scene").reference.images
    assert 0.2 < before[..., 3].mean() < 0.6
    for file in (tmp_path / "scene/train").glob("*.png"):
        with Image.open(file) as image:
            rgba = np.array(image)
        ODD[name](rgba).save(file)
    after = load_scene(tmp_path / "scene").reference.images
    assert (after[..., 0] - before[..., 0]).abs().mean() < 0.1


def test_frames_of_two_sizes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_frames(tmp_path / "frames")
    write_png(folder / "2.png", torch.rand(40, 50, 4))
    assert prepared(folder, tmp_path / "scene") == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "is 50 x 40, 0.png is 96 x 96" in line


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(16), list(range(16))),
        (Span(16, start=0.5), list(range(4, 16))),
        (Span(16, end=1.0), list(range(9))),
        (Span(16, start=0.5, end=1.5, every=4), [4, 8, 12]),
        (Span(3, every=2), [0, 8, 14]),
        (Span(16, end=99.0), list(range(16))),
    ],
)
def test_a_part_of_a_video(span: Span, expected: list[int], tmp_path: Path) -> None:
    clip = read_clip(encode(tmp_path / "count.mp4", numbered(16), "-crf", "1", "-pix_fmt", "yuv444p"), span)
    assert list(clip.picked) == expected
    assert (clip.frames[:, 12, 16, 0] * 51).tolist() == pytest.approx(expected, abs=0.6)
    assert clip.fps == pytest.approx(8 * (len(expected) - 1) / (expected[-1] - expected[0]))


def test_a_part_that_is_no_video_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = save_frames(tmp_path / "frames", 8)
    for words, says in (
        (
            ["start=3"],
            "start: 3 s to its end, every=1, leaves 0 of 8 frames (the input lasts 1 s, at 8 frames a second)",
        ),
        (["start=0.5", "end=0.51"], "end: 0.5 s to 0.51 s, every=1, leaves 1 of 8 frames"),
        (["every=9"], "every: 0 s to its end, every=9, leaves 1 of 8 frames"),
        (["every=0"], "every: must be at least 1, not 0"),
        (["start=-1"], "start: must not be negative"),
        (["start=1", "end=1"], "end: must be later than start"),
        (["matting.point=[3]"], "matting.point: must be a pixel"),
    ):
        assert prepared(frames, tmp_path / "scene", *words) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("start", [-1.0, float("inf"), float("nan")])
def test_a_start_that_is_no_time(start: float) -> None:
    with pytest.raises(ValueError, match="start: must be seconds from 0"):
        PriorsConfig(start=start)


def test_thinning_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = save_frames(tmp_path / "frames", 9)
    words = ("keypoints.kind=none", "flow.kind=none")
    assert prepared(frames, tmp_path / "scene", "frames=3", "start=0.125", *words) == 0
    assert "3 of 9 frames are used: 1 to 8, one in 3.5 (frames, start, end and every choose them)" in (
        capsys.readouterr().out
    )
    assert prepared(frames, tmp_path / "all", *words) == 0
    assert "frames are used" not in capsys.readouterr().out


def test_masks_belong_to_the_frames_that_are_used(tmp_path: Path) -> None:
    frames, masks = save_frames(tmp_path / "frames", 6), tmp_path / "masks"
    for index in range(6):
        mask = torch.zeros(96, 96, 3)
        mask[40:60, 30 : 40 + 2 * index] = 1.0
        write_png(masks / f"{index}.png", mask)
    words = (f"matting.path={masks}", "start=0.2", "every=2", "keypoints.kind=none", "flow.kind=none")
    assert prepared(frames, tmp_path / "scene", *words) == 0
    areas = load_scene(tmp_path / "scene").reference.images[..., 3].sum((1, 2))
    assert (areas / areas[-1]).tolist() == pytest.approx([14 / 18, 1.0], rel=0.05)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["palette", "gray16", "gray_alpha", "rgba16"])
def test_odd_pngs_of_other_people(name: str, data_root: Path, tmp_path: Path) -> None:
    words = ("keypoints.kind=none", "flow.kind=none")
    assert prepared(data_root / "cases/odd_pngs" / name, tmp_path / "scene", *words) == 0


@pytest.mark.realdata
def test_the_other_field_cases(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases, words = data_root / "cases", ("keypoints.kind=none", "flow.kind=none")
    assert read_clip(cases / "anamorphic_sar/sar_2_1.mp4", Span(2)).frames.shape[1:3] == (256, 256)
    assert prepared(cases / "still_video/still.mp4", tmp_path / "still", *words) == 0
    assert "nothing moves" in capsys.readouterr().out
    assert prepared(cases / "empty_mask_frame/frames", tmp_path / "empty", *words) == 2
    assert "matting: nothing is opaque in 005.png" in capsys.readouterr().err
    assert prepared(cases / "odd_pngs/mixed_sizes", tmp_path / "mixed", *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    out = tmp_path / "mov alpha ü"
    assert prepared(cases / "mov_alpha/alpha qtrle.mov", out, *words) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fit it")]
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line.removeprefix('fit it')}"], capture_output=True, text=True
    )
    assert shown.stdout.splitlines()[-1] == f"scene={out}"
