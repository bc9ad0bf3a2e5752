"""Writes files whole or not at all: everything is written beside its place first, then moved there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from recbole_alkd.files import sync
from recbole_alkd.settings.error import AlkdError


def write_files(folder: Path, files: dict[str, Callable[[TextIO], object]]) -> None:
    """Write ``files`` (name -> function that writes into the open stream) into ``folder``, which is made when missing.

    No file is replaced before all of them are written; on an error nothing is left behind.

    Raises:
        AlkdError: the folder cannot be made or written.
    """
    parts: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            part = folder / f".{name}.{os.getpid()}.part"
            parts[part] = folder / name
            with open(part, "w", encoding="utf-8", newline="") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        for part, place in parts.items():
            os.replace(part, place)
        sync(folder)
    except OSError as error:
        raise AlkdError(f"{folder}: cannot be written: {error}") from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()
