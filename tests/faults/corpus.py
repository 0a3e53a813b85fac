"""Malformed inputs: every kind of file that a person can give, in every way that we know of to spoil it.

A case is a kind of input (`tests.faults.inputs`), the name of a damage, and a function that does it to a sound copy.
What a damage means: the input must be refused by one line, or be read to exactly what the sound one is read to.
"""

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from kg4d.stages.checkpoints import seal
from tests.data.damage import Damage, camera, edit

Edit = Callable[[dict[str, Any]], object]


class Case(NamedTuple):
    """One malformed input."""

    kind: str
    damage: str
    spoil: Damage  # given the file or folder of that kind

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.damage}"


def cut(share: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)]) and None


def replaced(content: bytes | str) -> Damage:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def changed(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def in_its_place(make: Callable[[Path], object]) -> Damage:
    """Something else than a file under its name."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def flipped(place: float, bit: int) -> Damage:
    def flip(data: bytes) -> bytes:
        index = min(int(place * len(data)), len(data) - 1)
        return data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]

    return changed(flip)


NOISE = np.random.default_rng(0).bytes(3000)

NO_FILE: dict[str, Damage] = {
    "a folder": in_its_place(lambda path: path.mkdir()),
    "a FIFO": in_its_place(os.mkfifo),
    "a link to itself": in_its_place(lambda path: path.symlink_to(path)),
    "a link to nothing": in_its_place(lambda path: path.symlink_to(path.parent / "nothing")),
    "a device without end": in_its_place(lambda path: path.symlink_to("/dev/zero")),
}
NO_CONTENT: dict[str, Damage] = {
    "empty": replaced(b""),
    "one byte": replaced(b"\x00"),
    "cut to a tenth": cut(0.1),
    "cut in half": cut(0.5),
    "its end missing": cut(0.97),
    "zeros": changed(lambda data: bytes(len(data))),
    "noise": replaced(NOISE),
    "a word": replaced("hello\n"),
}
ANY_FILE = NO_FILE | NO_CONTENT
GONE: dict[str, Damage] = {"gone": Path.unlink}
CHECKED = {
    f"a bit flipped at {place:.0%}": flipped(place, bit) for place, bit in ((0.03, 0), (0.4, 3), (0.7, 6), (0.99, 1))
}
TEXT = {
    "no UTF-8": flipped(0.5, 7),
    "UTF-16": changed(lambda data: data.decode().encode("utf-16")),
    "NUL in it": changed(lambda data: data[:20] + b"\0" + data[20:]),
    "larger than memory": in_its_place(lambda path: path.open("wb").truncate(1 << 40)),
}
JSON = TEXT | {
    "a list": replaced("[]"),
    "a number": replaced("7"),
    "null": replaced("null"),
    "nested without end": replaced("[" * 100_000),
    "objects in objects": replaced('{"frames":' * 50_000),
    "twice over": changed(lambda data: data + data),
    "a trailing comma": changed(lambda data: data.rstrip()[:-1] + b",}"),
}


# -- scenes ---------------------------------------------------------------------------------------------------------


def frame(index: int, **values: Any) -> Edit:
    return lambda table: table["frames"][index].update(values)


def without(key: str, index: int | None = None) -> Edit:
    return lambda table: (table if index is None else table["frames"][index]).pop(key)


def root(**values: Any) -> Edit:
    return lambda table: table.update(values)


def focal(**values: Any) -> Edit:
    """With these in the place of the focal length."""
    return lambda table: [table.pop(key) for key in ("fl_x", "fl_y", "camera_angle_x")] and table.update(values)


def matrix(index: int, change: Callable[[list[list[float]]], Any]) -> Edit:
    return lambda table: frame(index, transform_matrix=change(table["frames"][index]["transform_matrix"]))(table)


HUGE = 10**400
WRONG_VALUES = {
    "missing": ...,
    "null": None,
    "a word": "soon",
    "true": True,
    "a list": [],
    "NaN": math.nan,
    "infinite": math.inf,
    "negative": -1,
    "of 400 digits": HUGE,
}

TRANSFORMS: dict[str, Edit] = {
    **{f"frames {what}": root(frames=value) for what, value in [("null", None), ("{}", {}), ("'x'", "x"), ("[]", [])]},
    **{f"frames hold {value!r}": root(frames=[value]) for value in (None, 1, "x", [])},
    "no frames": without("frames"),
    **{
        f"time {what}": without("time", 1) if value is ... else frame(1, time=value)
        for what, value in WRONG_VALUES.items()
    },
    "time beyond 1": frame(1, time=2),
    "file_path missing": without("file_path", 1),
    **{f"file_path {value!r:.20}": frame(1, file_path=value) for value in (None, 5, [], {}, "", ".", "x" * 5000, "\0")},
    "file_path of no file": frame(1, file_path="./nothing"),
    "file_path of a device": frame(1, file_path="/dev/zero"),
    "file_path of a picture twice": lambda table: frame(1, file_path=table["frames"][0]["file_path"])(table),
    **{f"frame_index {what}": frame(1, frame_index=value) for what, value in WRONG_VALUES.items() if value is not ...},
    "frame_index 0.5": frame(1, frame_index=0.5),
    "frame_index 1e30": frame(1, frame_index=1e30),
    "view of 1e30": frame(1, view=1e30),
    "view -1": frame(1, view=-1),
    "view 'a'": frame(1, view="a"),
    "no matrix": without("transform_matrix", 1),
    **{f"matrix {value!r}": frame(1, transform_matrix=value) for value in (None, "x", 1, [], [[]], [[1, 2], [3]], {})},
    "matrix of 3 rows": matrix(1, lambda rows: rows[:3]),
    "matrix of 5 rows": matrix(1, lambda rows: [*rows, rows[3]]),
    "matrix with a NaN": matrix(1, lambda rows: [[math.nan, *rows[0][1:]], *rows[1:]]),
    "matrix with 400 digits": matrix(1, lambda rows: [[HUGE, *rows[0][1:]], *rows[1:]]),
    "matrix with a word": matrix(1, lambda rows: [["a", *rows[0][1:]], *rows[1:]]),
    "matrix with null": matrix(1, lambda rows: [[None, *rows[0][1:]], *rows[1:]]),
    "matrix that scales": matrix(
        1, lambda rows: [[2 * value for value in row[:3]] + row[3:] for row in rows[:3]] + rows[3:]
    ),
    "matrix that mirrors": matrix(1, lambda rows: [[-rows[0][0], *rows[0][1:]], *rows[1:]]),
    "matrix of zeros": matrix(1, lambda rows: [[0] * 4] * 4),
    "another last row": matrix(1, lambda rows: [*rows[:3], [0, 0, 1, 1]]),
    "a camera beyond the stars": matrix(1, lambda rows: [[*row[:3], 1e38] for row in rows[:3]] + rows[3:]),
    "a camera that looks away": frame(1, transform_matrix=camera(2.0, turned=True)),
    "a camera inside": frame(1, transform_matrix=camera(0.01)),
    **{f"fl_x {value!r}": root(fl_x=value) for value in (0, -5, math.nan, math.inf, "x", None, True, [], HUGE)},
    "fl_y 0": root(fl_y=0),
    "no focal length": focal(),
    **{f"angle {value!r}": focal(camera_angle_x=value) for value in (0, math.pi, 49.1, -1, math.nan, "x", None)},
    **{f"w {value!r}": root(w=value) for value in (17, 0, -16, "16", None, math.nan, HUGE)},
    "h 3": root(h=3),
    "cx NaN": root(cx=math.nan),
    "cy 'x'": root(cy="x"),
    "a key of each of 70000": root(**{f"k{index}": index for index in range(70_000)}),
}
VIDEO: dict[str, Edit] = {
    "times backwards": frame(2, time=0.01),
    "a time twice": frame(1, time=0.0),
    "frames out of order": lambda table: table["frames"].reverse(),
    "frame_index of another time": lambda table: (frame(1, frame_index=2)(table), frame(2, frame_index=1)(table)),
    "one frame": lambda table: table["frames"].__delitem__(slice(1, None)),
}
TEST_VIDEOS: dict[str, Edit] = {
    "frame_index of another time": lambda table: (frame(1, frame_index=2)(table), frame(2, frame_index=1)(table)),
    "frame_index beyond the video": frame(1, frame_index=3),
    "a frame missing": lambda table: table["frames"].pop(),
    "a frame twice": lambda table: frame(1, time=table["frames"][0]["time"], frame_index=0)(table),
}
RING: dict[str, Edit] = {
    "another moment": frame(1, time=1.0, frame_index=3),
    "frame_index of another moment": frame(1, frame_index=3),
    "a view twice": frame(1, view=0),
}

Arrays = dict[str, np.ndarray]


def arrays(change: Callable[[Arrays], object]) -> Damage:
    def damage(path: Path) -> None:
        with np.load(path) as stored:
            kept = dict(stored)
        change(kept)
        np.savez(path, **kept)

    return damage


def put(name: str, value: float, where: tuple[Any, ...] = ()) -> Callable[[Arrays], None]:
    def change(kept: Arrays) -> None:
        kept[name] = np.array(kept[name], dtype=np.float64)
        kept[name][where or (0,) * kept[name].ndim] = value

    return change


def each(name: str) -> dict[str, Damage]:
    """What can be wrong with any array."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "a number": lambda array: np.float32(3),
        "empty": lambda array: array[:0],
        "one row short": lambda array: array[:-1],
        "one row long": lambda array: np.concatenate([array, array[:1]]),
        "an axis more": lambda array: array[None],
        "flat": lambda array: array.reshape(-1) if array.ndim > 1 else array[None, None],
        "words": lambda array: np.full(array.shape, "a"),
        "complex": lambda array: np.full(array.shape, 1j),
        "dates": lambda array: np.full(array.shape, np.datetime64("2026-01-01")),
        "records": lambda array: np.zeros(array.shape, dtype=[("a", "f4"), ("b", "i4")]),
    }
    return {
        f"{name} {what}": arrays(lambda kept, way=way: kept.update({name: way(kept[name])}))
        for what, way in ways.items()
        if (name, what) != ("names", "words")  # those are names
    } | {f"{name} missing": arrays(lambda kept: kept.pop(name))}


def pickled(path: Path) -> None:
    with np.load(path) as stored:
        kept = dict(stored)
    np.savez(path, **kept, more=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def announcing(name: str, shape: tuple[int, ...]) -> Damage:
    """An array whose header promises far more than there is."""

    def damage(path: Path) -> None:
        with np.load(path) as stored:
            kept = dict(stored)
        kept.pop(name, None)
        np.savez(path, **kept)
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)

    return damage


def member(name: str, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)

    return damage


def bomb(path: Path) -> None:
    """4 GB of zeros that are 4 MB in the file."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (4 << 30,)})
        for _ in range(64):
            file.write(bytes(1 << 20))


def renamed(name: str, other: str) -> Damage:
    return arrays(lambda kept: kept.update({other: kept.pop(name)}))


def zip_field(offset: int, value: int) -> Damage:
    """Another value of two bytes in all records of the central directory."""

    def change(data: bytes) -> bytes:
        found, start = bytearray(data), data.find(b"PK\x01\x02")
        while start >= 0:
            found[start + offset : start + offset + 2] = struct.pack("<H", value)
            start = data.find(b"PK\x01\x02", start + 4)
        return bytes(found)

    return changed(change)


ARCHIVE = {
    "an array that nothing reads": arrays(lambda kept: kept.update(more=np.zeros(3))),
    "objects in it": pickled,
    "8 TiB announced": announcing("uv2", (1 << 41,)),
    "a negative size": announcing("uv2", (-4, 2)),
    "a bomb": bomb,
    "a text in it": member("readme.txt", b"hello"),
    "a path in it": member("../../escaped.npy", b"hello"),
    "a member twice": member("weights.npy", b"\x93NUMPY\x01\x00"),
    "encrypted": zip_field(8, 1),
    "an unknown compression": zip_field(10, 77),
    "no members": changed(lambda data: b"PK\x05\x06" + bytes(18)),
    "a pickle": replaced(b"\x80\x04K\x01."),
    "one array": in_its_place(lambda path: np.save(path.open("wb"), np.zeros(3))),
}
KEYPOINTS = {
    **{
        what: damage
        for name in ("names", "uv", "weights", "ring_uv")
        for what, damage in each(name).items()
        # without true positions some metrics are left out, without a ring or weights others serve: all that is allowed
        if what not in ("xyz missing", "weights missing", "ring_uv missing", "ring_weights missing")
    },
    "ring_uv misspelt": renamed("ring_uv", "ring_uw"),
    "names twice the same": arrays(lambda kept: kept.update(names=np.array(["top", "top", "left"]))),
    "names blank": arrays(lambda kept: kept.update(names=np.array(["top", "", "left"]))),
    "names numbers": arrays(lambda kept: kept.update(names=np.arange(3))),
    "no keypoints": arrays(lambda kept: kept.update(names=kept["names"][:0], parents=kept["parents"][:0])),
    **{f"parents[1] {value}": arrays(put("parents", value, (1,))) for value in (1, 3, 99, -2, 0.5, math.nan, 1e30)},
    "parents in a circle": arrays(lambda kept: kept.update(parents=np.array([1, 2, 0]))),
    "uv NaN": arrays(put("uv", math.nan)),
    "uv infinite": arrays(put("uv", math.inf)),
    "uv beyond float32": arrays(put("uv", 1e300)),
    "ring_uv NaN": arrays(put("ring_uv", math.nan)),
    "xyz NaN": arrays(put("xyz", math.nan)),
    "xyz infinite": arrays(put("xyz", -math.inf)),
    **{f"weights {value}": arrays(put("weights", value)) for value in (math.nan, math.inf, -0.1, 1.5, 1e30)},
    **{f"visible {value}": arrays(put("visible", value, (1, 0, 0))) for value in (math.nan, -1, 7)},
    **{f"ring_weights {value}": arrays(put("ring_weights", value)) for value in (math.nan, 2)},
}
FLOW = {
    **{
        what: damage for name in ("flow", "weights") for what, damage in each(name).items() if what != "weights missing"
    },
    "weights misspelt": renamed("weights", "wieghts"),
    "flow NaN": arrays(lambda kept: (put("flow", math.nan)(kept), put("weights", 1.0, (0, 0, 0))(kept))),
    "flow infinite": arrays(lambda kept: (put("flow", math.inf)(kept), put("weights", 1.0, (0, 0, 0))(kept))),
    **{f"weights {value}": arrays(put("weights", value)) for value in (math.nan, -1, 2)},
    "another resolution": arrays(lambda kept: kept.update(flow=kept["flow"][:, ::2, ::2])),
}


# -- pictures -------------------------------------------------------------------------------------------------------


def picture(mode: str, size: tuple[int, int] = (16, 16), form: str = "PNG", **options: Any) -> Damage:
    return lambda path: Image.new(mode, size).save(path, form, **options)


def png(width: int, height: int, depth: int = 8, kind: int = 6, data: bytes = b"") -> Damage:
    """A PNG that says of itself what it likes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return replaced(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def in_chunk(name: bytes, offset: int) -> Damage:
    """A bit flipped in that chunk of a PNG."""

    def change(data: bytes) -> bytes:
        index = data.index(name) + offset
        return data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :]

    return changed(change)


def animated(path: Path) -> None:
    pictures = [Image.new("RGBA", (16, 16), (value, 9, 9, 255)) for value in (0, 90, 180)]
    pictures[0].save(path, "PNG", save_all=True, append_images=pictures[1:])


OTHER_MODES = {  # which a scene may have
    "grey": picture("L"),
    "palette": picture("P"),
    "16 bits": picture("I;16"),
    "16-bit colours": png(16, 16, depth=16, kind=2, data=bytes(16 * (1 + 16 * 6))),
}
PICTURE = {
    "CMYK": picture("CMYK", form="JPEG"),
    "an animation": animated,
    "GIF": picture("P", form="GIF"),
    "TIFF": picture("RGBA", form="TIFF"),
    "another size": picture("RGBA", (8, 8)),
    "not square": picture("RGBA", (16, 8)),
    "of one pixel": picture("RGBA", (1, 1)),
    "60000 pixels a side": png(60_000, 60_000),
    "12000 pixels a side": png(12_000, 12_000),
    "no pixels": png(0, 0),
    "2^31 pixels wide": png((1 << 31) - 1, 1),
    "too few pixels": png(16, 16, data=bytes(100)),
    "depth of 9 bits": png(16, 16, depth=9),
    "an unknown colour type": png(16, 16, kind=5),
    "a bit in its header": in_chunk(b"IHDR", 7),
    "a bit in its data": in_chunk(b"IDAT", 20),
    "a bit in the checksum of its data": lambda path: in_chunk(b"IEND", -6)(path),
    "a text that unpacks to 1 GB": changed(
        lambda data: data[:33] + _packed_text(64 << 20) + data[33:],
    ),
}


def _packed_text(size: int) -> bytes:
    content = b"zTXta\0\0" + zlib.compress(bytes(size))
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


# -- points ---------------------------------------------------------------------------------------------------------


def ply(header: str, body: bytes = b"") -> Damage:
    return replaced(f"ply\n{header}end_header\n".encode() + body)


XYZ = "property float x\nproperty float y\nproperty float z\n"
BINARY = "format binary_little_endian 1.0\n"
PLY = {
    "more points than bytes": ply(f"{BINARY}element vertex 99\n{XYZ}", bytes(24)),
    "1e13 points": ply(f"{BINARY}element vertex 10000000000000\n{XYZ}"),
    "-1 points": ply(f"{BINARY}element vertex -1\n{XYZ}", bytes(24)),
    "no points": ply(f"{BINARY}element vertex 0\n{XYZ}"),
    "a word of points": ply(f"{BINARY}element vertex many\n{XYZ}"),
    "no z": ply(f"{BINARY}element vertex 2\nproperty float x\nproperty float y\n", bytes(16)),
    "a list as x": ply(f"{BINARY}element vertex 2\nproperty list uchar float x\n{XYZ[17:]}", bytes(24)),
    "an unknown type": ply(f"{BINARY}element vertex 2\n{XYZ.replace('float x', 'half x')}", bytes(24)),
    "an unknown format": ply(f"format base64 1.0\nelement vertex 2\n{XYZ}", bytes(24)),
    "no format": ply(f"element vertex 2\n{XYZ}", bytes(24)),
    "faces first": ply(f"{BINARY}element face 2\nproperty float x\nelement vertex 2\n{XYZ}", bytes(48)),
    "NaN": ply(f"{BINARY}element vertex 1\n{XYZ}", np.array([1, math.nan, 2], "<f4").tobytes()),
    "words for numbers": ply(f"format ascii 1.0\nelement vertex 1\n{XYZ}", b"a b c\n"),
    "too few rows": ply(f"format ascii 1.0\nelement vertex 5\n{XYZ}", b"1 2 3\n"),
    "a header without end": replaced(b"ply\nformat ascii 1.0\n" + b"comment x\n" * 9),
    "a line of 4 MB": replaced(b"ply\n" + b"a" * (4 << 20)),
    "properties twice": ply(f"{BINARY}element vertex 1\n{XYZ}{XYZ}", bytes(24)),
}


def npy(values: Any, **options: Any) -> Damage:
    return in_its_place(lambda path: np.save(path.open("wb"), np.array(values, **options)))


NPY = {
    "one axis": npy([1.0, 2, 3]),
    "four columns": npy([[1.0, 2, 3, 4]]),
    "three axes": npy(np.zeros((2, 3, 3))),
    "no rows": npy(np.zeros((0, 3))),
    "NaN": npy([[math.nan, 0, 0]]),
    "infinite": npy([[math.inf, 0, 0]]),
    "beyond float32": npy([[1e300, 0, 0]]),
    "words": npy([["a", "b", "c"]]),
    "complex": npy([[1j, 0, 0]]),
    "objects": npy([[{}, {}, {}]], dtype=object),
    "1e13 rows announced": replaced(
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 3), }".ljust(117)
        + b"\n"
    ),
    "code as its header": replaced(b"\x93NUMPY\x01\x00\x76\x00" + b"__import__('os').getcwd()".ljust(117) + b"\n"),
}


# -- experiments and command lines ----------------------------------------------------------------------------------


def yaml(text: str) -> Damage:
    return changed(lambda data: data + text.encode())


_KEYS = {
    "unknown key": "wieght: 1",
    "unknown key below": "kfc: {wieght: 1}",
    "unknown block": "nonsense: {a: 1}",
    "a word for a count": "image_size: many",
    "a fraction for a count": "image_size: 31.5",
    "a list for a number": "image_size: [32]",
    "a block for a number": "image_size: {a: 1}",
    "a number for a block": "kfc: 3",
    "a list for a block": "kfc: [1]",
    "null for a number": "image_size: null",
    "true for a number": "image_size: true",
    "a number for true": "evaluation: {networks: 3}",
    "a word for true": "evaluation: {networks: perhaps}",
    "an unknown member": "kfc: {mode: heat}",
    "a list for a member": "kfc: {mode: [heatmap]}",
    "a number for a list": "seeds: 3",
    "words in a list": "seeds: [a]",
    "NaN": "kfc: {weight: .nan}",
    "infinite": "wgf: {weight: .inf}",
    "minus infinite": "lift: {weight: -.inf}",
    "a negative weight": "rigidity: {weight: -1}",
    "a negative count": "gaussians: {count: -1}",
    "a negative seed": "seed: -1",
    "negative steps": "static: {steps: -1}",
    "endless steps": "static: {steps: 1.0e+23}",
    "a number of 5001 digits": f"seed: {'1' * 5001}",
    "a picture of 1e6 pixels": "image_size: 1000000",
    "a picture of no pixels": "image_size: 0",
    "1e11 Gaussians": "gaussians: {count: 100000000000}",
    "NaN in a list": "background: [.nan, 1.0, 1.0]",
    "two colours": "background: [1.0, 1.0]",
    "colours beyond 1": "background: [1.0, 1.0, 300.0]",
    "a name that leaves": "name: ../escaped",
    "an absolute name": "name: /tmp/escaped",
    "no name": "name: ''",
    "a name of lines": 'name: "a\\nb"',
    "a name with NUL": 'name: "a\\0b"',
    "the environment": "name: ${oc.env:HOME}",
    "nothing to interpolate": "name: ${nothing}",
    "interpolation in a circle": "name: ${name}",
    "interpolation of another type": "seed: ${name}",
    "interpolation cut short": "name: '${name'",
    "extends itself": "extends: experiment.yaml",
    "extends nothing": "extends: nothing.yaml",
    "extends a number": "extends: 3",
    "extends a list": "extends: [a, b]",
    "extends a device": "extends: /dev/zero",
    "extends a folder": "extends: .",
    "extends what is no YAML": "extends: /etc/passwd",
    "a variant that leaves": "variants: {../x: []}",
    "a variant of unknown keys": "variants: {a: [wieght=1]}",
    "a variant that is text": "variants: {a: b}",
    "a variant without =": "variants: {a: [seed]}",
    "variants in a list": "variants: [a]",
    "minus two devices": "trainer: {devices: '-2'}",
    "an unknown strategy": "trainer: {strategy: horse}",
    "an unknown format": "export: {formats: [obj]}",
    "an unknown protocol": "evaluation: {protocol: mine}",
    "a metric that is none": "evaluation: {metrics: [test/psrn]}",
    "an unknown character": "scene: synthetic:walrus",
    "a scene of NUL": 'scene: "a\\0b"',
    "a scene that is a device": "scene: /dev/zero",
    "a scene of 5000 letters": f"scene: {'x' * 5000}",
    "a tag that runs code": "name: !!python/object/apply:os.getcwd []",
    "a binary tag": "name: !!binary aGVsbG8=",
    "a set": "seeds: !!set {1, 2}",
    "a key twice": "image_size: 32\nimage_size: 48",
    "a number as a key": "3: 4",
    "a list as a key": "[1, 2]: 4",
    "an open bracket": "seeds: [1, 2",
    "an open quote": "name: 'a",
    "a tab": "kfc:\n\tweight: 1",
    "an anchor to nothing": "kfc: *nothing",
    "two documents": "---\nname: a",
    "nested without end": f"seeds: {'[' * 5000}",
    "blocks in blocks": f"kfc: {'{a: ' * 3000}",
    "aliases of aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "2 MB of text": f"notice: {'x' * (2 << 20)}",
}
EXPERIMENT = {what: yaml(f"{text}\n") for what, text in _KEYS.items()} | {
    "a list": replaced("[1, 2]\n"),
    "a word": replaced("hello\n"),
    "a mapping of nothing": replaced("? \n"),
}

WORDS = (
    *("kfc", "=1", "kfc=", "kfc.weight", "kfc.weight=", "wgf.wieght=1", "kfc..weight=1", ".=1", "a.b.c=1"),
    *("kfc=3", "kfc.mode=heat", "kfc.weight=.nan", "kfc.weight=-1", "kfc.weight=[", "kfc.weight={a: 1}"),
    *("image_size=x", "image_size=1e9", "image_size=4", "seed=1.5", "seeds=[x]", "seeds={a: 1}", "seed=-1"),
    *("static.steps=1e23", "static.steps=many", "dynamic.warmup_steps=-5", "trainer.checkpoint_every=-3"),
    *("dynamic.data.strides=[9]", "dynamic.data.strides=[]", "dynamic.data.strides=[0]", "renderer.threads=0"),
    *("renderer.kind=fast", "renderer.device=cuda:99", "name=../x", "name=${oc.env:HOME}", "output="),
    *("scene=nothing", "scene=", "keypoints.count=99", "variants=x", "deformation.kind=x", "optimizer.kind=x"),
    *("background=[1]", "gaussians.initial_opacity=1", "gaussians.initial_opacity=0", "gaussians.hull_resolution=0"),
    *("gaussians.hull_resolution=100000", "lift.hypotheses=0", "rigidity.neighbours=1000", "wgf.epsilon=0"),
)


# -- runs -----------------------------------------------------------------------------------------------------------


def checkpoint(change: Callable[[dict[str, Any]], object], sealed: bool = True) -> Damage:
    """Another content, under a hash that fits it."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        run = content["kg4d"].pop("run")
        content["kg4d"].pop("sha256")
        change(content)
        if sealed:
            seal(content, run)
        torch.save(content, path)

    return damage


def weight(change: Callable[[torch.Tensor], object]) -> Damage:
    name = "representation.gaussians.means"

    def put_in(content: dict[str, Any]) -> None:
        content["state_dict"][name] = change(content["state_dict"][name])

    return checkpoint(put_in)


CHECKPOINT = {
    "of another stage": lambda path: path.write_bytes((path.parent / "static.ckpt").read_bytes()) and None,
    "of no stage": checkpoint(lambda content: content["kg4d"].update(stage=5)),
    "of the future": checkpoint(lambda content: content["kg4d"].update(schema=99), sealed=False),
    "of a schema that is no number": checkpoint(lambda content: content["kg4d"].update(schema="x"), sealed=False),
    "not sealed": checkpoint(lambda content: content["kg4d"].update(schema=1), sealed=False),
    "no entry of ours": checkpoint(lambda content: content.pop("kg4d"), sealed=False),
    "no weights": checkpoint(lambda content: content.pop("state_dict")),
    "weights in a list": checkpoint(lambda content: content.update(state_dict=[1])),
    "a weight missing": checkpoint(lambda content: content["state_dict"].pop("representation.gaussians.means")),
    "a weight more": checkpoint(lambda content: content["state_dict"].update(more=torch.zeros(2))),
    "a weight that is no tensor": weight(lambda means: 5),
    "a weight of another shape": weight(lambda means: means[:, :2].clone()),
    "fewer means than scales": weight(lambda means: means[:-1].clone()),
    "no Gaussians": checkpoint(
        lambda content: content["state_dict"].update(
            {key: value[:0].clone() for key, value in content["state_dict"].items() if ".gaussians." in key}
        )
    ),
    "a weight of words": weight(lambda means: ["a"]),
    "NaN": weight(lambda means: means * math.nan),
    "infinite": weight(lambda means: means + math.inf),
    "complex": weight(lambda means: means * 1j),
    "tensors alone": in_its_place(lambda path: torch.save({"a": torch.zeros(2)}, path)),
    "a list": in_its_place(lambda path: torch.save([1], path)),
    "a pickle": replaced(b"\x80\x04K\x01."),
    "code": replaced(b"cos\nsystem\n(S'touch /tmp/kg4d-was-here'\ntR."),
}


def table(change: Edit) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


NORMALISATION = {
    "no unit": table(lambda content: content.pop("unit")),
    "unit 0": table(lambda content: content.update(unit=0)),
    "unit NaN": table(lambda content: content.update(unit=math.nan)),
    "unit a word": table(lambda content: content.update(unit="x")),
    "duration -1": table(lambda content: content.update(duration=-1)),
    "a centre of two": table(lambda content: content.update(center=[0, 0])),
    "a centre of words": table(lambda content: content.update(center=["a", "b", "c"])),
    "a rotation that is none": table(lambda content: content.update(rotation=[[1, 1, 1]] * 3)),
    "a rotation with NaN": table(lambda content: content.update(rotation=[[math.nan] * 3] * 3)),
}
METRICS = {
    "no metrics": table(lambda content: content.pop("metrics")),
    "metrics in a list": table(lambda content: content.update(metrics=[1])),
    "a metric that is a word": table(lambda content: content["metrics"].update({"test/psnr": "good"})),
    "a metric that is NaN": table(lambda content: content["metrics"].update({"test/psnr": math.nan})),
}
HISTORY = {
    "half a row": cut(0.96),
    "NULs at its end": changed(lambda data: data + bytes(99)),
    "a row of another table": changed(lambda data: data + b"1,2\n"),
    "a row of words": changed(lambda data: data + b"a,b,c\n"),
    "no header": changed(lambda data: data.split(b"\n", 1)[1]),
}
RESOLVED = {
    "a key missing": changed(lambda data: data.replace(b"\nbackground:", b"\nbackgroundd:")),
    "a block missing": changed(lambda data: data[: data.index(b"kfc:")] + data[data.index(b"wgf:") :]),
    "a value missing": changed(
        lambda data: b"".join(line for line in data.splitlines(True) if not line.startswith(b"image_size"))
    ),
    "a scene that is gone": changed(lambda data: data.replace(b"scene: ", b"scene: /nowhere")),
}
SUPPORT = {
    "no names": table(lambda content: content.pop("names")),
    "names empty": table(lambda content: content.update(names=[])),
    "a name that is a number": table(lambda content: content.update(names=["a", 3, "c"])),
    "a name twice": table(lambda content: content.update(names=["a", "a", "c"])),
    "fewer points": table(lambda content: content["uv"].pop()),
    "uv null": table(lambda content: content.update(uv=None)),
    "a point of three": table(lambda content: content["uv"].__setitem__(0, [1, 2, 3])),
    "a point of words": table(lambda content: content["uv"].__setitem__(0, ["a", "b"])),
    "a point of NaN": table(lambda content: content["uv"].__setitem__(0, [math.nan, 1])),
    "a point of 400 digits": table(lambda content: content["uv"].__setitem__(0, [HUGE, 1])),
    "a point outside": table(lambda content: content["uv"].__setitem__(0, [99, 1])),
    "a parent of nobody": table(lambda content: content.update(parents=[-1, 0, 7])),
    "a parent of 0.5": table(lambda content: content.update(parents=[-1, 0, 0.5])),
    "a parent true": table(lambda content: content.update(parents=[-1, 0, True])),
    "parents in a circle": table(lambda content: content.update(parents=[1, 2, 0])),
    "parents an object": table(lambda content: content.update(parents={})),
}
ENTRY = {
    "another format": table(lambda content: content.update(format=9)),
    "a key more": table(lambda content: content.update(more=1)),
    "a key less": table(lambda content: content.pop("created")),
    "another provider": table(lambda content: content.update(provider="../../x")),
    "an identity that is none": table(lambda content: content.update(identity=[1])),
    "created a word": table(lambda content: content.update(created="x")),
    "another hash": table(lambda content: content.update(content_sha256="0" * 64)),
}


def _all(kind: str, *damages: dict[str, Damage]) -> Iterator[Case]:
    for what, damage in {name: damage for some in damages for name, damage in some.items()}.items():
        yield Case(kind, what, damage)


def _edits(part: str, *edits: dict[str, Edit]) -> dict[str, Damage]:
    return {
        what: (lambda path, change=change: edit(part, change)(path.parent))
        for some in edits
        for what, change in some.items()
    }


def cases() -> list[Case]:
    """All of them."""
    return [
        *_all("transforms_train.json", ANY_FILE, JSON, _edits("train", TRANSFORMS, VIDEO)),
        *_all("transforms_test.json", NO_FILE, _edits("test", TEST_VIDEOS)),
        *_all("transforms_ring.json", NO_FILE, _edits("ring", RING)),
        *_all("keypoints.npz", ANY_FILE, CHECKED, ARCHIVE, KEYPOINTS),
        *_all("flow.npz", ANY_FILE, CHECKED, ARCHIVE, FLOW),
        *_all("scene.json", NO_FILE, NO_CONTENT),
        *_all("picture of a scene", ANY_FILE, CHECKED, PICTURE),
        *_all("picture to evaluate", ANY_FILE, PICTURE, OTHER_MODES),
        *_all("picture to prepare", ANY_FILE),
        *_all("mask", ANY_FILE),
        *_all("video", {what: damage for what, damage in ANY_FILE.items() if what != "its end missing"}),
        *_all("points.ply", ANY_FILE, PLY),
        *_all("points.npy", ANY_FILE, NPY),
        *_all("keypoints.json", ANY_FILE, JSON, SUPPORT),
        *_all("experiment.yaml", NO_FILE, TEXT, EXPERIMENT),
        *(Case("command line", word, lambda path, word=word: path.write_text(word) and None) for word in WORDS),
        *_all("checkpoint", ANY_FILE, CHECKED, CHECKPOINT),
        *_all("config.yaml", ANY_FILE, TEXT, RESOLVED, GONE),
        *_all("normalisation.json", ANY_FILE, NORMALISATION, GONE),
        *_all(
            "metrics.json", NO_FILE, {key: NO_CONTENT[key] for key in ("empty", "its end missing", "noise")}, METRICS
        ),
        *_all("run.json", NO_FILE),
        *_all("metrics.csv", NO_FILE, {key: NO_CONTENT[key] for key in ("empty", "zeros", "noise")}, HISTORY),
        *_all("manifest.json of the cache", ANY_FILE, JSON, ENTRY),
        *_all("data of the cache", ANY_FILE, CHECKED),
    ]
