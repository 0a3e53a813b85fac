"""A wrong input is one line and exit status 2, and leaves nothing behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.images import quantize, write_png
from kg4d.data.scene import load_scene
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.errors import InputError
from kg4d.formats.mp4 import write_mp4
from kg4d.priors.prepare import prepare
from kg4d.priors.settings import PriorsConfig
from tests.priors.clips import moving, on_white, save_frames, save_picture, save_video
from tests.priors.commands import fitted, prepared

KEYPOINTS = {"names": ["middle", "right"], "parents": [-1, 0], "uv": [[48.0, 48.0], [60.0, 48.0]]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(source: Path, *words: str) -> None:
    """It is, and neither scene nor half of one is there."""
    out = source.with_name("out") / "scene"
    assert prepared(source, out, *words) == 2
    assert not out.exists()
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("kg4d: error: ")
    return line


def disc() -> np.ndarray:
    return quantize(moving(1)[0]).numpy()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_noise(path: Path) -> Path:
    noise = torch.rand(2, 96, 96, 3, generator=torch.Generator().manual_seed(0))
    write_mp4(path, noise, fps=8)
    return path


def with_odd_frame(folder: Path) -> Path:
    save_frames(folder)
    write_png(folder / "2.png", torch.rand(40, 50, 4))
    return folder


def cut(path: Path) -> Path:
    truncated(path)
    return path


def made(path: Path, save: Callable[[Path], object]) -> Path:
    save(path)
    return path


INPUTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("none.mp4", lambda p: None, "no such file"),
    "no video": ("text.mp4", lambda p: p.write_text("hello"), "cannot be decoded as a video"),
    "no image": ("text.png", lambda p: p.write_text("hello"), "cannot be read as PNG, JPEG or WebP"),
    "empty": ("empty.png", lambda p: p.touch(), "cannot be read"),
    "another format": ("disc.tif", lambda p: Image.fromarray(disc()).save(p), "another format"),
    "half an image": ("disc.png", lambda p: cut(save_picture(p)), "damaged"),
    "half a video": ("disc.mp4", lambda p: cut(save_video(p, 12)), "disc.mp4"),
    "one frame": ("one.mp4", lambda p: save_video(p, 1), "is a video of one frame"),
    "folder of one frame": ("one", lambda p: save_frames(p, 1), "is a video of one frame"),
    "empty folder": ("none", lambda p: p.mkdir(), "holds no PNG, JPEG or WebP image"),
    "frames of two sizes": ("odd", with_odd_frame, "is 50 x 40, 0.png is 96 x 96"),
    "CMYK": ("disc.jpg", lambda p: Image.fromarray(disc()[..., :3]).convert("CMYK").save(p), "CMYK"),
    "half an animation": (
        "disc.gif",
        lambda p: cut(made(p, lambda q: save_animation(q))),
        "cut short or damaged",
    ),
    "no foreground": ("noise.mp4", save_noise, "no clear foreground"),
}


def save_animation(path: Path) -> None:
    pictures = [Image.fromarray(quantize(frame).numpy()) for frame in on_white(moving())]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


@pytest.mark.parametrize("name", INPUTS)
def test_an_invalid_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, make, says = INPUTS[name]
    make(tmp_path / file)
    refused(tmp_path / file)
    assert says in the_line(capsys)


def test_an_image_without_a_clear_object(tmp_path: Path, svd_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "wall.png", torch.full((64, 64, 3), 0.4))
    refused(tmp_path / "wall.png", f"video.model={svd_folder}")
    line = the_line(capsys)
    assert "no clear foreground" in line
    assert "alpha channel" in line
    assert "matting.kind=files" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"uv": [[48, 48]]}, "uv: 1 entries for 2 names"),
        ({"names": ["middle", "middle"]}, "names[1]: 'middle' is there twice"),
        ({"names": ["middle", ""]}, "names[1]"),
        ({"parents": [-1, "hip"]}, "'hip' is no keypoint"),
        ({"uv": [[48, 48], [97, 48]]}, "(97, 48) lies outside the image of 96 x 96 px"),
        ({"uv": [[48, 48], [-0.5, 48]]}, "outside the image"),
        ({"uv": [[48, 48], [0, 0]]}, "'right' at (0, 0) is far off the object"),
    ],
)
def test_keypoints_that_do_not_fit(
    changes: dict, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "k.json").write_text(json.dumps(KEYPOINTS | changes))
    refused(save_video(tmp_path / "disc.mp4"), f"keypoints.path={tmp_path / 'k.json'}")
    assert says in the_line(capsys)


def test_tracks_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = save_video(tmp_path / "disc.mp4")
    uv = np.full((1, 4, 2, 2), 48.0, np.float32)
    arrays = {
        "names": np.array(["a", "b"]),
        "parents": np.array([-1, 0]),
        "uv": uv,
        "visible": np.ones((1, 4, 2), bool),
    }
    for change, says in (
        ({"uv": uv[:, :3]}, "uv"),
        ({"uv": uv + 60}, "no keypoint inside the first frame of 96 x 96 px"),
    ):
        np.savez(tmp_path / "k.npz", **(arrays | change))
        refused(video, f"keypoints.path={tmp_path / 'k.npz'}")
        assert says in the_line(capsys)


def test_masks_views_and_flow_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = save_video(tmp_path / "disc.mp4")
    few, small = tmp_path / "few", tmp_path / "small"
    write_png(few / "0.png", torch.ones(96, 96, 3))
    for index in range(4):
        write_png(small / f"{index}.png", torch.ones(48, 48, 3))
    np.savez(tmp_path / "flow.npz", flow=np.zeros((3, 40, 96, 2)), valid=np.ones((3, 40, 96), bool))
    for words, says in (
        ([f"matting.path={few}"], "holds 1 masks for 4 frames"),
        ([f"matting.path={small}"], "is 48 x 48, the input is 96 x 96"),
        ([f"views.path={few}"], "holds 1 views for 7 azimuths"),
        ([f"flow.path={tmp_path / 'flow.npz'}"], "flow"),
        (["keypoints.path=/none.json"], "no such file or folder: /none.json"),
        (["matting.kind=alpha"], "no alpha channel"),
        (["matting.kind=key", f"matting.path={small}"], "matting.path: is not read where matting.kind=key"),
        (["flow.kind=dis", "flow.path=flow.npz"], "flow.path: is not read"),
        (["views.kind=zero123", f"views.path={few}"], "views.path: is not read"),
        (["framing.share=2"], "framing.share"),
        (["frames=1"], "frames"),
        (["matting.kind=magic"], "matting.kind"),
        (["keypoints.kind=spread", f"keypoints.path={few}"], "keypoints.path: is not read"),
    ):
        refused(video, *words)
        assert says in the_line(capsys)


def test_an_image_needs_a_model_for_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_picture(tmp_path / "disc.png")
    refused(source)
    line = the_line(capsys)
    for part in ("stabilityai/stable-video-diffusion-img2vid", "video.model=<folder>", 'pip install "kg4d[priors]"'):
        assert part in line
    assert fitted("image_to_4d", source, tmp_path / "runs", "guidance.kind=none") == 2
    assert "priors.video.model: stabilityai/stable-video-diffusion-img2vid" in the_line(capsys)


def test_an_error_about_a_file_is_the_same_in_a_fit(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitted("video_to_4d", save_video(tmp_path / "one.mp4", 1), tmp_path / "runs") == 2
    assert "one.mp4: is a video of one frame" in the_line(capsys)
    assert fitted("video_to_4d", tmp_path / "none.mp4", tmp_path / "runs") == 2
    assert "none.mp4: no such" in the_line(capsys)
    assert fitted("video_to_4d", save_noise(tmp_path / "noise.mp4"), tmp_path / "runs") == 2
    assert "no clear foreground" in the_line(capsys)
    assert list((cache / "priors/scenes").glob("*")) == []


def test_an_image_with_a_video_needs_no_model(tmp_path: Path) -> None:
    source, video = save_picture(tmp_path / "disc.png"), save_video(tmp_path / "disc.mp4")
    assert prepared(source, tmp_path / "scene", f"video.path={video}") == 0
    assert len(load_scene(tmp_path / "scene").reference) == 4


def test_a_file_that_is_missing_is_said_before_a_model_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(save_picture(tmp_path / "disc.png"), "keypoints.path=/none.json")
    assert "keypoints.path: no such file" in the_line(capsys)


def test_a_video_that_does_not_fit_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_picture(tmp_path / "disc.png")
    write_mp4(tmp_path / "small.mp4", on_white(moving())[:, :64, :80], fps=8)
    for video, says in (
        (source, f"video.path: {source} is a single image"),
        (tmp_path / "small.mp4", "small.mp4 is 80 x 64, the picture is 96 x 96"),
    ):
        refused(source, f"video.path={video}")
        assert says in the_line(capsys)


def test_a_video_that_begins_with_another_picture_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, video = save_picture(tmp_path / "disc.png"), save_video(tmp_path / "disc.mp4")
    assert prepared(source, tmp_path / "scene", f"video.path={video}") == 0
    said = capsys.readouterr().out
    assert "whose alpha channel is not used" in said
    assert "off the picture" not in said
    write_png(tmp_path / "other.png", 1 - on_white(moving(1))[0])
    assert prepared(tmp_path / "other.png", tmp_path / "other", f"video.path={video}") == 0
    assert "its first frame is 0." in capsys.readouterr().out


def test_one_opaque_frame_among_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = save_frames(tmp_path / "frames")
    write_png(frames / "2.png", on_white(moving())[2])
    refused(frames)
    line = the_line(capsys)
    assert "matting.kind: 2.png has no transparent pixel, other frames have some" in line
    assert "matting.kind=key" in line


def test_a_scene_cannot_be_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is computed: the input is not even there."""
    (tmp_path / "file.txt").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out, says in ((tmp_path / "file.txt/a/b", "file.txt is a file"), (Path(), "is the current folder")):
        assert prepared(tmp_path / "none.mp4", out) == 2
        assert says in the_line(capsys)


def test_what_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    assert prepared(save_video(tmp_path / "disc.mp4"), tmp_path / "mine") == 2
    assert "exists already" in the_line(capsys)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_a_long_video_is_thinned_from_its_first_to_its_last_frame(tmp_path: Path) -> None:
    shades = torch.linspace(0, 1, 9)[:, None, None, None].expand(-1, 32, 32, 3)
    write_mp4(tmp_path / "fade.mp4", shades, fps=8)
    clip = read_clip(tmp_path / "fade.mp4", Span(3))
    assert clip.source_frames == 9
    assert clip.fps == pytest.approx(2)
    assert clip.frames[:, 16, 16, 0].tolist() == pytest.approx([0, 0.5, 1], abs=0.03)


HOLDER = """
import sys, time
from pathlib import Path
import kg4d.priors.prepare as module
from kg4d.priors.build import PriorsConfig
def wait(*_):
    print("held", flush=True)
    time.sleep(120)
module._plan_job = wait
module.prepare(PriorsConfig(cache=sys.argv[1]), "none", sys.argv[2])
"""


def test_two_prepares_of_one_folder_are_one_too_many(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "cache"), str(tmp_path / "scene")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"scene: is in use by process {other.pid}"):
            prepare(PriorsConfig(cache=str(tmp_path / "cache")), "none", tmp_path / "scene")
        other.kill()
    with pytest.raises(InputError, match="none"):
        prepare(PriorsConfig(cache=str(tmp_path / "cache")), "none", tmp_path / "scene")
