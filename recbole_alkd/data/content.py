"""What tells the files of a data set from those of another, or from what they were before."""

from __future__ import annotations

import glob
import hashlib
import sys
from functools import cache
from pathlib import Path

from recbole_alkd.settings.identity import settings_hash


@cache
def data_fingerprint(folder: Path, dataset: str) -> str:
    """A hash of the content of every file of a data set, read once in a process."""
    files = sorted(path for path in folder.glob(f"{glob.escape(dataset)}.*") if path.is_file())
    return settings_hash({path.name: file_hash(path) for path in files})


@cache
def file_hash(path: Path) -> str:
    """The SHA-256 of a file, read once in a process."""
    with path.open("rb") as stream:
        if sys.version_info >= (3, 11):
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.read()).hexdigest()
