"""Places where something is to be written, looked at before anything is read, trained or paid."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from recbole_alkd.settings.error import AlkdError


def check_folder(setting: str, folder: Path) -> None:
    """AlkdError where ``folder`` is not there and cannot be made, or cannot be written to."""
    there = next(
        (place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place)),
        Path("/"),
    )
    if not there.is_dir():
        raise AlkdError(f"{setting}: {str(folder)!r} cannot be made, because {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise AlkdError(
            f"{setting}: {str(folder)!r} cannot be written to, because {str(there)!r} is read-only here"
        )
    try:  # what access does not tell: root may write everywhere, and yet not in /proc or on a full disk
        os.rmdir(tempfile.mkdtemp(prefix=".alkd-", dir=there))
    except OSError as error:
        raise AlkdError(
            f"{setting}: {str(folder)!r} cannot be written to: {error.strerror} in {str(there)!r}"
        ) from None


def check_new_file(setting: str, file: Path) -> None:
    """AlkdError where ``file`` is a folder, or lies in one that cannot be made or written to."""
    if file.is_dir():
        raise AlkdError(f"{setting}: {str(file)!r} is a folder; allowed: the path of a file")
    check_folder(setting, file.parent)
