"""The page that keypoints are clicked on, as a browser talks to it."""

import http.client
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.images import quantize
from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from kg4d.priors.keypoints.clicked import click_keypoints, click_object
from kg4d.priors.keypoints.marked import SupportKeypoints, read_support, write_support
from tests.priors.clips import save_video
from tests.priors.commands import prepared
from tests.priors.textures import picture

CLICKED = {"names": ["a", "b"], "parents": [-1, 0], "uv": [[40.5, 48.0], [56.0, 48.0]]}


class Person(threading.Thread):
    """Clicks while the main thread waits: acts once the log says where, and saves at the end."""

    def __init__(self, caplog: pytest.LogCaptureFixture, act: Callable[["Person"], object], saved: dict) -> None:
        super().__init__(daemon=True)
        self.caplog, self.act, self.saved, self.answer, self.failure, self.port = caplog, act, saved, (), None, 0

    def run(self) -> None:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.caplog.text)
            if found:
                break
            threading.Event().wait(0.05)
        self.port = int(found[1])
        try:
            self.act(self)
        except BaseException as error:
            self.failure = error
        finally:
            self.answer = self.post(self.saved)  # the main thread must not wait for ever

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def post(self, body: object, **headers: str) -> tuple[int, bytes]:
        return self.ask("POST", "/keypoints.json", body, **({"Content-Type": "application/json"} | headers))


@pytest.fixture
def person(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Callable[[Person], object]], Person]]:
    caplog.set_level(logging.INFO, logger="kg4d")
    started = []

    def start(act: Callable[[Person], object], saved: dict = CLICKED) -> Person:
        started.append(Person(caplog, act, saved))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.join(30)
        if one.failure is not None:
            raise one.failure


def test_the_page_the_image_and_what_was_clicked(tmp_path: Path, person: Callable) -> None:
    shown = {}

    def look(one: Person) -> None:
        shown.update({path: one.ask("GET", path) for path in ("/", "/image.png", "/keypoints.json", "/etc/passwd")})

    person(look)
    found = click_keypoints(picture(), tmp_path / "k.json", 0)
    assert (found.names, found.parents, found.uv.tolist()) == (("a", "b"), (-1, 0), CLICKED["uv"])
    assert read_support(tmp_path / "k.json", 96, 96).names == ("a", "b")
    assert b"keypoints.json" in shown["/"][1]
    pixels = np.array(Image.open(BytesIO(shown["/image.png"][1])))
    assert np.array_equal(pixels, quantize(picture()).numpy())
    assert shown["/keypoints.json"] == (200, b"{}")
    assert shown["/etc/passwd"][0] == 404


def test_what_is_wrong_is_answered_and_nothing_written(tmp_path: Path, person: Callable) -> None:
    path, answers = tmp_path / "k.json", []

    def blunder(one: Person) -> None:
        answers.extend(
            [
                one.post(CLICKED | {"uv": [[40, 48], [97, 48]]}),
                one.post(CLICKED | {"names": ["a", "a"]}),
                one.post("{"),
                one.post(CLICKED, **{"Content-Type": "text/plain"}),  # what a foreign page may send unasked
                one.post(CLICKED, Host="example.com:80"),  # a foreign name that points here
                one.ask("GET", "/", Host="example.com:80"),
                one.ask("GET", "/keypoints.json", Origin="http://localhost:1"),  # another page on this machine
                one.post(None, **{"Content-Length": str((1 << 20) + 1)}),
                one.ask("POST", "/other", CLICKED, **{"Content-Type": "application/json"}),
            ]
        )
        assert not path.exists()

    person(blunder)
    click_keypoints(picture(), path, 0)
    assert [status for status, _ in answers] == [400, 400, 400, 404, 403, 403, 403, 413, 404]
    assert b"(97, 48) lies outside the image of 96 x 96 px" in answers[0][1]


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path, person: Callable) -> None:
    write_support(tmp_path / "k.json", SupportKeypoints(("old",), (-1,), torch.tensor([[48.0, 48.0]])))
    seen = []
    person(lambda one: seen.append(json.loads(one.ask("GET", "/keypoints.json")[1])))
    click_keypoints(picture(), tmp_path / "k.json", 0)
    assert seen == [{"names": ["old"], "parents": [-1], "uv": [[48.0, 48.0]]}]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match=r"keypoints\.port.*cannot be used"):
            click_keypoints(picture(), tmp_path / "k.json", other.getsockname()[1])


def test_clicking_is_part_of_the_command(
    tmp_path: Path, person: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    video = save_video(tmp_path / "disc.mp4")
    assert prepared(video, tmp_path / "scene", "keypoints.kind=click") == 2
    assert "keypoints.path: names no file" in capsys.readouterr().err
    person(lambda one: None)
    assert prepared(video, tmp_path / "scene", "keypoints.kind=click", f"keypoints.path={tmp_path / 'k.json'}") == 0
    keypoints = load_scene(tmp_path / "scene").keypoints
    assert keypoints is not None
    assert keypoints.names == ("a", "b")


def test_the_object_is_clicked_and_nothing_written(tmp_path: Path, person: Callable) -> None:
    seen = []

    def click(one: Person) -> None:
        seen.append(json.loads(one.ask("GET", "/keypoints.json")[1]))
        seen.append(one.post({"names": ["object"], "uv": [[200, 10]]})[0])

    one = person(click, {"names": ["object"], "uv": [[30.5, 40]]})
    assert click_object(picture(), 0) == [30.5, 40.0]
    one.join(30)
    assert seen == [{"only": "object"}, 400]
    assert one.answer == (200, b"taken: (30.5, 40.0)")
    assert not list(tmp_path.iterdir())


def test_a_clicked_object_is_the_one_of_the_scene(
    tmp_path: Path, person: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two squares on white; the page shows the frame, and the smaller one is clicked."""
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    frame = np.full((64, 96, 3), 255, np.uint8)
    frame[8:48, 6:46], frame[30:50, 66:86] = (200, 30, 30), (30, 30, 200)
    (tmp_path / "two").mkdir()
    for t in range(3):
        Image.fromarray(np.roll(frame, t, axis=0)).save(tmp_path / f"two/{t}.png")
    person(lambda one: None, {"names": ["object"], "uv": [[76, 40]]})
    assert prepared(tmp_path / "two", tmp_path / "scene", "matting.click=true", "keypoints.kind=none") == 0
    first = load_scene(tmp_path / "scene").reference.images[0]
    red, blue = (first[..., channel][first[..., 3] > 0.5].mean() for channel in (0, 2))
    assert blue > 0.6 > 0.3 > red
    assert "matting.point=[76.0,40.0] repeats it" in caplog.text
