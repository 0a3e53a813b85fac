"""Films for the tests of pages, and what a page holds, read apart from the package."""

import base64
import html
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kg4d.formats.page.film import Film, camera_paths
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply
from tests import make

TIMES = torch.arange(make.FRAMES) / (make.FRAMES - 1)
KINDS = {"u1": np.uint8, "i1": np.int8, "u2": np.uint16, "i2": np.int16, "f4": np.float32}


def moving(count: int = 40, *, sh_degree: int = 1) -> list[GaussianState]:
    """Small Gaussians of all shapes and colours that go sideways and turn."""
    still = make.random_gaussians(count, keypoints=make.JOINTS, frames=None, sh_degree=sh_degree, spread=0.2)
    still = replace(still, scales=0.02 + 0.08 * still.scales)
    turns = [
        torch.tensor([np.cos(t), 0.0, np.sin(t), 0.0], dtype=torch.float32) for t in np.linspace(0, 1, make.FRAMES)
    ]
    return [
        replace(
            still,
            means=still.means + torch.tensor([0.1 * frame, 0.0, 0.0]),
            quats=quat_multiply(turn.expand(count, 4), still.quats),
        )
        for frame, turn in enumerate(turns)
    ]


def film(states: Sequence[GaussianState] | None = None, title: str = 'a <run> & "more"') -> Film:
    """A film of them with the cameras, pictures and keypoints of the tiny scene."""
    scene = make.tiny_scene()
    return Film(
        title,
        moving() if states is None else states,
        TIMES,
        4,
        camera_paths(scene.reference, scene.test),
        keypoints=scene.keypoints.truth,
        names=scene.keypoints.names,
        parents=scene.keypoints.parents,
        metrics={"test/psnr": 21.2345, "something/new": 2.0},
    )


class Unpacked:
    """What the bytes of a film say."""

    def __init__(self, content: bytes) -> None:
        assert content[:4] == b"KG4D"
        end = 8 + int.from_bytes(content[4:8], "little")
        self.header = json.loads(content[8:end])
        self._content, self._start = content, -(-end // 4) * 4

    def block(self, name: str) -> np.ndarray:
        """All numbers of a block."""
        known = self.header["blocks"][name]
        first = self._start + known["offset"]
        assert first % 4 == 0
        return np.frombuffer(self._content, np.dtype(KINDS[known["type"]]).newbyteorder("<"), known["length"], first)

    def rows(self, name: str, frame: int, width: int) -> np.ndarray:
        """Those of a frame."""
        counts = self.header["counts"]
        first = 0 if self.header["blocks"][name]["once"] else sum(counts[:frame])
        return self.block(name).reshape(-1, width)[first : first + counts[frame]].astype(float)

    def picture(self, known: dict) -> bytes:
        """The file of a picture."""
        first = self._start + known["offset"]
        return self._content[first : first + known["length"]]

    def state(self, frame: int) -> GaussianState:
        """The Gaussians of a frame, to the precision that they are kept at."""
        low, high = map(np.array, self.header["box"])
        least, most = self.header["log_scales"]
        count = self.header["harmonics_count"]

        def tensor(values: np.ndarray) -> Tensor:
            return torch.tensor(values, dtype=torch.float32)

        return GaussianState(
            means=tensor(low + (high - low) * self.rows("means", frame, 3) / 65535),
            quats=tensor(self.rows("quats", frame, 4) / 32767),
            scales=tensor(np.exp(least + (most - least) * self.rows("scales", frame, 3) / 65535)),
            opacities=tensor(self.rows("opacities", frame, 1)[:, 0] / 255),
            colors=tensor(self.rows("colors", frame, 3) / 255),
            keypoint_logits=torch.zeros(self.header["counts"][frame], 0),
            harmonics=tensor(self.rows("harmonics", frame, 3 * count).reshape(-1, count, 3))
            * self.header["harmonics"]
            / 127
            if count
            else None,
        )


def films_in(page: str) -> list[Unpacked]:
    """The films that a page holds."""
    found = re.findall(r'<script type="text/kg4d-film">([^<]*)</script>', page)
    return [Unpacked(zlib.decompress(base64.b64decode(text))) for text in found]


def title_in(page: str) -> str:
    """Its title."""
    return html.unescape(re.search(r"<title>(.*?)</title>", page)[1])
