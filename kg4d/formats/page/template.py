"""The page as text. Light to import: a live page is served before anything heavy is loaded."""

import base64
import html
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_SCRIPTS = ("film.js", "splats.js", "page.js")


def page_with(films: Sequence[bytes], title: str) -> str:
    """A page that holds its films: one file that needs neither a server nor a network.

    Args:
        films: One or two of `kg4d.formats.page.packing.pack`; the second one is shown beside the first.
        title: Of the page.
    """
    return _page((f">{base64.b64encode(zlib.compress(film, 9)).decode()}" for film in films), title)


def page_of(addresses: Sequence[str], title: str) -> str:
    """A page that asks the command that serves it for its films.

    Args:
        addresses: One or two of them; the page asks for what is there after the version that it has.
        title: Of the page.
    """
    return _page((f' data-address="{html.escape(address)}">' for address in addresses), title)


def _page(films: Iterable[str], title: str) -> str:
    parts = {
        "title": html.escape(title),
        "style": (_HERE / "page.css").read_text(encoding="utf-8"),
        "script": "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "films": "\n".join(f'<script type="text/kg4d-film"{film}</script>' for film in films),
    }
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"[[{name}]]", text)
    return page
