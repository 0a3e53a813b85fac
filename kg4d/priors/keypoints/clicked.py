"""Keypoints that a person clicks, or the object itself: a page, served to this machine only, shows the image."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.priors.keypoints.marked import SupportKeypoints, parse_support, read_support, write_support
from kg4d.utils.local_pages import is_own_page

_log = logging.getLogger(__name__)

_PAGE = Path(__file__).with_name("clicking.html")
_LARGEST = 1 << 20  # bytes that the page may send


def click_keypoints(image: Float[Tensor, "H W 4"], path: str | Path, port: int) -> SupportKeypoints:
    """Serve the page until a person has saved keypoints; the page starts with those of an existing file.

    Args:
        image: The image to show: straight RGBA in [0, 1].
        path: The JSON file to write.
        port: Port on 127.0.0.1; 0 picks a free one. The log has the address.

    Raises:
        InputError: The port is taken, or the existing file is malformed.
    """
    path = Path(path)
    height, width = image.shape[:2]
    start = read_support(path, width, height) if path.exists() else None
    table = {} if start is None else {"names": start.names, "parents": start.parents, "uv": start.uv.tolist()}

    def keep(found: SupportKeypoints) -> str:
        write_support(path, found)
        return f"saved {path}"

    _serve(image, table, keep, port, "click the keypoints at http://127.0.0.1:%d/, then save them")
    return read_support(path, width, height)


def click_object(image: Float[Tensor, "H W 4"], port: int) -> list[float]:
    """Serve the page until a person has clicked the object: its pixel (x, y).

    Args:
        image: The image to show: straight RGBA in [0, 1].
        port: Port on 127.0.0.1; 0 picks a free one. The log has the address.

    Raises:
        InputError: The port is taken.
    """
    clicked: list[float] = []

    def keep(found: SupportKeypoints) -> str:
        clicked[:] = found.uv[0].tolist()
        return "taken: ({:.1f}, {:.1f})".format(*clicked)

    _serve(image, {"only": "object"}, keep, port, "click the object at http://127.0.0.1:%d/, then save")
    return clicked


def _serve(
    image: Float[Tensor, "H W 4"],
    start: Mapping[str, Any],
    keep: Callable[[SupportKeypoints], str],
    port: int,
    invitation: str,
) -> None:
    """Serve the page until a person has saved.

    Args:
        image: The image to show.
        start: What the page starts from: a table of keypoints, or `only`, the name of a single point.
        keep: Keeps what was clicked, and returns what the page says then.
        port: Port on 127.0.0.1; 0 picks a free one.
        invitation: For the log, with a place for the port.

    Raises:
        InputError: The port is taken.
    """
    try:
        server = _Server(image, start, keep, port)
    except OSError as error:
        what = f"{port} cannot be used: {(error.strerror or str(error)).lower()}"
        raise InputError("keypoints.port", what, "choose another, or 0 for a free one") from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _log.info(invitation, server.server_port)
        try:
            server.saved.wait()
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # browsers keep unused connections open

    def __init__(
        self,
        image: Float[Tensor, "H W 4"],
        start: Mapping[str, Any],
        keep: Callable[[SupportKeypoints], str],
        port: int,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.keep, self.saved = keep, threading.Event()
        self.height, self.width = image.shape[:2]
        picture = BytesIO()
        Image.fromarray(quantize(image).numpy()).save(picture, format="PNG")
        self.files = {
            "/": ("text/html; charset=utf-8", _PAGE.read_bytes()),
            "/image.png": ("image/png", picture.getvalue()),
            "/keypoints.json": ("application/json", json.dumps(start).encode()),
        }


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Serve the page, the image, and the existing keypoints."""
        if not self._from_here():
            return
        if self.path not in self.server.files:
            self._answer(HTTPStatus.NOT_FOUND, "no such page")
            return
        kind, content = self.server.files[self.path]
        self._answer(HTTPStatus.OK, content, kind)

    def do_POST(self) -> None:
        """Check the keypoints that the page sends; save them if they are valid, else answer with what is wrong."""
        if not self._from_here():
            return
        length = self.headers.get("Content-Length", "")
        # a page of another site must ask before it may send this type (CORS), and its question gets no answer
        if self.path != "/keypoints.json" or self.headers.get_content_type() != "application/json":
            self._answer(HTTPStatus.NOT_FOUND, "send application/json to /keypoints.json")
            return
        if not length.isdecimal() or int(length) > _LARGEST:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too much")
            return
        try:
            table = json.loads(self.rfile.read(int(length)))
            found = parse_support(table, "keypoints", self.server.width, self.server.height)
            answer = self.server.keep(found)
        except ValueError as error:  # malformed JSON, or an InputError
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
            return
        except OSError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error.filename}: {error.strerror}")
            return
        self._answer(HTTPStatus.OK, answer)
        self.server.saved.set()

    def _from_here(self) -> bool:
        """Whether the request is addressed to this machine by its own name, and comes from this page alone."""
        if is_own_page(self.headers.get("Host", ""), self.headers.get("Origin")):
            return True
        self._answer(HTTPStatus.FORBIDDEN, "open this page as http://127.0.0.1")
        return False

    def _answer(self, status: HTTPStatus, content: str | bytes, kind: str = "text/plain; charset=utf-8") -> None:
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Write requests to the debug log only."""
        _log.debug(format, *args)
