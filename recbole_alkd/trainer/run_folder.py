"""The folder of one run: finished stages, the selection, the result. A killed run goes on in the folder it left.

``<checkpoint_dir>/<model>-<dataset>-<time>-<settings hash>/`` holds one file a finished stage and ``result.json`` at the
end. A run with the same settings on the same data takes over an unfinished folder that no living process holds.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recbole_alkd.compat import load_checkpoint, save_checkpoint
from recbole_alkd.files import write_json
from recbole_alkd.settings.identity import settings_hash

RESULT = "result.json"
STAGES_FOLDER = "stages"  # in checkpoint_dir: where runs share their stages
logger = logging.getLogger()  # RecBole's, which is the root


def read_state(file: Path, what: str) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote into ``file``; None without a file, and with a word in the log where it is damaged.

    A power cut, a full disk or a bad copy leaves files that are empty, cut or changed; the sums in the file find all of these.
    """
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is None:
            content = load_checkpoint(str(file))
            if isinstance(content, dict):
                return content
    except (OSError, EOFError, ValueError, RuntimeError, KeyError, NotImplementedError, zipfile.BadZipFile, pickle.PickleError):
        pass
    logger.warning(f"{file} ({file.stat().st_size:,} bytes) is damaged: {what} is not taken from it")
    return None


class StageFolder:
    """A folder with one file a finished stage. ``shared``: runs that serve what they train in another way use it too."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, name: str) -> dict[str, Any] | None:
        """What ``save_stage`` stored, or None when that stage has not finished or its file is damaged (which the log says)."""
        return read_state(self.path / f"{name}.stage.pth", f"the stage {name}")

    def below(self, name: str) -> StageFolder:
        """A folder in this one, for stages that are tried beside each other."""
        (self.path / name).mkdir(exist_ok=True)
        return StageFolder(self.path / name)

    def save_stage(self, name: str, content: dict[str, Any]) -> None:
        """Keep a finished stage; what it would have resumed from is not needed any more."""
        save_checkpoint(content, str(self.path / f"{name}.stage.pth"))
        (self.path / f"{name}.progress.pth").unlink(missing_ok=True)

    def lend(self, name: str, other: StageFolder) -> None:
        """Put a finished stage into another folder as well; on one disk it takes no space there."""
        source, target = (folder.path / f"{name}.stage.pth" for folder in (self, other))
        if source.is_file() and not target.exists():
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)

    def progress(self, name: str) -> dict[str, Any] | None:
        """What ``save_progress`` kept of a stage that has not finished, or None."""
        return read_state(self.path / f"{name}.progress.pth", f"the progress of stage {name}")

    def save_progress(self, name: str, content: dict[str, Any]) -> None:
        save_checkpoint(content, str(self.path / f"{name}.progress.pth"))


class SharedStage(StageFolder):
    """A folder of ``stage_cache``."""

    shared = True


@contextmanager
def shared_stage(cache: Path, name: str, facts: Mapping[str, Any]) -> Iterator[StageFolder]:
    """The folder in ``cache`` of stage ``name`` under ``facts``, all that decides the stage.

    It is locked meanwhile, so that of several runs which need the stage one trains it and the others wait for it.
    """
    path = cache / f"{name}-{settings_hash(facts)}"
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.info(f"another process is training the stage {name} in {path}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.utime(path)  # `recbole-alkd runs prune` goes by the last use
        yield SharedStage(path)


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
        found = [p for p in root.glob(f"{glob.escape(prefix)}-*-{digest}") if p.is_dir() and not (p / RESULT).exists()]
        for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
            lock = _try_lock(path)
            if lock:
                return cls(path, lock, resumed=True)
        for number in range(1, 1000):
            # two runs that start within the same second must not share a folder
            path = root / (f"{prefix}-{time}-{digest}" if number == 1 else f"{prefix}-{time}.{number}-{digest}")
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
