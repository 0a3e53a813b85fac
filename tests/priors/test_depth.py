"""Depth from files and from networks: what is read, what is refused, and what decides."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

from kg4d.config.schema import DepthConfig
from kg4d.data.records import Depth, ImageFiles, Scene
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.data.sizes import Size
from kg4d.data.synthetic.room import make_room
from kg4d.errors import InputError
from kg4d.geometry.lenses import Lens, Undistortion
from kg4d.geometry.sampling import pixel_centers
from kg4d.losses.settings import DepthForm
from kg4d.pipeline import fit
from kg4d.priors.base import DepthEstimator
from kg4d.priors.build import decide_depth
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.depth import MonocularDepth, read_depth
from kg4d.priors.settings import DepthKind, DepthMeasure, DepthPriorConfig
from kg4d.priors.workbench import Workbench
from kg4d.render.build import build_renderer
from kg4d.runs.build import build_run, build_run_depth
from kg4d.runs.read_back import LoadedRun, load_run
from tests.make import FRAMES, SIZE, tiny_scene
from tests.tiny_runs import terms_of, tiny

CPU = torch.device("cpu")


def maps(size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 3, (FRAMES, size[1], size[0])).astype(np.float32)


def write_npy(folder: Path, values: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(values):
        np.save(folder / f"{index}.npy", one)
    return folder


def write_png(folder: Path, values: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(values):
        Image.fromarray(one).save(folder / f"frame{index}.png")
    return folder


def test_npy_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    scene, values = tiny_scene(), maps()
    for index, one in enumerate(values):
        np.save(tmp_path / f"{8 + index}.npy", one)  # 8, 9, 10, 11
    found = read_depth(tmp_path, scene, inverse=True)
    assert np.array_equal(found.depth.numpy(), values)
    assert bool((found.weights == 1).all())
    assert found.inverse


def test_png_files_have_16_bits_and_0_is_unknown(tmp_path: Path) -> None:
    values = (maps() * 20000).astype(np.uint16)
    values[1, 2, 3] = 0
    found = read_depth(write_png(tmp_path, values), tiny_scene(), inverse=False)
    assert np.array_equal(found.depth.numpy(), values.astype(np.float32))
    assert float(found.weights[1, 2, 3]) == 0
    assert float(found.weights.sum()) == values.size - 1


def test_larger_files_become_as_large_as_the_images(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(maps(), 2, 1), 2, 2)
    values[0, :2, :2] = 0
    found = read_depth(write_npy(tmp_path, values), tiny_scene(), inverse=False)
    assert found.depth.shape == (FRAMES, SIZE, SIZE)
    low, high = values[values > 0].min(), values.max()
    assert bool((found.depth[found.weights > 0] >= low - 1e-5).all())  # unknown pixels are mixed into none
    assert bool((found.depth <= high + 1e-5).all())


def test_depth_goes_through_the_lens_of_its_image(tmp_path: Path) -> None:
    """A plane tilted against the camera, drawn through a lens, is that plane in the undistorted image."""
    size = 64
    K = torch.tensor([[70.0, 0, 33.0], [0, 70.0, 30.0], [0, 0, 1]])
    lens = Undistortion.of(Lens(False, (-0.1, *[0.0] * 7)), K, size, size)
    centers = pixel_centers(size, size)

    def plane(rays: torch.Tensor) -> torch.Tensor:
        return 2 + 0.8 * rays[..., 0] - 0.5 * rays[..., 1]

    behind = torch.from_numpy(lens.lens.undistort(((centers.reshape(-1, 2) - K[:2, 2]) / 70).double().numpy()))
    seen = plane(behind.reshape(size, size, 2)).nan_to_num(1.0)
    scene = tiny_scene()
    images = torch.ones(FRAMES, size, size, 4)
    reference = replace(scene.reference, cameras=scene.reference.cameras.resized(size, size), images=images)
    scene = Scene("bent", reference, files=ImageFiles(Size(size, size), (lens,) * FRAMES))
    found = read_depth(write_npy(tmp_path, seen.float().expand(FRAMES, -1, -1).numpy()), scene, inverse=False)
    true = plane((centers - lens.pinhole[:2, 2]) / lens.pinhole.diagonal()[:2])
    inner = (slice(1, -1), slice(1, -1))
    assert float((found.depth[0] - true)[inner].abs().max()) < 2e-3
    assert float((seen - true)[inner].abs().max()) > 0.01


def damaged(folder: Path) -> None:
    (folder / "1.npy").write_bytes(b"\x93NUMPY nothing")


def not_finite(folder: Path) -> None:
    np.save(folder / "2.npy", np.full((SIZE, SIZE), np.nan))


def with_objects(folder: Path) -> None:
    np.save(folder / "2.npy", np.array([[{}]], dtype=object), allow_pickle=True)


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "too few": (lambda folder: (folder / "3.npy").unlink(), "holds 3 files of depth for 4 frames"),
    "another shape": (lambda folder: np.save(folder / "0.npy", np.ones((8, 16))), "0.npy: is 16 x 8"),
    "colours": (lambda folder: np.save(folder / "0.npy", np.ones((16, 16, 3))), "of the shape"),
    "damaged": (damaged, "1.npy: is no readable .npy"),
    "not finite": (not_finite, "2.npy: holds NaN"),
    "too large": (lambda folder: np.save(folder / "2.npy", np.full((SIZE, SIZE), 1e300)), "beyond those of 32 bits"),
    "objects": (with_objects, "2.npy: is no readable .npy"),
    "nothing": (lambda folder: [file.unlink() for file in folder.iterdir()], "holds no .npy and no .png"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_files_that_are_wrong_are_named(tmp_path: Path, name: str) -> None:
    folder = write_npy(tmp_path / "depth", maps())
    damage, words = ERRORS[name]
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        read_depth(folder, tiny_scene(), inverse=False)
    assert "\n" not in str(caught.value)


def test_png_of_8_bits_is_refused(tmp_path: Path) -> None:
    folder = write_png(tmp_path, (maps() * 80).astype(np.uint8))
    with pytest.raises(InputError, match="8 bits a channel"):
        read_depth(folder, tiny_scene(), inverse=False)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Depth Anything of random weights, as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def video(height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.rand(3, height, width, 4, generator=torch.Generator().manual_seed(0))


def test_a_network_tells_inverse_depth_of_every_frame(network: Path) -> None:
    estimator = MonocularDepth(str(network), DepthMeasure.AUTO, CPU)
    assert isinstance(estimator, DepthEstimator)
    found = estimator(video())
    assert found.depth.shape == (3, 20, 30)
    assert bool((found.weights == 1).all())
    assert found.inverse
    assert not MonocularDepth(str(network), DepthMeasure.DEPTH, CPU)(video()).inverse
    assert torch.equal(estimator(video()[1:2]).depth[0], found.depth[1])


def test_what_a_network_tells_is_computed_once(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Workbench(PriorCache(tmp_path), progress_bar=False)
    estimator = MonocularDepth(str(network), DepthMeasure.AUTO, CPU)
    first = bench.depth(estimator, video())
    monkeypatch.setattr(MonocularDepth, "__call__", lambda *_: pytest.fail("computed again"))
    again = bench.depth(MonocularDepth(str(network), DepthMeasure.AUTO, CPU), video())
    assert torch.equal(first.depth, again.depth)
    assert again.inverse
    identity = estimator.identity()
    assert identity != MonocularDepth(str(network), DepthMeasure.DEPTH, CPU).identity()
    assert len(str(identity["weights"])) > 15


def test_missing_or_damaged_networks_are_one_line(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"depth\.model.*cannot be had.*depth\.kind=none") as caught:
        MonocularDepth("nobody/no-such-depth", DepthMeasure.AUTO, CPU)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_bytes((network / "config.json").read_bytes())
    with pytest.raises(InputError, match="cannot be had"):
        MonocularDepth(str(tmp_path), DepthMeasure.AUTO, CPU)
    (tmp_path / "model.safetensors").write_bytes((network / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"no readable preprocessor_config\.json"):
        MonocularDepth(str(tmp_path), DepthMeasure.AUTO, CPU)


def test_a_network_without_some_weights_is_refused(network: Path, tmp_path: Path) -> None:
    for file in network.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("head.conv3.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for head\.conv3\.weight"):
        MonocularDepth(str(tmp_path), DepthMeasure.AUTO, CPU)


def test_auto_takes_what_is_there(tmp_path: Path, network: Path) -> None:
    def kind(scene: Path | None = None, **settings: str) -> str:
        return decide_depth(DepthPriorConfig(**settings), scene, CPU).kind

    assert kind(tmp_path) == "none"
    write_npy(tmp_path / "depth", maps())
    assert kind(tmp_path) == "files"
    assert kind(None) == "none"
    assert kind(None, path=str(tmp_path / "depth")) == "files"
    assert kind(tmp_path, model=str(network)) == "network"
    assert decide_depth(DepthPriorConfig(kind=DepthKind.NONE), tmp_path, CPU).provider is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": DepthKind.FILES}, r"depth\.path: names no folder"),
        ({"kind": DepthKind.FILES, "path": "/nowhere/at/all"}, r"depth\.path: no such file or folder"),
        ({"kind": DepthKind.NETWORK}, r"depth\.model: names no network"),
        ({"kind": DepthKind.NETWORK, "model": "x", "path": "y"}, r"depth\.path: is not read"),
        ({"path": ".", "model": "x"}, r"depth\.model: is not read"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decide_depth(DepthPriorConfig(**settings), None, CPU)


def on_disk(folder: Path) -> Path:
    """The tiny scene as a video alone, with depth beside it."""
    scene = tiny_scene()
    write_scene(Scene("ball", scene.reference, test=scene.test), folder)
    write_npy(folder / "depth", maps())
    return folder


def settings(scene: Path, *words: str) -> tuple[str, ...]:
    return (f"scene={scene}", "image_size=16", "kfc.weight=0", "wgf.weight=0", "lift.weight=0", *words)


def test_a_fit_reads_depth_and_both_stages_have_its_loss(tmp_path: Path) -> None:
    scene = on_disk(tmp_path / "ball")
    for form in DepthForm:
        words = settings(scene, f"depth.form={form}", "depth.weight=0.1", "frames.every=2", f"name={form}")
        run = fit(tiny(tmp_path / "runs", *words))
        assert "depth" in terms_of(run, "static")
        assert "depth" in terms_of(run, "dynamic")


def share_in_order(run: LoadedRun, truth: Depth) -> float:
    """Of pairs of pixels that are clearly apart, the share of which the nearer one is drawn nearer."""
    views, known = run.scene.reference, truth.weights.flatten(1) > 0
    drawn, true = run.fitted.depth(views.cameras, views.times).flatten(1), truth.depth.flatten(1)
    first, second = torch.randint(true.shape[1], (2, 4000), generator=torch.Generator().manual_seed(5))
    ahead = true[:, second] - true[:, first]
    clear = (ahead.abs() > 0.1 * (true.max() - true.min())) & known[:, first] & known[:, second]
    return float(((drawn[:, second] - drawn[:, first]) * ahead > 0)[clear].float().mean())


@pytest.mark.slow
def test_the_order_of_depths_alone_brings_what_is_drawn_into_order(tmp_path: Path) -> None:
    """From a ball of Gaussians in a room: its images do not tell the order that soon."""
    truth = make_room(build_renderer("cpu"), 32).truth
    assert truth is not None
    assert truth.depth is not None
    folder = write_npy(tmp_path / "depth", (truth.depth.depth * (truth.depth.weights > 0)).numpy())
    start = ("gaussians.init=ball", "gaussians.count=600", "gaussians.initial_opacity=0.5", "static.steps=0")
    steps = ("dynamic.steps=40", "dynamic.density.kind=none", "frames.every=4", "evaluation.metrics=[test/psnr]")
    shares = []
    for weight in (0, 1):
        depth = (f"depth.path={folder}", "depth.form=ordinal", f"depth.weight={weight}", f"name=weight{weight}")
        words = ("scene=synthetic:room", *start, *steps, *depth)
        shares.append(
            share_in_order(load_run(fit(tiny(tmp_path / "runs", *words, file="quickstart_mono"))), truth.depth)
        )
    assert shares[1] > shares[0] + 0.2


def test_without_depth_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = on_disk(tmp_path / "ball")
    for file in (scene / "depth").iterdir():
        file.unlink()
    (scene / "depth").rmdir()
    config = tiny(tmp_path / "runs", *settings(scene, "depth.weight=0.1"))
    with caplog.at_level(logging.INFO):
        run = build_run(config)
    assert run.scene.depth is None
    assert sum("its loss is off" in record.message for record in caplog.records) == 1
    assert run.static_data.dataset.batch(0).depth is None


def test_in_the_mirror_depth_is_that_of_the_mirrored_images(tmp_path: Path) -> None:
    folder = on_disk(tmp_path / "ball")
    scene, cache = load_scene(folder, 16), PriorCache(tmp_path / "cache")
    config = tiny(tmp_path, *settings(folder, "depth.weight=1"))
    plain = build_run_depth(config, scene, cache)
    config.world.mirrored = True
    flipped = build_run_depth(config, scene, cache)
    assert plain is not None
    assert flipped is not None
    assert torch.equal(flipped.depth, plain.depth.flip(2))


def test_no_loss_asks_for_no_network(tmp_path: Path) -> None:
    folder = on_disk(tmp_path / "ball")
    config = tiny(tmp_path, *settings(folder, "depth.model=nobody/no-such-depth"))
    assert isinstance(config.depth, DepthConfig)
    assert build_run_depth(config, load_scene(folder, 16), PriorCache(tmp_path / "cache")) is None


def test_depth_is_selected_and_averaged_by_what_is_known() -> None:
    values = torch.tensor([[[1.0, 3.0], [0.0, 5.0]]])
    depth = Depth(values, (values > 0).float())
    small = depth.resampled(Size(1, 1))
    assert float(small.depth) == pytest.approx(3.0)
    assert float(small.weights) == pytest.approx(0.75)
