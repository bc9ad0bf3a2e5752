"""A data set that the processes of one machine share: one of them reads it, and all map its arrays.

The first process of a machine reads the clicks and makes the rows. Arrays and tensors go into files of a
folder that only this run's processes can read, everything else into one pickle beside them, and every
process, the first among them, maps the files: one copy in memory, however many there are (RecBole has one for
each). A process that writes into an array gets the page for itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config

from recbole_alkd.processes.launch import FOLDER
from recbole_alkd.settings.error import AlkdError

SMALL = 1 << 16  # bytes; what is smaller stays in the pickle
_READY = "ready"


def shared_dataset(config: Any, create: Callable[[Any], Any], first: bool) -> Any:
    """``create(config)``, with its parts built, made by the ``first`` process of the machine alone.

    Raises:
        AlkdError: the folder is not this user's alone.
    """
    folder = Path(os.environ[FOLDER]) / "data"
    if first:
        folder.mkdir(mode=0o700, exist_ok=True)
        dataset = create(config)
        dataset.keep_parts()
        write_shared(dataset, folder)
        del dataset
        gc.collect()
    while not (folder / _READY).exists():  # where the first one fails, whoever started us ends us
        time.sleep(0.05)
    return read_shared(folder, config)


def write_shared(value: Any, folder: Path) -> None:
    """Write a data set for ``read_shared``. Its Config is left out: every process has its own."""
    with open(folder / "set", "xb") as stream:
        _Writer(stream, folder).dump(value)
    (folder / _READY).touch()


def read_shared(folder: Path, config: Any) -> Any:
    """What ``write_shared`` wrote, with ``config`` as its Config."""
    told = folder.stat()
    if told.st_uid != os.getuid() or told.st_mode & 0o077:
        raise AlkdError(f"{folder}: not read, others could have written it; allowed: a folder of mode 0700")
    with open(folder / "set", "rb") as stream:
        return _Reader(stream, folder, config).load()


class _Writer(pickle.Pickler):
    def __init__(self, stream: Any, folder: Path) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._folder = folder
        self._files: dict[Any, str] = {}  # what is written already
        self._held: list[Any] = []  # so that no address is used twice

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Config):
            return ("config",)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray) and value.nbytes >= SMALL and not value.dtype.hasobject:
            file = self._file(("array", id(value)), value, lambda path: np.save(path, value))
            return ("array", file)
        return None

    def _tensor(self, tensor: torch.Tensor) -> Any:
        """Parts are slices of one tensor, whose storage is written once."""
        storage = tensor.untyped_storage()
        if storage.nbytes() < SMALL or tensor.device.type != "cpu" or tensor.requires_grad:
            return None
        whole = torch.empty(0, dtype=tensor.dtype).set_(storage)
        key = ("storage", storage.data_ptr(), tensor.dtype)
        file = self._file(key, tensor, lambda path: whole.numpy().tofile(path))
        place = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        return ("tensor", file, str(tensor.dtype).removeprefix("torch."), len(whole), *place)

    def _file(self, key: Any, value: Any, write: Callable[[Path], Any]) -> str:
        if key not in self._files:
            self._files[key] = name = f"{len(self._files)}.npy"
            self._held.append(value)
            write(self._folder / name)
        return self._files[key]


class _Reader(pickle.Unpickler):
    """Reads what another process of this run wrote, in a folder that nobody else can write into."""

    def __init__(self, stream: Any, folder: Path, config: Any) -> None:
        super().__init__(stream)
        self._folder, self._config = folder, config
        self._arrays: dict[str, Any] = {}

    def persistent_load(self, key: Any) -> Any:
        kind, *rest = key
        if kind == "config":
            return self._config
        file, *rest = rest
        path = self._folder / file
        if kind == "array":
            if file not in self._arrays:
                self._arrays[file] = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
            return self._arrays[file]
        dtype, count, offset, shape, stride = rest
        if file not in self._arrays:
            self._arrays[file] = torch.from_file(str(path), False, count, dtype=getattr(torch, dtype))
        return self._arrays[file].as_strided(shape, stride, offset)
