"""Words above the pictures of a video that say which is which, wherever the file goes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_NARROWEST = 64  # px of a picture: a narrower one has no room for words
_LETTERS = (10, 22)  # px, the smallest and the largest
_BAR, _INK = (30, 30, 34), (240, 240, 240)


def with_legend(frames: Float[Tensor, "T H W 3"], words: Sequence[str]) -> Float[Tensor, "T H_and_bar W 3"]:
    """Put a bar above pictures that stand side by side, with what each is; nothing of them is covered.

    Args:
        frames: RGB in [0, 1]: as many pictures of one width as there are words.
        words: From left to right; one that is too long for its picture ends in "…".

    Returns:
        Frames with the bar; as they are where the pictures are narrower than 64 px.
    """
    width = frames.shape[2] // len(words)
    if width < _NARROWEST:
        return frames
    size = min(max(round(width / 16), _LETTERS[0]), _LETTERS[1])
    font = ImageFont.load_default(size)
    bar = Image.new("RGB", (frames.shape[2], 2 * round(0.8 * size)), _BAR)
    draw = ImageDraw.Draw(bar)
    for index, word in enumerate(words):
        shown = word
        while draw.textlength(shown, font) > width - size and len(shown) > 1:
            shown = shown.removesuffix("…")[:-1] + "…"
        draw.text(((index + 0.5) * width, bar.height / 2), shown, _INK, font, anchor="mm")
    strip = torch.from_numpy(np.array(bar)).to(frames) / 255
    return torch.cat([strip.expand(len(frames), -1, -1, -1), frames], dim=1)
