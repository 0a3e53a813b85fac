import http.client
from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.formats.page.live import Loaded, Shown, Watched, serve_page


def asked(address: str, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    return answer


def test_the_page_is_there_before_its_films():
    film = Loaded()
    with serve_page("a <run>", [film, Loaded()], 0) as address:
        page = asked(address, "/").content.decode()
        assert "<title>a &lt;run&gt;</title>" in page
        assert 'data-address="/film/0"' in page
        assert 'data-address="/film/1"' in page
        assert asked(address, "/film/0?after=").status == 204
        film.film = Shown(b"bytes", "7")
        answer = asked(address, "/film/0?after=")
        assert (answer.status, answer.content) == (200, b"bytes")
        assert (answer.headers["X-Version"], answer.headers["X-Last"]) == ("7", "yes")
        assert asked(address, "/film/0?after=7").status == 204
        assert asked(address, "/film/2").status == 404
    with pytest.raises(ConnectionRefusedError):
        asked(address, "/")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://{host}"}, 200),
        ({"Host": "example.com"}, 403),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_live_page_answers_itself_alone(headers, status):
    with serve_page("a run", [lambda: Shown(b"secret", "1")], 0) as address:
        sent = {name: value.format(host=address.removeprefix("http://")) for name, value in headers.items()}
        for path in ("/", "/film/0"):
            answer = asked(address, path, **sent)
            assert answer.status == status
            assert (b"secret" in answer.content) == (status == 200 and path == "/film/0")


def test_a_watched_file_is_shown_again_when_it_changes(tmp_path: Path):
    source = Watched(tmp_path / "film")
    assert source() is None
    source.path.write_bytes(b"first")
    first = source()
    assert first.content == b"first"
    assert not first.last
    assert source() is first
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"second")
    fresh.replace(source.path)
    assert source().content == b"second"
    assert source().version != first.version


def test_the_next_free_port_is_taken():
    with serve_page("a", [], 0) as first:
        port = int(first.rsplit(":", 1)[1])
        with serve_page("b", [], port) as second:
            assert second != first
            assert b"<title>b<" in asked(second, "/").content


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(InputError, match=f"{port} is no port"), serve_page("a", [], port):
        pass
