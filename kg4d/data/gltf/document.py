"""A glTF file as it is stored: its JSON, and the numbers and pictures in its buffers.

Source: glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4.4 (binary files).
"""

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from PIL import Image

from kg4d.errors import InputError
from kg4d.utils.reading import regular

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MOST = 10_000_000  # rows of an accessor: more is damage
_MAGIC, _JSON, _BINARY = b"glTF", b"JSON", b"BIN\0"
_HEADER, _CHUNK = 12, 8  # bytes
# What a file may demand that changes nothing here: integers are read as such, and materials are their base colour.
_UNDERSTOOD = ("KHR_mesh_quantization", "KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual")


class Table(dict[str, Any]):
    """An object of the JSON, whose entries are attributes; None where it has no such entry.

    >>> Table(name="Walk").name, Table().name
    ('Walk', None)
    """

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class Document:
    """A .glb file, or a .gltf with its buffers and images, read whole.

    Attributes:
        tables: Its JSON: `nodes`, `meshes`, `skins`, `animations`, `materials` ...
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            InputError: It demands an extension that is not known.
            OSError, ValueError, KeyError, TypeError: It is missing or damaged.
        """
        self._folder, data = path.parent, regular(path).read_bytes()
        text, self._binary = _chunks(data) if data[:4] == _MAGIC else (data, None)
        self.tables: Any = json.loads(text, object_hook=Table)
        if not str(self.tables["asset"]["version"]).startswith("2."):
            raise ValueError("it is of another version than 2")
        for extension in self.tables.extensionsRequired or []:
            if not str(extension).startswith(_UNDERSTOOD):
                raise InputError(path, f"needs the extension {extension}", "export it again without compression")
        self._buffers: dict[int, bytes] = {}

    def numbers(self, accessor: int) -> npt.NDArray[np.float64]:
        """The rows of an accessor; normalised integers become numbers in [0, 1] or [-1, 1].

        Raises:
            ValueError, KeyError, IndexError, TypeError: It is damaged.
        """
        table = self._entry("accessors", accessor)
        width, count = _WIDTHS[table.type], int(table.count)
        if not 0 < count <= _MOST:
            raise ValueError(f"accessor {accessor} has {count} rows")
        rows = np.zeros((count, width), np.dtype(_COMPONENTS[table.componentType]))
        if table.bufferView is not None:
            rows = self._rows(table.bufferView, table.byteOffset, table.componentType, count, width)
        if table.sparse is not None and table.sparse.count:
            changed, places, values = table.sparse.count, table.sparse.indices, table.sparse["values"]
            at = self._rows(places.bufferView, places.byteOffset, places.componentType, changed, 1)[:, 0]
            rows[at] = self._rows(values.bufferView, values.byteOffset, table.componentType, changed, width)
        numbers = rows.astype(np.float64)
        if table.normalized and rows.dtype.kind in "iu":
            numbers = np.maximum(numbers / np.iinfo(rows.dtype).max, -1.0)
        if not np.isfinite(numbers).all():
            raise ValueError(f"accessor {accessor} holds numbers that are not finite")
        return numbers

    def picture(self, image: int) -> npt.NDArray[np.float32]:
        """An image as RGB in [0, 1], height x width x 3.

        Raises:
            OSError, ValueError, SyntaxError: It is damaged.
        """
        table = self._entry("images", image)
        data = self._uri(table.uri) if table.bufferView is None else self._view(table.bufferView)[0]
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            rgb = np.asarray(picture.convert("RGB"), np.float32)
        return rgb / np.float32(255)

    def _entry(self, kind: str, index: int) -> Any:
        """An entry of one of the tables; an index that is none must not count from the end."""
        entries = getattr(self.tables, kind) or []
        if not 0 <= int(index) < len(entries):
            raise IndexError(f"{kind} has no entry {index}")
        return entries[index]

    def _rows(
        self, view: int, offset: int | None, component: int, count: int, width: int
    ) -> npt.NDArray[Any]:  # of any of the components
        data, stride = self._view(view)
        kind = np.dtype(_COMPONENTS[component])
        steps = stride or width * kind.itemsize, kind.itemsize
        return np.ndarray((count, width), kind, data, offset or 0, steps).copy()

    def _view(self, index: int) -> tuple[bytes, int | None]:
        """The bytes of a buffer view, and the distance of its rows, where it states one."""
        view = self._entry("bufferViews", index)
        if view.buffer not in self._buffers:
            self._buffers[view.buffer] = self._uri(self._entry("buffers", view.buffer).uri)
        start, buffer = view.byteOffset or 0, self._buffers[view.buffer]
        if not 0 <= start <= start + view.byteLength <= len(buffer):
            raise ValueError(f"buffer view {index} leads out of its buffer")
        return buffer[start : start + view.byteLength], view.byteStride

    def _uri(self, uri: str | None) -> bytes:
        """The bytes behind an address; without one those of the binary part."""
        if uri is None:
            if self._binary is None:
                raise ValueError("its binary part is missing")
            return self._binary
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return regular(self._folder / unquote(uri)).read_bytes()


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary part of a binary file."""
    if int.from_bytes(data[8:_HEADER], "little") != len(data):
        raise ValueError("it is not as long as it says")
    parts, start = dict[bytes, bytes](), _HEADER
    while start < len(data):
        length, kind = int.from_bytes(data[start : start + 4], "little"), data[start + 4 : start + _CHUNK]
        start += _CHUNK
        parts.setdefault(kind, data[start : start + length])
        start += length
    return parts[_JSON], parts.get(_BINARY)
