"""Safetensors files, read by memory map: https://github.com/huggingface/safetensors, the format in its
README.

A file is the length of its header (8 bytes, little endian), the header (JSON: name -> dtype, shape, place of
the bytes), and the bytes of the arrays. The package ``safetensors`` writes it; its reader for numpy copies
every array into memory, so that reading is done here: nothing is read before it is used, and processes share
the pages.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.settings.error import AlkdError

DTYPES = {
    "F16": np.float16,
    "F32": np.float32,
    "I32": np.int32,
    "I64": np.int64,
    "U32": np.uint32,
    "U8": np.uint8,
}
_LONGEST_HEADER = 1 << 20  # bytes; a header of ours has a few hundred


class TensorFile:
    """A mapped safetensors file.

    Attributes:
        arrays: name -> read-only array over the map. places: name -> (offset in the file, bytes).

    Args:
        whole: what it is a part of, for messages.

    Raises:
        AlkdError: the file is no safetensors file, or its header does not fit its bytes.
    """

    def __init__(self, file: Path, whole: str = "bundle") -> None:
        self.file, self.whole = file, whole
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size < 8:
                raise AlkdError(f"{file}: {size} bytes are no safetensors file; the {self.whole} is damaged")
            self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._mapped[:8], "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise AlkdError(
                f"{file}: a header of {length} bytes does not fit a file of {size}; "
                f"the {self.whole} is damaged"
            )
        try:
            header = json.loads(self._mapped[8 : 8 + length])
        except (ValueError, RecursionError):
            raise AlkdError(
                f"{file}: its header is not readable as JSON; the {self.whole} is damaged"
            ) from None
        if not isinstance(header, dict):
            raise AlkdError(f"{file}: its header is no mapping; the {self.whole} is damaged")
        header.pop("__metadata__", None)
        self.arrays: dict[str, np.ndarray] = {}
        self.places: dict[str, tuple[int, int]] = {}
        for name, entry in header.items():
            self._add(name, entry, 8 + length)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array; AlkdError without it."""
        try:
            return self.arrays[name]
        except KeyError:
            raise AlkdError(
                f"{self.file}: the array {name!r} is missing; the {self.whole} is damaged"
            ) from None

    def texts(self, name: str, begins: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Pieces of an array of bytes. begins, ends: (N,) integers."""
        mapped, start = self._mapped, self.places[name][0]
        places = zip((begins + start).tolist(), (ends + start).tolist(), strict=True)
        return [mapped[begin:end] for begin, end in places]

    def find(self, name: str, pattern: bytes, start: int = 0) -> int:
        """Where ``pattern`` stands in an array of bytes, at ``start`` or later; -1 where it does not."""
        begin, size = self.places[name]
        at = self._mapped.find(pattern, begin + start, begin + size)
        return at if at < 0 else at - begin

    def _add(self, name: str, entry: Any, start: int) -> None:
        damaged = AlkdError(
            f"{self.file}: the array {name!r} does not fit the file; the {self.whole} is damaged"
        )
        try:
            dtype, shape, (begin, end) = (
                np.dtype(DTYPES[entry["dtype"]]),
                tuple(entry["shape"]),
                entry["data_offsets"],
            )
        except (KeyError, TypeError, ValueError):
            raise damaged from None
        numbers = (*shape, begin, end)
        if not all(
            isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers
        ):
            raise damaged
        count = math.prod(shape)
        if end - begin != count * dtype.itemsize or start + end > len(self._mapped):
            raise damaged
        self.arrays[name] = np.frombuffer(self._mapped, dtype, count, start + begin).reshape(shape)
        self.places[name] = (start + begin, end - begin)


def write_tensors(file: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays as a safetensors file. Its folder is the caller's to move into place once it is
    complete."""
    from safetensors.numpy import save_file

    # a name for what they are, which readers of the format show; an empty one is what Hugging Face's loaders
    # refuse
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata={"format": "np"}
    )
    return file
