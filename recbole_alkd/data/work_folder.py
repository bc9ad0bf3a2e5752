"""A folder for what is needed while a file is made."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_alkd.files import PART
from recbole_alkd.settings.error import AlkdError

_LITTLE = 1 << 17  # bytes that are left on a disk which is as good as full


@contextmanager
def work_folder(file: Path) -> Iterator[Path]:
    """A folder beside ``file``, which is gone when the block ends.

    Raises:
        AlkdError: something in the folder cannot be written, as where the disk is full; it names ``file``.
    """
    folder = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(3)}{PART}")
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        if error.filename is not None and not os.fspath(error.filename).startswith(os.fspath(folder)):
            raise
        raise AlkdError(f"{file}: cannot be written: {_reason(error, file)}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reason(error: OSError, file: Path) -> str:
    """Numpy says how much of an array it wrote, and not why it was not all of it."""
    there = next(folder for folder in file.absolute().parents if folder.is_dir())
    if shutil.disk_usage(there).free < _LITTLE:
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)
