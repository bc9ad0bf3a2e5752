"""The folder of one run: finished stages, the selection, the result.
A killed run resumes in the folder it left.

``<checkpoint_dir>/<model>-<dataset>-<time>-<settings hash>/`` holds one file a finished stage and
``result.json`` at the end. A run with the same settings on the same data takes over an unfinished folder that
no living process holds.
"""

from __future__ import annotations

import fcntl
import glob
from pathlib import Path
from typing import IO, Any

from recbole_alkd.files import write_json
from recbole_alkd.learner.stage_folder import StageFolder
from recbole_alkd.learner.stage_folder import shared_stage as shared_stage

RESULT = "result.json"
STAGES_FOLDER = "stages"  # in checkpoint_dir: where runs share their stages


class RunFolder(StageFolder):
    """An open (locked) run folder. ``resumed`` tells whether an earlier, unfinished run left it."""

    def __init__(self, path: Path, lock: IO[str], resumed: bool) -> None:
        super().__init__(path)
        self._lock, self.resumed = lock, resumed

    @classmethod
    def open(cls, checkpoint_dir: str, prefix: str, time: str, digest: str) -> RunFolder:
        """Take over the newest unfinished folder of ``prefix`` and ``digest``, or make a new one."""
        root = Path(checkpoint_dir)
        root.mkdir(parents=True, exist_ok=True)
        folders = [
            p
            for p in root.glob(f"{glob.escape(prefix)}-*-{digest}")
            if p.is_dir() and not (p / RESULT).exists()
        ]
        for path in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True):
            lock = _try_lock(path)
            if lock:
                return cls(path, lock, resumed=True)
        for number in range(1, 1000):
            # two runs that start within the same second must not share a folder
            path = root / (
                f"{prefix}-{time}-{digest}" if number == 1 else f"{prefix}-{time}.{number}-{digest}"
            )
            try:
                path.mkdir()
            except FileExistsError:
                continue
            lock = _try_lock(path)
            if lock:
                return cls(path, lock, resumed=False)
        raise OSError(f"no free run folder for {prefix} in {root}")

    def write_json(self, name: str, content: Any) -> Path:
        return write_json(self.path / name, content)

    def close(self) -> None:
        """Let go of the lock; the folder stays."""
        self._lock.close()


def _try_lock(folder: Path) -> IO[str] | None:
    """A lock that the system takes back when the process dies, however it dies."""
    handle = open(folder / ".lock", "w")  # noqa: SIM115  (kept open for as long as the run lasts)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
