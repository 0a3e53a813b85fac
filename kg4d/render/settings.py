"""Settings of `kg4d.render`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass
from enum import StrEnum


class RendererKind(StrEnum):
    """The renderers."""

    auto = "auto"  # cuda where a GPU and gsplat are there, else cpu, else reference
    cuda = "cuda"
    cpu = "cpu"
    reference = "reference"


@dataclass
class RendererConfig:
    """Choice of the renderer.

    Attributes:
        kind: Which renderer to use; auto takes the fastest that works on this machine, and logs which.
        device: Where everything is computed: `cpu`, `cuda` (the first GPU that this process may use), `cuda:1` and so
            on; auto takes what `kind` needs.
        threads: Threads of the cpu renderer; as many as torch uses when None.
        antialiased: Let Gaussians that are smaller than a pixel fade instead of growing to its size (Mip-Splatting), in
            fit and views: for pictures of other sizes than those of the fit (docs/renderer.md).
    """

    kind: RendererKind = RendererKind.auto
    device: str = "auto"
    threads: int | None = None
    antialiased: bool = False
