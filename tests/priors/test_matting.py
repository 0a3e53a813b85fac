import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kg4d.data.images import read_image, resize_rgba
from kg4d.errors import InputError
from kg4d.priors import matting
from kg4d.priors.matting import GrabCutMatting, KeyMatting, NoForegroundError, RembgMatting, checked, picked
from kg4d.priors.settings import MattingConfig
from tests.priors.textures import SIZE, picture


def noise(cells: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, cells, cells, 4, generator=torch.Generator().manual_seed(seed))
    coarse[..., 3] = 1
    return resize_rgba(coarse, SIZE, SIZE)[0, ..., :3]


def ramp() -> Tensor:
    return torch.linspace(0.1, 0.95, SIZE)[:, None, None].expand(SIZE, SIZE, 3) * torch.tensor([0.5, 0.9, 1.0])


def iou(matte: Tensor, truth: Tensor) -> float:
    a, b = matte > 0.5, truth > 0.5
    return float((a & b).sum() / (a | b).sum())


def on(background: Tensor, rgba: Tensor) -> Tensor:
    return rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])


@pytest.mark.parametrize("shade", [1.0, 0.0, 0.5])
def test_an_even_background_is_keyed(shade: float) -> None:
    rgba = picture()
    grain = 0.02 * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))  # of a camera or a codec
    matte = KeyMatting(MattingConfig())((on(torch.tensor(shade), rgba) + grain).clamp(0, 1)[None])
    assert matte.shape == (1, SIZE, SIZE, 1)
    assert iou(matte[0], rgba[..., 3:]) > 0.95


@pytest.mark.parametrize("shade", [1.0, 0.4])
def test_a_hole_in_the_colour_of_the_background_is_cut_out(shade: float) -> None:
    rgba = picture()
    rgba[44:52, 44:52, 3] = 0.0
    grain = 0.01 * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    rgb = (on(torch.tensor(shade), rgba) + grain).clamp(0, 1)
    matte = KeyMatting(MattingConfig(agreement=1.0))(rgb[None])
    assert matte[0, 45:51, 45:51].max() == 0
    assert iou(matte[0], rgba[..., 3:]) > 0.95


def test_a_white_shirt_and_a_highlight_on_white_are_kept() -> None:
    rgba = picture()
    rgba[44:52, 44:52, :3] = 0.97  # within the tolerance of the background, but shaded
    rgba[60:62, 48:51, :3] = 1.0  # as small as a highlight
    matte = KeyMatting(MattingConfig(agreement=1.0))(on(torch.tensor(1.0), rgba)[None])
    assert matte[0, 48, 48] == 1
    assert matte[0, 61, 49] == 1


def test_a_point_picks_one_of_several_objects_through_the_frames() -> None:
    mattes = torch.zeros(3, 40, 60, 1)
    for t in range(3):
        mattes[t, 10:20, 5 + 4 * t : 15 + 4 * t] = 1.0
        mattes[t, 10:20, 40:50] = 1.0
    left, right = picked(mattes, (7.5, 12.0)), picked(mattes, (44.0, 12.0))
    assert torch.equal(left + right, mattes)
    assert right[..., :30, :].sum() == 0
    for point in ((25.0, 12.0), (70.0, 12.0)):
        with pytest.raises(InputError, match="matting.point: .* lies on no object"):
            picked(mattes, point)


def test_specks_that_a_codec_leaves_are_dropped_and_parts_are_kept() -> None:
    rgba = picture()
    image = on(torch.tensor(1.0), rgba)
    image[4:6, 4:5] = 0.2  # 2 of some 2,500 px
    image[88:94, 4:10] = 0.2  # 36
    matte = KeyMatting(MattingConfig())(image[None])[0, ..., 0]
    assert matte[4:6, 4:5].sum() == 0
    assert matte[88:94, 4:10].sum() > 30


def test_an_uneven_background_is_guessed() -> None:
    rgba = picture(seed=3)
    rgba[..., :3] = rgba[..., :3] * torch.tensor([1.0, 0.2, 0.1])
    matte = KeyMatting(MattingConfig())(on(ramp(), rgba)[None])
    assert iou(matte[0], rgba[..., 3:]) > 0.85
    assert not KeyMatting(MattingConfig()).has_even_background(on(ramp(), rgba)[None])
    assert KeyMatting(MattingConfig()).has_even_background(on(torch.tensor(1.0), rgba)[None])
    assert torch.equal(matte, GrabCutMatting()(on(ramp(), rgba)[None]))


def test_large_pictures_are_matted_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = picture(seed=3)
    rgba[..., :3] = rgba[..., :3] * torch.tensor([1.0, 0.2, 0.1])
    sizes = []
    cut = matting.cv2.grabCut
    monkeypatch.setattr(matting, "FINEST", 60)
    monkeypatch.setattr(matting.cv2, "grabCut", lambda image, *rest: (sizes.append(image.shape), cut(image, *rest))[1])
    matte = GrabCutMatting()(on(ramp(), rgba)[None, :, 16:])
    assert sizes == [(60, 50, 3)]
    assert matte.shape == (1, SIZE, SIZE - 16, 1)
    assert iou(matte[0], rgba[:, 16:, 3:]) > 0.85


@pytest.mark.parametrize("background", ["flat", "ramp", "grain", "clutter"])
def test_no_clear_foreground_is_an_error(background: str) -> None:
    empty = {"flat": torch.full((SIZE, SIZE, 3), 0.4), "ramp": ramp(), "grain": noise(SIZE), "clutter": noise(12)}
    with pytest.raises(InputError, match="no clear foreground"):
        KeyMatting(MattingConfig())(empty[background][None])


def test_one_bad_frame_is_named() -> None:
    mattes = torch.zeros(3, 10, 10, 1)
    mattes[:2, 2:8, 2:8] = 1
    with pytest.raises(NoForegroundError, match="matting: no clear foreground: 0.0% of the picture") as caught:
        checked(mattes)
    assert caught.value.frame == 2
    assert caught.value.where == "matting"  # a setting, so that a fit can say where it stands


def test_the_result_is_repeatable() -> None:
    rgb = on(ramp(), picture())[None]
    assert torch.equal(GrabCutMatting()(rgb), GrabCutMatting()(rgb))


@pytest.mark.skipif(importlib.util.find_spec("rembg") is not None, reason="rembg is installed")
def test_rembg_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"matting.kind.*rembg.*kg4d\[rembg\]"):
        RembgMatting("u2net")


def test_a_network_that_rembg_cannot_give_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_session(model: str) -> None:
        raise ValueError(f"No session class found for model '{model}'\nand more")

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(new_session=new_session))
    with pytest.raises(InputError, match="matting.model: u9net cannot be had: No session class") as caught:
        RembgMatting("u9net")
    assert "\n" not in str(caught.value)


def test_rembg_mattes_by_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def remove(picture: np.ndarray, session: str, only_mask: bool) -> Image.Image:
        assert only_mask
        assert session == "session of tiny"
        return Image.fromarray(np.where(picture.sum(-1) < 700, 255, 0).astype(np.uint8))

    def new_session(model: str) -> str:
        opened.append(model)
        return f"session of {model}"

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(new_session=new_session, remove=remove))
    rgba = picture()
    matte = RembgMatting("tiny")(on(torch.tensor(1.0), rgba).expand(2, -1, -1, -1))
    RembgMatting("tiny")
    assert matte.shape == (2, SIZE, SIZE, 1)
    assert iou(matte[1], rgba[..., 3:]) > 0.9
    assert opened == ["tiny"]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "least"), [("cactus", 0.97), ("catstatue", 0.97), ("dragon2", 0.97), ("hamburger", 0.95)]
)
def test_real_pictures_on_white(data_root: Path, name: str, least: float) -> None:
    rgba = resize_rgba(read_image(data_root / "inputs/images" / f"{name}_rgba.png")[None], 256, 256)
    assert iou(KeyMatting(MattingConfig())(on(torch.tensor(1.0), rgba)), rgba[..., 3:]) > least
