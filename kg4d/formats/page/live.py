"""A page that a command serves to this machine alone, and whose films may change. Light to import."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kg4d.errors import InputError
from kg4d.formats.page.template import page_of
from kg4d.utils.local_pages import is_own_page

_log = logging.getLogger(__name__)

_PORTS = 20  # that are tried, from the one asked for on


@dataclass(frozen=True)
class Shown:
    """A film that can be shown.

    Attributes:
        content: As `kg4d.formats.page.packing.pack` makes it.
        version: Another one for another film.
        last: There will be no other.
    """

    content: bytes
    version: str
    last: bool = True


Source = Callable[[], Shown | None]  # the newest film, or None while there is none


@dataclass
class Loaded:
    """A film that comes when its run has been read."""

    film: Shown | None = None

    def __call__(self) -> Shown | None:
        """What is there."""
        return self.film


@dataclass
class Watched:
    """The newest film in a file that fits write.

    Attributes:
        path: The file; it need not be there yet.
    """

    path: Path
    _known: Shown | None = field(default=None, init=False)

    def __call__(self) -> Shown | None:
        """What is there."""
        try:
            version = str(self.path.stat().st_mtime_ns)
            if self._known is None or self._known.version != version:
                self._known = Shown(self.path.read_bytes(), version, last=False)
        except FileNotFoundError:
            return None
        return self._known


@contextmanager
def serve_page(title: str, sources: Sequence[Source], port: int) -> Iterator[str]:
    """Serve a page on 127.0.0.1 until the end of the block; yields its address.

    It answers its own page alone: pages of other sites that the browser has open cannot read the model.

    Args:
        title: Of the page, until a film brings its own.
        sources: Of one film, or of two that are compared.
        port: The next free one is taken where this one is in use; 0 picks any free one.

    Raises:
        InputError: There is no such port, or neither it nor those behind it can be used.
    """
    if not 0 <= port < 65536:
        raise InputError("--port", f"{port} is no port", "give one below 65536, or 0 for any free one")
    with _server(title, sources, port) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _server(title: str, sources: Sequence[Source], port: int) -> "_Server":
    reason = ""
    for tried in range(port, min(port + _PORTS, 65536)) if port else [0]:
        try:
            return _Server(title, sources, tried)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
    raise InputError("--port", f"{port} cannot be used: {reason}", "choose another, or 0 for any free one")


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # browsers keep unused connections open
    allow_reuse_address = False  # a port that another page is served at is taken

    def __init__(self, title: str, sources: Sequence[Source], port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.sources = {f"/film/{index}": source for index, source in enumerate(sources)}
        self.page = page_of(list(self.sources), title).encode()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve the page, or a film that is newer than the one that the page has."""
        address = urlsplit(self.path)
        if not is_own_page(self.headers.get("Host", ""), self.headers.get("Origin")):
            self._answer(HTTPStatus.FORBIDDEN, b"open this page as http://127.0.0.1\n", "text/plain")
        elif address.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif address.path in self.server.sources:
            film = self.server.sources[address.path]()
            if film is None or parse_qs(address.query).get("after") == [film.version]:
                self._answer(HTTPStatus.NO_CONTENT, b"", "text/plain")
            else:
                headers = {"X-Version": film.version, **({"X-Last": "yes"} if film.last else {})}
                self._answer(HTTPStatus.OK, film.content, "application/octet-stream", headers)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"no such page\n", "text/plain")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Cache-Control": "no-store", **(headers or {})}.items():
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def shown_live(port: int | None) -> Iterator[Path | None]:
    """Serve a page of what is fitted meanwhile; yields the file that it shows.

    Args:
        port: Of the page, on 127.0.0.1; None serves none.
    """
    if port is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kg4d-view-") as folder:
        film = Path(folder) / "film"
        with serve_page("A fit", [Watched(film)], port) as address:
            _log.info("live     %s", address)
            yield film
