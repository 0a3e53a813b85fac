"""From a file to a scene folder and to a fit, through the commands."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from kg4d.data.images import quantize, write_png
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.priors import prepare
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.settings import ViewsConfig
from kg4d.priors.keypoints.marked import SupportKeypoints, read_support
from kg4d.priors.keypoints.settings import KeypointsKind, KeypointSourceConfig
from kg4d.priors.settings import FramingConfig, PriorsConfig
from tests.priors.clips import moving, on_white, save_frames, save_picture, save_video
from tests.priors.commands import ROOT, fitted, prepared, tiny_video, tiny_views

KEYPOINTS = {"names": ["middle", "right"], "parents": [-1, "middle"], "uv": [[48.0, 48.0], [68.0, 48.0]]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, without weights."""
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return save_video(tmp_path / "disc.mp4")


def made(source: Path, *words: str) -> Scene:
    out = source.with_name("scene")
    assert prepared(source, out, *words) == 0
    return load_scene(out)


def record(scene_folder: Path) -> dict:
    return json.loads((scene_folder / "scene.json").read_text())


def test_a_video_needs_nothing_else(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = made(video)
    out = video.with_name("scene")
    assert len(scene.reference) == 4
    assert scene.ring is None
    assert scene.keypoints is not None
    assert len(scene.keypoints.names) == 6
    assert scene.flow is not None
    assert scene.flow.flow.shape == (3, 32, 32, 2)
    covered = scene.reference.alphas[..., 0].gt(0.5).any(0).nonzero()
    columns = (int(covered[:, 1].min()), int(covered[:, 1].max()))
    assert columns == pytest.approx((3, 28), abs=1)  # it moves sideways: 0.8 of the frame, in the middle
    assert {"preview.png", "scene.json"} < {path.name for path in out.iterdir()}
    chosen = record(out)["priors"]
    assert {name: choice["kind"] for name, choice in chosen.items()} == {
        "matting": "key",
        "video": "given",
        "views": "none",
        "keypoints": "spread",
        "tracking": "klt",
        "transfer": "none",
        "flow": "dis",
    }
    said = capsys.readouterr().out
    for name, choice in chosen.items():
        assert f"{name}: {choice['kind']} ({choice['why']})" in said
    assert record(out)["cache_keys"] == scene.cache_keys
    assert set(scene.cache_keys) == {"matting-key", "tracks-klt", "flow-dis"}


def test_keypoints_are_those_of_the_file(video: Path, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps(KEYPOINTS))
    scene = made(video, f"keypoints.path={tmp_path / 'k.json'}")
    assert scene.keypoints is not None
    assert scene.keypoints.names == ("middle", "right")
    assert scene.keypoints.parents == (-1, 0)
    frame = record(tmp_path / "scene")["frame"]
    scale = frame["size"] / frame["side"]
    expected = (torch.tensor(KEYPOINTS["uv"]) - torch.tensor([frame["left"], frame["top"]])) * scale
    assert torch.allclose(scene.keypoints.uv[0], expected, atol=1e-4)
    moved = (scene.keypoints.uv[-1, 0] - scene.keypoints.uv[0, 0]) / scale
    assert torch.allclose(moved, torch.tensor([6.0, 0.0]), atol=1.5)  # 2 px a frame


def test_a_keypoint_beside_the_object_is_noted(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = KEYPOINTS | {"uv": [[48.0, 48.0], [24.0, 24.0]]}
    (tmp_path / "k.json").write_text(json.dumps(beside))
    made(video, f"keypoints.path={tmp_path / 'k.json'}")
    said = capsys.readouterr().out
    assert "keypoint 'right' lies beside" in said
    assert "keypoint 'middle'" not in said


def test_frames_masks_and_animations_are_videos_too(video: Path, tmp_path: Path) -> None:
    frames = made(save_frames(tmp_path / "frames"))
    pictures = [Image.fromarray(quantize(on_white(moving())[index]).numpy()) for index in range(4)]
    pictures[0].save(tmp_path / "disc.gif", save_all=True, append_images=pictures[1:], duration=125)
    for index, frame in enumerate(moving()):
        write_png(tmp_path / "masks" / f"{index}.png", frame[..., 3:].expand(-1, -1, 3))
    by_mask = ["matting.kind=files", f"matting.path={tmp_path / 'masks'}"]
    for source, words in ((tmp_path / "disc.gif", []), (video, by_mask)):
        out = tmp_path / source.suffix
        assert prepared(source, out, *words) == 0
        scene = load_scene(out)
        assert (scene.reference.alphas - frames.reference.alphas).abs().mean() < 0.02
        assert (
            scene.reference.composited(torch.ones(3)) - frames.reference.composited(torch.ones(3))
        ).abs().mean() < 0.03
    assert record(tmp_path / "scene")["priors"]["matting"]["kind"] == "alpha"


def test_the_orientation_of_a_photo_is_applied(tmp_path: Path, svd_folder: Path) -> None:
    tall = on_white(moving(1))[0, :, 10:86]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter for viewing
    Image.fromarray(quantize(tall).numpy()).rotate(90, expand=True).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    write_png(tmp_path / "upright.png", tall)
    for name in ("photo.jpg", "upright.png"):
        assert prepared(tmp_path / name, tmp_path / Path(name).stem, *tiny_video(svd_folder), "views.kind=none") == 0
    photo, upright = (
        load_scene(tmp_path / name).reference.composited(torch.ones(3))[0] for name in ("photo", "upright")
    )
    assert (photo - upright).abs().mean() < 0.03


def test_given_views_become_the_ring(video: Path, tmp_path: Path) -> None:
    for index in range(3):
        write_png(tmp_path / "views" / f"{index}.png", moving(1)[0])
    words = [f"views.path={tmp_path / 'views'}", "views.azimuths=[270.0,0.0,90.0]"]
    scene = made(video, *words)
    assert scene.ring is not None
    assert len(scene.ring) == 3  # the frame itself, 90 and 270; the given one at 0 is the frame
    assert scene.keypoints is not None
    assert scene.keypoints.ring_uv is None  # there are no weights to describe places by
    x = scene.ring.cameras.centers[:, 0]
    assert x[0].abs() < 1e-5
    assert (x[1] > 1) == (x[1] > x[2])  # in the order of their azimuths
    assert "switches the keypoint losses off" in record(tmp_path / "scene")["priors"]["transfer"]["why"]


def config(**settings: object) -> PriorsConfig:
    """Of a tiny scene."""
    return PriorsConfig(framing=FramingConfig(size=32), progress_bar=False, **settings)


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What providers compute is written; let that fail."""

    def fail(*_: object) -> None:
        raise AssertionError("a prior was computed")

    monkeypatch.setattr("kg4d.priors.cache.store.write_entry", fail)


def test_a_video_is_fitted_and_its_priors_computed_once(
    video: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitted("video_to_4d", video, tmp_path / "runs") == 0
    [scene] = list((cache / "priors/scenes").iterdir())
    assert scene.name.startswith("disc-")
    run = tmp_path / "runs/video_to_4d/full/seed0"
    assert json.loads((run / "metrics.json").read_text())["metrics"]["train/psnr"] > 5
    assert json.loads((run / "run.json").read_text())["cache_keys"] == record(scene)["cache_keys"]

    forbid_computing(monkeypatch)
    capsys.readouterr()
    assert fitted("video_to_4d", video, tmp_path / "again", "seed=1") == 0
    assert f"prepared before, in {scene}" in capsys.readouterr().out
    out = tmp_path / "other_frame_rate"
    assert prepared(video, out) == 0  # another scene, of the same priors
    assert record(out)["cache_keys"] == record(scene)["cache_keys"]
    with pytest.raises(AssertionError, match="a prior was computed"):
        PriorCache().get_or_make(FakeProvider(), {}, dict)


def test_a_damaged_scene_is_said_and_made_again(
    video: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare.prepared_scene(config(), video)
    assert folder.parent == cache / "priors/scenes"
    picture = folder / "train/r_002.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-9])
    assert prepare.prepared_scene(config(), video) == folder
    assert picture.read_bytes() == whole
    assert PriorCache().verify()[folder] is None
    elsewhere = prepare.prepared_scene(config(cache=str(tmp_path / "mine")), video)
    assert elsewhere == tmp_path / "mine/scenes" / folder.name


def test_what_to_look_at_is_recorded_and_said_again(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = on_white(moving())
    frames[:, :, :4] = torch.linspace(0, 1, 96)[:, None, None]
    for index in range(4):
        write_png(tmp_path / f"frames/{index}.png", frames[index])
    for index in range(2):  # one view with a matte, one that has none and shows nothing
        view = moving(1)[0] if index == 0 else torch.full((96, 96, 3), 0.5)
        write_png(tmp_path / f"views/{index}.png", view)
    views = ViewsConfig(path=str(tmp_path / "views"), azimuths=[90.0, 180.0])
    expected = (
        "the background of the input is not even: the object is guessed by GrabCut",
        "the view at azimuth 180 is left out: no clear foreground",
    )
    for _ in range(2):
        caplog.clear()
        folder = prepare.prepared_scene(config(views=views), tmp_path / "frames")
        for words in expected:
            assert words in caplog.text
            assert any(words in note for note in record(folder)["notes"])
    assert "prepared before" in caplog.text
    ring = load_scene(folder).ring
    assert ring is not None
    assert len(ring) == 2


def test_what_was_clicked_decides_the_scene(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pages = tmp_path / "k.json", []

    def click(image: torch.Tensor, path: Path | str, port: int) -> SupportKeypoints:
        pages.append(path)
        if not file.is_file():
            file.write_text(json.dumps(KEYPOINTS))
        return read_support(file, 96, 96)

    monkeypatch.setattr("kg4d.priors.assemble.click_keypoints", click)
    asked = config(keypoints=KeypointSourceConfig(kind=KeypointsKind.CLICK, path=str(file)))
    first = prepare.prepared_scene(asked, video)
    assert prepare.prepared_scene(asked, video) == first
    assert len(pages) == 1
    file.write_text(json.dumps(KEYPOINTS | {"uv": [[50.0, 48.0], [68.0, 48.0]]}))
    edited = prepare.prepared_scene(asked, video)
    assert edited != first
    assert len(pages) == 2
    file.unlink()
    assert prepare.prepared_scene(asked, video) == first  # the same is clicked again
    assert len(pages) == 3


@pytest.mark.slow
def test_a_folder_of_frames_is_fitted(tmp_path: Path, cache: Path) -> None:
    assert fitted("video_to_4d", save_frames(tmp_path / "frames"), tmp_path / "runs") == 0
    [scene] = (cache / "priors/scenes").iterdir()
    assert scene.name.startswith("frames-")


class FakeProvider:
    name = "fake"

    def identity(self) -> dict[str, int]:
        return {}


def test_an_image_goes_through_every_network(
    tmp_path: Path,
    cache: Path,
    svd_folder: Path,
    zero123_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also score distillation, which experiments/image_to_4d.yaml asks for."""
    source = save_picture(tmp_path / "disc.png")
    priors = [f"priors.{word}" for word in (*tiny_video(svd_folder), *tiny_views(zero123_folder))]
    words = [*priors, f"guidance.model={zero123_folder}", "guidance.dynamic.weight=0.1"]
    assert fitted("image_to_4d", source, tmp_path / "runs", *words) == 0
    used = json.loads((tmp_path / "runs/image_to_4d/full/seed0/run.json").read_text())["cache_keys"]
    assert {"video-diffusion", "views-zero123", "flow-dis"} < set(used)
    kinds = {entry.name.rpartition("-")[0] for entry in PriorCache(cache / "priors").entries()}
    assert set(used) <= kinds

    forbid_computing(monkeypatch)
    assert fitted("image_to_4d", source, tmp_path / "again", *words) == 0
    assert "prepared before" in capsys.readouterr().out


def test_experiments_that_begin_with_a_file_are_all_run_here() -> None:
    names = {path.stem for path in (ROOT / "experiments").glob("*_to_4d.yaml")}
    assert names == {"image_to_4d", "video_to_4d"}


@pytest.mark.parametrize("damage", ["cut short", "other version"])
def test_a_damaged_entry_is_said_and_made_again(
    damage: str, video: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(video)
    [entry] = [path for path in PriorCache(cache / "priors").entries() if path.name.startswith("flow-dis")]
    if damage == "cut short":
        data = entry / "data.safetensors"
        data.write_bytes(data.read_bytes()[:-5])
    else:
        manifest = entry / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    capsys.readouterr()
    assert prepared(video, tmp_path / "again") == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "computed again" in line]
    assert ("cut short" if damage == "cut short" else "format 99") in line
    before, after = load_scene(tmp_path / "scene").flow, load_scene(tmp_path / "again").flow
    assert before is not None
    assert after is not None
    assert torch.equal(before.flow, after.flow)
