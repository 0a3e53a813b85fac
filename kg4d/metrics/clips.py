"""Clips out of a views x frames grid of images: the sequences behind FVD-F, FVD-V, FVD-Diag and FV4D.

SV4D (Xie et al. 2024, arXiv 2407.17470, section 4) names the four distances, but neither windows nor what happens at
the ends; those rules are ours. Each function returns clips as rows of flat image indices, view x T + frame.
"""

import torch
from jaxtyping import Int
from torch import Tensor

WINDOW = 16  # images a clip of the serpentine
STRIDE = 8  # half a window, so that clips also cross from one view to the next


def frame_clips(views: int, frames: int) -> Int[Tensor, "V T"]:
    """FVD-F: the frames of each view.

    >>> frame_clips(2, 3).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return torch.arange(views * frames).reshape(views, frames)


def view_clips(views: int, frames: int) -> Int[Tensor, "T V"]:
    """FVD-V: the views of each frame.

    >>> view_clips(2, 3).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return frame_clips(views, frames).T


def diagonal_clips(views: int, frames: int) -> Int[Tensor, "T L"]:
    """FVD-Diag: from each frame on, one step in time and one to the next view, both cyclic, max(V, T) steps.

    >>> diagonal_clips(2, 3).tolist()
    [[0, 4, 2], [1, 5, 0], [2, 3, 1]]
    """
    step, start = torch.arange(max(views, frames)), torch.arange(frames)[:, None]
    return step % views * frames + (start + step) % frames


def serpentine_clips(views: int, frames: int) -> Int[Tensor, "N L"]:
    """FV4D: all images in bidirectional raster order (every other view backwards), cut into half-overlapping windows.

    The last window ends with the last image, so that every image counts. A grid of at most one window is one clip.

    >>> serpentine_clips(2, 3).tolist()
    [[0, 1, 2, 5, 4, 3]]
    >>> serpentine_clips(2, 16)[:, [0, 7, 8, 15]].tolist()
    [[0, 7, 8, 15], [8, 15, 31, 24], [31, 24, 23, 16]]
    """
    grid = frame_clips(views, frames)
    order = torch.cat([row.flip(0) if view % 2 else row for view, row in enumerate(grid)])
    if len(order) <= WINDOW:
        return order[None]
    starts = [*range(0, len(order) - WINDOW, STRIDE), len(order) - WINDOW]
    return torch.stack([order[start : start + WINDOW] for start in starts])


def repeated(clips: Int[Tensor, "N L"], minimum: int) -> Int[Tensor, "N M"]:
    """Clips lengthened to at least `minimum` images by showing every image equally often in a row.

    >>> repeated(torch.tensor([[7, 8, 9, 6]]), 9).tolist()
    [[7, 7, 7, 8, 8, 8, 9, 9, 9, 6, 6, 6]]
    """
    return clips.repeat_interleave(-(-minimum // clips.shape[1]), dim=1)
