"""The page in Debian's chromium without a GPU: it asks for nothing, shows what the renderer draws, and can be used."""

import shutil
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kg4d.formats.page.live import Loaded, Shown, serve_page
from kg4d.formats.page.packing import pack
from kg4d.formats.viewer import write_viewer
from kg4d.geometry.cameras import Cameras
from kg4d.render.build import build_renderer
from tests.formats import films
from tests.formats.films import Unpacked

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
FILM = replace(films.film(), errors=[torch.linspace(0, 0.3, 40)] * len(films.TIMES), errors_of="the held-out pictures")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "viewer.html"
    write_viewer(path, FILM)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)
        yield browser
        browser.close()


class Opened:
    """A page with what it asked for and complained about; it does not play by itself."""

    def __init__(self, browser, address: str, viewport=DESKTOP, script="", **options) -> None:
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", accept_downloads=True, **options)
        self.page = context.new_page()
        self.page.add_init_script(script)
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def ready(self) -> "Opened":
        self.page.wait_for_selector("#play:not([disabled])", timeout=60_000)
        return self

    def settled(self) -> "Opened":
        """Two pictures later, all that was asked for is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self

    def seek(self, frame: int) -> "Opened":
        self.page.locator("#frame").fill(str(frame))
        return self.settled()

    def picture(self, layer: str = "splats", view: str = "view-a") -> Tensor:
        """What a canvas shows: (H, W, 4) in [0, 1]."""
        script = "([view, layer]) => { draw(); return document.querySelector(`#${view} .${layer}`).toDataURL(); }"
        url = self.page.evaluate(script, [view, layer])
        return picture_of(b64decode(url.split(",")[1]))


def picture_of(png: bytes) -> Tensor:
    return torch.tensor(np.asarray(Image.open(BytesIO(png)).convert("RGBA")) / 255, dtype=torch.float32)


@pytest.fixture(scope="module")
def opened(browser, file) -> Opened:
    return Opened(browser, file).ready()


def fitted_into(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same views in a canvas of that size, into which the whole image fits."""
    scale = min(width / cameras.width, height / cameras.height)
    Ks = cameras.Ks.clone()
    Ks[:, :2] *= scale
    Ks[:, 0, 2] += (width - scale * cameras.width) / 2
    Ks[:, 1, 2] += (height - scale * cameras.height) / 2
    return Cameras(cameras.viewmats, Ks, width, height)


def test_nothing_is_asked_of_any_network_and_nothing_goes_wrong(opened, file):
    opened.page.check("[value=motion]")
    opened.page.check("[value=appearance]")
    opened.settled()
    assert opened.requests == [file]
    assert opened.complaints == []
    assert opened.page.inner_text("h1") == FILM.title
    assert opened.page.inner_text("#subtitle") == "40 Gaussians · 4 frames · 4 fps"


@pytest.mark.parametrize(("view", "frame"), [(0, 0), (0, 3), (2, 1)])
def test_it_shows_what_the_renderer_draws(opened, view, frame):
    opened.page.select_option("#camera", str(view))
    shown = opened.seek(frame).picture()[..., :3]
    cameras = fitted_into(FILM.paths[view].cameras[frame], shown.shape[1], shown.shape[0])
    held = Unpacked(pack(FILM)).state(frame)
    drawn = build_renderer("reference")(held, cameras, background=torch.ones(3)).image[0].clamp(0, 1)
    assert drawn.std() > 0.05
    assert -10 * (shown - drawn).square().mean().log10() > 40


def test_the_slider_changes_what_is_shown(opened):
    opened.page.select_option("#camera", "0")
    first, later = opened.seek(0).picture(), opened.seek(2).picture()
    assert (first - later).abs().mean() > 0.01
    torch.testing.assert_close(opened.seek(0).picture(), first)


@pytest.mark.parametrize("view", [0, 1])
def test_keypoints_are_drawn_where_they_are(opened, view):
    opened.page.select_option("#camera", str(view))
    opened.page.uncheck("#skeleton")
    overlay = opened.seek(3).picture("overlay")
    opened.page.check("#skeleton")
    height, width = overlay.shape[:2]
    cameras = fitted_into(FILM.paths[view].cameras[3], width, height)
    expected = cameras.project(FILM.keypoints[3]).pixels[0]
    rows, columns = torch.nonzero(overlay[..., 3] == 1, as_tuple=True)  # the outline of the picture shines through
    painted = torch.stack([columns, rows], dim=-1) + 0.5
    nearest = torch.cdist(painted, expected).min(1)
    assert nearest.values.max() < 10  # nothing else is drawn
    for joint, place in enumerate(expected):
        middle = painted[nearest.indices == joint].mean(0)
        assert (middle - place).norm() < 3


def test_it_plays_and_stops(opened):
    opened.page.select_option("#speed", "4")
    opened.seek(0).page.press("#frame", " ")
    playwright.expect(opened.page.locator("#frame")).not_to_have_value("0", timeout=60_000)
    opened.page.press("#frame", " ")
    assert opened.page.get_attribute("#play", "aria-label") == "Play"
    opened.seek(1).page.press("#frame", ".")
    assert opened.settled().page.input_value("#frame") == "2"


def test_hands_and_keys_turn_the_camera(opened):
    opened.page.select_option("#camera", "0")
    before = opened.seek(0).picture()
    box = opened.page.locator("#view-a .overlay").bounding_box()
    opened.page.mouse.move(box["x"] + 200, box["y"] + 200)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 260, box["y"] + 220, steps=3)
    opened.page.mouse.up()
    turned = opened.settled().picture()
    assert (turned - before).abs().mean() > 0.01
    assert opened.page.input_value("#camera") == "free"
    opened.page.press("#view-a .overlay", "ArrowLeft")
    assert (opened.settled().picture() - turned).abs().mean() > 0.002
    opened.page.dblclick("#view-a .overlay")
    torch.testing.assert_close(opened.settled().picture(), before)


@pytest.mark.parametrize("mode", ["keypoint", "motion", "opacity", "error"])
def test_colours_can_mean_something(opened, mode):
    opened.page.select_option("#camera", "0")
    before = opened.seek(2).picture()
    opened.page.check(f"[value={mode}]")
    assert (opened.settled().picture() - before).abs().mean() > 0.01
    assert opened.page.inner_text("#legend")
    opened.page.check("[value=appearance]")


def test_a_screenshot_has_the_model_and_the_picture_beside_it(opened):
    opened.page.select_option("#camera", "1")
    opened.seek(2)
    with opened.page.expect_download() as download:
        opened.page.click("#screenshot")
    saved = picture_of(Path(download.value.path()).read_bytes())
    half = saved.shape[1] // 2
    alone = opened.picture()
    assert (saved[:, :half, :3] < 0.9).any(-1).float().mean() > 0.05
    assert (saved[:, half:, :3] < 0.9).any(-1).float().mean() > 0.05
    assert abs(saved.shape[0] - alone.shape[0]) <= 2


def test_a_video_can_be_recorded(opened):
    opened.page.select_option("#speed", "0.25")
    with opened.page.expect_download(timeout=60_000) as download:
        opened.page.click("#record")
    assert Path(download.value.suggested_filename).suffix in (".mp4", ".webm")
    assert Path(download.value.path()).stat().st_size > 1000


def test_another_run_is_shown_beside_it(browser, file, tmp_path):
    other = tmp_path / "other.html"
    shifted = [replace(state, colors=1 - state.colors) for state in FILM.states]
    write_viewer(other, replace(films.film(shifted, title="other"), metrics={"test/psnr": 30.0}))
    opened = Opened(browser, file).ready()
    with opened.page.expect_file_chooser() as chooser:
        opened.page.click("#compare")
    chooser.value.set_files(other)
    opened.page.wait_for_selector("#view-b:not([hidden])")
    a, b = (opened.settled().picture(view=view) for view in ("view-a", "view-b"))
    assert (a - b).abs().mean() > 0.01
    assert opened.page.inner_text("#metrics tbody tr") == "test/psnr ↑ (dB)\t21.23\t30"
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_can_be_used_with_other_senses_and_on_a_phone(browser, file, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened = Opened(browser, file, viewport, color_scheme=scheme, has_touch=viewport is PHONE).ready()
    opened.page.check("[value=keypoint]")
    opened.page.click("summary")
    found = axe.run(opened.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


GATE = """
window.waiting = [];
const decode = window.createImageBitmap;
window.createImageBitmap = async (...given) => {
  await new Promise((open) => waiting.push(open));
  return decode(...given);
};
window.open_all = () => { for (const open of waiting.splice(0)) open(); };
"""


def test_a_frame_is_not_shown_before_its_picture(browser, file):
    """However long a picture takes to decode, the splats wait for it."""
    opened = Opened(browser, file, script=GATE).ready().settled()
    views = opened.page.locator("#views")
    assert opened.page.inner_text("#clock") == "0 / 0"  # nothing has been drawn
    opened.page.evaluate("open_all()")
    playwright.expect(opened.page.locator("#clock")).to_have_text("1 / 4")
    opened.page.evaluate("open_all()")  # those that it decoded ahead
    opened.page.select_option("#camera", "1")  # whose pictures are others
    before = picture_of(views.screenshot())
    opened.seek(2).settled()
    assert opened.page.inner_text("#clock") == "1 / 4"
    torch.testing.assert_close(picture_of(views.screenshot()), before)
    opened.page.evaluate("open_all()")
    playwright.expect(opened.page.locator("#clock")).to_have_text("3 / 4")
    after = picture_of(opened.settled().page.locator("#views").screenshot())
    half = after.shape[1] // 2
    assert (after[:, :half] - before[:, :half]).abs().mean() > 0.005
    assert (after[:, half:] - before[:, half:]).abs().mean() > 0.005
    opened.page.uncheck("#beside")  # without a picture nothing waits
    opened.seek(3)
    playwright.expect(opened.page.locator("#clock")).to_have_text("4 / 4")
    assert opened.complaints == []


def test_a_picture_that_cannot_be_decoded_holds_nothing_up(browser, file):
    opened = Opened(
        browser, file, script="window.createImageBitmap = () => Promise.reject(new Error('broken'))"
    ).ready()
    opened.seek(2)
    playwright.expect(opened.page.locator("#clock")).to_have_text("3 / 4")


def test_a_live_page_follows_its_films(browser):
    source = Loaded()
    with serve_page("a run", [source], 0) as address:
        opened = Opened(browser, address)
        assert opened.page.inner_text("#notice") == "Loading the splats …"
        source.film = Shown(pack(replace(FILM, note="first")), "1", last=False)
        opened.ready().page.locator("#subtitle").filter(has_text="first").wait_for()
        before = opened.settled().picture()
        darker = [replace(state, colors=0.5 * state.colors) for state in FILM.states]
        source.film = Shown(pack(replace(FILM, states=darker, note="second")), "2")
        opened.page.locator("#subtitle").filter(has_text="second").wait_for()
        assert (opened.settled().picture() - before).abs().mean() > 0.01
    assert all(request.startswith(address) for request in opened.requests)
    assert opened.complaints == []
    opened.seek(1)  # the command has ended, and the page goes on
    assert opened.page.inner_text("#clock") == "2 / 4"
