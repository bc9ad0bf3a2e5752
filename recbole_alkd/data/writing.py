"""Writes files whole or not at all: everything is written beside its place first, then moved there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from recbole_alkd.files import whole_path
from recbole_alkd.settings.error import AlkdError


def write_files(folder: Path, files: dict[str, Callable[[TextIO], object]]) -> None:
    """Write ``files`` (name -> function that writes into the open stream) into ``folder``,
    which is made when missing.

    No file is replaced before all of them are written; on an error nothing is left behind.

    Raises:
        AlkdError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as parts:  # which are put in their places when all of them are there
            for name, write in files.items():
                part = parts.enter_context(whole_path(folder / name))
                with open(part, "x", encoding="utf-8", newline="") as stream:
                    write(stream)
    except OSError as error:
        raise AlkdError(f"{folder}: cannot be written: {error}") from None
