"""Equations as MathML, which browsers draw themselves: no script, no font, no request when a page is opened.

Blocks are fenced as `math`, as GitHub reads them too; docstrings have the role :math:.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_SCROLLS = "max-width: 100%; overflow-x: auto"  # wider than a phone: the equation scrolls, not the page
_LONG = 40  # characters of a source that may be wider than that


def on_config(config: Any) -> Any:
    """Let the fence `math` be converted."""
    fence = {"name": "math", "class": "math", "format": _block}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Convert equations within sentences."""
    return re.sub(r":math:<code>(.*?)</code>", lambda found: _inline(html.unescape(found[1])), content, flags=re.DOTALL)


def _inline(source: str) -> str:
    equation = convert(source)
    return equation if len(source) < _LONG else f'<span style="display: inline-block; {_SCROLLS}">{equation}</span>'


def _block(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math" style="{_SCROLLS}">{convert(source, display="block")}</div>'
