"""What is served at one time, opened whole also where a bundle is replaced at that moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from recbole_alkd.serving.manifest import MANIFEST
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.settings.error import AlkdError

STUDENT, POPULARITY, TEACHER = "student", "popularity", "teacher"
_TRIES, _PAUSE = 20, 0.1  # a bundle that is just being replaced is opened again


@dataclass(frozen=True)
class Served:
    """What is served at one time: the student's bundle and, where there is one, the teacher recommender's."""

    student: Recommender
    teacher: Recommender | None = None

    @classmethod
    def load(cls, bundle: Path, teacher: Path | None = None, verify: bool = False) -> Served:
        """Open the bundles. AlkdError as ``Recommender.load``."""
        return cls(_steady(bundle, verify), None if teacher is None else _steady(teacher, verify))

    @property
    def recommenders(self) -> tuple[str, ...]:
        return (STUDENT, POPULARITY) if self.teacher is None else (STUDENT, POPULARITY, TEACHER)


def _steady(folder: Path, verify: bool) -> Recommender:
    """Open a bundle; again, where another took its place in the meantime, which would mix the
    files of both."""
    for k in range(_TRIES):
        before = _identity(folder)
        try:
            recommender = Recommender.load(folder, verify=verify)
        except (AlkdError, OSError):
            if k == _TRIES - 1 or before == _identity(folder) is not None:
                raise
        else:
            if before == _identity(recommender.path) is not None or before == _identity(folder) is not None:
                return recommender
        time.sleep(_PAUSE)
    raise AlkdError(f"{folder}: it is replaced again and again while it is opened")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    for file in (folder / MANIFEST, folder / "bundle" / MANIFEST):
        try:
            status = file.stat()
        except OSError:
            continue
        return status.st_dev, status.st_ino, status.st_mtime_ns
    return None
