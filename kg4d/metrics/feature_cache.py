"""Features of true images on disk: every variant, seed and later evaluation of a scene compares with the same ones."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kg4d.utils.files import content_hash, replacing

_WAY = 2  # goes up whenever the same images and network give other digits than before


@dataclass(frozen=True)
class FeatureCache:
    """A folder of safetensors files, each whole or absent; what has not been asked for the longest goes first.

    Attributes:
        folder: Created when something is kept.
        most_bytes: Size of all files together.
    """

    folder: Path
    most_bytes: int = 64 << 20

    def read(self, content: str, count: int) -> Float[Tensor, "N D"] | None:
        """Features that `write` has kept under `content`, digit for digit; None where there is no such file.

        A file that is broken, changed, or of other content counts as none.

        Args:
            content: SHA-256 of all that they depend on, in hexadecimal digits.
            count: How many of them there must be.
        """
        file = self._file(content)
        try:
            with safe_open(file, "pt") as archive:
                labels = archive.metadata() or {}
                features: Tensor = archive.get_tensor("features")
            good = labels.get("content") == content and labels.get("sha256") == content_hash({"features": features})
        except (OSError, SafetensorError):
            return None
        if not good or len(features) != count:
            return None
        with suppress(OSError):
            file.touch()
        return features

    def write(self, content: str, features: Float[Tensor, "N D"]) -> None:
        """Keep features; where that fails (a full disk, a folder that may not be written) they are not kept."""
        tensors = {"features": features.cpu().contiguous()}
        with suppress(OSError, SafetensorError):
            with replacing(self._file(content)) as part:
                save_file(tensors, part, metadata={"content": content, "sha256": content_hash(tensors)})
            self._shrink()

    def _file(self, content: str) -> Path:
        """Another version of torch may add in another order, and must not decide what a run measures."""
        way = f"{content} {_WAY} {torch.__version__}"
        return self.folder / f"{hashlib.sha256(way.encode()).hexdigest()}.safetensors"

    def _shrink(self) -> None:
        files = [(file, file.stat()) for file in self.folder.glob("*.safetensors")]
        excess = sum(state.st_size for _, state in files) - self.most_bytes
        for file, state in sorted(files, key=lambda entry: entry[1].st_mtime_ns):
            if excess <= 0:
                return
            file.unlink(missing_ok=True)
            excess -= state.st_size
