"""Unpickle numpy arrays and dicts from third-party packages; anything that could run code is refused."""

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

# Pickles of numpy arrays name these three; the first was called numpy.core before numpy 2.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"refused {module}.{name}: only numpy arrays and dicts are admitted")
        return ALLOWED[module, name]


def load_arrays(data: bytes) -> Any:
    """Unpickle plain Python containers and numpy arrays of numbers.

    Raises:
        UnpicklingError: The pickle names anything else.
    """
    return _ArraysOnly(BytesIO(data)).load()
