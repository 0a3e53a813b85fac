import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.formats.base import ExportSource
from kg4d.formats.page.film import film_of
from kg4d.formats.page.packing import pack
from kg4d.formats.viewer import write_viewer
from kg4d.geometry.covariances import covariances_of
from tests import make
from tests.formats import films
from tests.formats.films import Unpacked
from tests.formats.test_build import Rising

SOURCE = ExportSource(Rising(), make.tiny_scene(), fps=4)


def test_the_page_holds_the_gaussians_to_its_quantisation(tmp_path):
    film = films.film()
    write_viewer(tmp_path / "new" / "page.html", film)
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    (held,) = films.films_in(page)
    assert films.title_in(page) == film.title
    assert held.header["linked"]
    for frame, state in enumerate(film.states):
        kept = held.state(frame)
        extent = max(high - low for low, high in zip(*held.header["box"]))
        torch.testing.assert_close(kept.means, state.means, atol=extent / 65535, rtol=0)
        unit = state.quats / state.quats.norm(dim=1, keepdim=True)
        torch.testing.assert_close(kept.quats, unit, atol=1 / 32767, rtol=0)
        torch.testing.assert_close(kept.scales, state.scales, atol=0, rtol=1e-4)
        torch.testing.assert_close(kept.opacities, state.opacities, atol=0.51 / 255, rtol=0)
        torch.testing.assert_close(kept.colors, state.colors, atol=0.51 / 255, rtol=0)
        torch.testing.assert_close(kept.harmonics, state.harmonics, atol=0.51 * held.header["harmonics"] / 127, rtol=0)
    np.testing.assert_array_equal(held.block("keypoints").reshape(film.keypoints.shape), film.keypoints)


def test_what_does_not_change_is_kept_once():
    blocks = Unpacked(pack(films.film())).header["blocks"]
    assert {name for name, block in blocks.items() if block.get("once")} == {
        *("scales", "colors", "opacities", "harmonics", "owners")
    }


def test_gaussians_that_come_and_go_are_not_linked():
    states = [state.map(lambda rows, kept=kept: rows[:kept]) for state, kept in zip(films.moving(), (40, 0, 7, 39))]
    held = Unpacked(pack(films.film(states)))
    assert held.header["counts"] == [40, 0, 7, 39]
    assert not held.header["linked"]
    torch.testing.assert_close(held.state(3).means, states[3].means, atol=1e-4, rtol=0)


def test_covariances_are_kept_as_ellipsoids():
    shaped = [
        replace(state, quats=None, scales=None, covariances=covariances_of(state.quats, state.scales))
        for state in films.moving()
    ]
    kept = Unpacked(pack(films.film(shaped))).state(2)
    torch.testing.assert_close(covariances_of(*kept.ellipsoids), shaped[2].covariances, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("frames", [None, 2])
def test_colours_of_keypoints_are_mixed_by_their_weights(frames):
    state = make.random_gaussians(9, keypoints=make.JOINTS, frames=frames)
    held = Unpacked(pack(films.film([state] * make.FRAMES)))
    hues = np.array(held.header["hues"])
    if frames is None:  # parts in each keypoint, which is a softmax over the Gaussians
        parts = state.keypoint_logits.exp() / state.keypoint_logits.exp().sum(0)
        weights = parts / parts.sum(1, keepdim=True)
    else:
        weights = state.skinning_logits.softmax(1)
    expected = 255 * weights.numpy() @ hues[: weights.shape[1]]
    np.testing.assert_allclose(held.rows("owners", 0, 3), expected, atol=0.51)
    names = list(make.tiny_scene().keypoints.names) if frames is None else ["frame 0", "frame 1"]
    assert held.header["owner_names"] == names


def test_errors_are_kept_to_their_99th_percentile():
    errors = torch.linspace(0, 0.2, 40)
    errors[3] = torch.nan
    film = replace(films.film(), errors=[errors] * make.FRAMES, errors_of="some pictures")
    held = Unpacked(pack(film))
    assert held.header["errors_of"] == "some pictures"
    levels = held.block("errors")
    assert (levels[3], levels[39]) == (255, 254)
    kept = levels / 254 * held.header["errors_top"]
    below = (errors <= held.header["errors_top"]).numpy()
    np.testing.assert_allclose(kept[below], errors[below], atol=held.header["errors_top"] / 254)
    assert "errors" not in Unpacked(pack(films.film())).header["blocks"]


def test_a_model_is_shown_with_its_cameras_pictures_and_figures():
    film = film_of(replace(SOURCE, name="a run", metrics={"test/psnr": 21.2345, "something/new": 2.0}))
    held = Unpacked(pack(film))
    scene = SOURCE.scene
    assert held.header["title"] == "a run"
    assert held.header["metrics"]["test/psnr"] == {
        "label": "test/psnr ↑ (dB)",
        "value": "21.23",
        "meaning": "PSNR, mean over all test images",
    }
    reference, *tests = held.header["views"]
    assert [view["held_out"] for view in held.header["views"]] == [False, True, True]
    assert len(reference["shots"]) == make.FRAMES
    np.testing.assert_allclose(
        np.reshape(reference["shots"][1]["viewmat"], (4, 4)), scene.reference.cameras.viewmats[1], atol=1e-6
    )
    shown = Image.open(BytesIO(held.picture(tests[1]["shots"][2]["picture"])))
    true = scene.test.images[make.FRAMES + 2]
    painted = np.asarray(shown.convert("RGBA"), dtype=float) / 255
    np.testing.assert_allclose(painted[..., 3], true[..., 3], atol=0.1)
    assert np.abs(painted[..., :3] - true[..., :3].numpy())[true[..., 3] > 0.9].mean() < 0.05


def test_a_model_without_keypoints_and_test_views():
    bare = film_of(replace(SOURCE, scene=replace(SOURCE.scene, keypoints=None, test=None)))
    header = Unpacked(pack(bare)).header
    assert header["title"] == "tiny"
    assert (header["names"], header["owner_names"], len(header["views"])) == ([], [], 1)
    assert "keypoints" not in header["blocks"]


def test_the_page_refers_to_nothing_outside(tmp_path):
    write_viewer(tmp_path / "page.html", films.film())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|@import|\[\[\w+\]\]', page) == []
    assert "default-src 'none'" in page


def test_the_same_film_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_viewer(tmp_path / name, films.film())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_5000_gaussians_in_16_frames_are_a_page_below_10_mb(tmp_path):
    states = [make.random_gaussians(5000, sh_degree=3, seed=seed) for seed in range(16)]  # nothing is the same twice
    film = replace(films.film(states[:4]), states=states, times=torch.linspace(0, 1, 16), keypoints=None)
    write_viewer(tmp_path / "page.html", film)
    assert (tmp_path / "page.html").stat().st_size < 10e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps must be positive"),
        ({"states": [], "times": torch.zeros(0), "keypoints": None}, "at least one frame"),
        ({"paths": []}, "at least one frame and one camera"),
        ({"times": torch.zeros(3)}, "3 times but 4 frames"),
        ({"keypoints": torch.zeros(5, 3, 3)}, "keypoints of 5 frames but 4 frames"),
        ({"errors": [torch.zeros(40)] * 3}, "errors are not of the Gaussians"),
    ],
)
def test_a_wrong_film_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(films.film(), **change)
