"""A whole moving model in one safetensors file, which any program reads without this package: docs/formats.md.

What is the same at all times is there once. Gaussians in space and time are kept as pieces, each with its own time,
duration and velocity, so that they can be drawn at any time; others have their centres and rotations at each frame.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kg4d.errors import InputError
from kg4d.formats.base import Exported, ExportSource
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.state import GaussianState
from kg4d.utils.files import replacing

NAME, VERSION = "model.safetensors", 1
_DIMENSIONS = {"means": 2, "quats": 2, "log_scales": 2, "opacities": 1, "colors": 2, "harmonics": 3}  # without frames


@dataclass(frozen=True)
class NativeModel:
    """What is in a file.

    Attributes:
        frames: The Gaussians at each frame, or None where they are pieces.
        pieces: Gaussians in space and time, or None.
        times: Of the T frames, in [0, 1].
        keypoints: World positions at the frames.
        names: Of the keypoints.
        parents: Of each keypoint, -1 for a root.
        fps: Frames a second.
    """

    frames: list[GaussianState] | None
    pieces: Pieces | None
    times: Float[Tensor, " T"]
    keypoints: Float[Tensor, "T J 3"]
    names: tuple[str, ...]
    parents: tuple[int, ...]
    fps: int


def export_native(source: ExportSource, folder: Path) -> Exported:
    """Write `model.safetensors`."""
    times, known, pieces = source.scene.reference.times, source.scene.keypoints, source.model.pieces()
    names = () if known is None else known.names
    tensors = {"times": times.float()}
    tensors["keypoints"] = source.model.keypoints(times) if names else torch.zeros(len(times), 0, 3)
    if pieces is None:
        tensors |= _stored(source.model.states(times))
    else:
        tensors |= _stored([pieces.state])
        tensors |= {"own_times": pieces.times, "durations": pieces.durations, "velocities": pieces.velocities}
    about = {
        "format": "kg4d",
        "version": str(VERSION),
        "kind": "frames" if pieces is None else "pieces",
        "fps": str(source.fps),
        "names": json.dumps(list(names)),
        "parents": json.dumps([] if known is None else list(known.parents)),
        "least_weight": "0" if pieces is None else repr(pieces.least_weight),
    }
    with replacing(folder / NAME) as part:
        part.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, about))
    return Exported([folder / NAME])


def read_native(path: str | Path) -> NativeModel:
    """Read a file that `export_native` has written.

    Raises:
        InputError: It is none, is damaged, or is of a later version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            held = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it is no dict
        if about.get("format") != "kg4d" or int(about["version"]) > VERSION:
            raise ValueError(about.get("version", "of another program"))
        return _model(held, about)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        remedy = "export it again with kg4d.export --format native"
        raise InputError(path, f"is no model of kg4d that this version reads ({error})", remedy) from error


def _stored(states: list[GaussianState]) -> dict[str, Tensor]:
    """The columns of the Gaussians; what is the same at all frames once, the rest by frames."""
    rows = [
        {
            "means": state.means,
            "quats": state.ellipsoids.quats.half(),
            "log_scales": state.ellipsoids.scales.log().half(),
            "opacities": state.opacities.half(),
            "colors": state.colors.half(),
            **({} if state.harmonics is None else {"harmonics": state.harmonics.half()}),
        }
        for state in states
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: column[0] if all(torch.equal(column[0], one) for one in column) else torch.stack(column)
        for name, column in columns.items()
    }


def _model(held: dict[str, Tensor], about: dict[str, str]) -> NativeModel:
    def at(name: str, frame: int) -> Tensor:
        column = held[name]
        return column[frame] if column.dim() > _DIMENSIONS[name] else column

    def state(frame: int) -> GaussianState:
        means = at("means", frame)
        return GaussianState(
            means=means,
            quats=torch.nn.functional.normalize(at("quats", frame), dim=-1),
            scales=at("log_scales", frame).exp(),
            opacities=at("opacities", frame),
            colors=at("colors", frame),
            harmonics=at("harmonics", frame) if "harmonics" in held else None,
            keypoint_logits=means.new_zeros(len(means), 0),
        )

    pieces, frames = None, None
    if about["kind"] == "pieces":
        lasting = held["own_times"], held["durations"], held["velocities"]
        pieces = Pieces(state(0), *lasting, float(about["least_weight"]))
    else:
        frames = [state(frame) for frame in range(len(held["times"]))]
    names, parents = tuple(json.loads(about["names"])), tuple(json.loads(about["parents"]))
    return NativeModel(frames, pieces, held["times"], held["keypoints"], names, parents, int(about["fps"]))
