"""Equations as MathML, which browsers draw themselves: no script, no font, no request when a page is opened.

Blocks are fenced as `math`, as GitHub reads them too; docstrings have the role :math:.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> Any:
    """Let the fence `math` be converted."""
    fence = {"name": "math", "class": "math", "format": _block}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Convert equations within sentences."""
    return re.sub(r":math:<code>(.*?)</code>", lambda found: convert(html.unescape(found[1])), content, flags=re.DOTALL)


def _block(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math">{convert(source, display="block")}</div>'
