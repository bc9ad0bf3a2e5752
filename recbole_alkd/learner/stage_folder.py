"""Where a stage is kept: in the folder of its run, or in one that all runs share which would train
it alike."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_alkd.compat import load_checkpoint, save_checkpoint
from recbole_alkd.learner.stage_names import stage_words
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.identity import settings_hash

logger = logging.getLogger()  # RecBole's, which is the root


def read_state(file: Path, what: str) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote into ``file``; None without a file, and with a word in the log where it
    is damaged.

    A power cut, a full disk or a bad copy leaves files that are empty, cut or changed;
    the sums in the file find all of these.
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
    except (OSError, EOFError, ValueError, RuntimeError, KeyError, NotImplementedError):
        pass
    except (zipfile.BadZipFile, pickle.PickleError):
        pass
    logger.warning(f"{file} ({file.stat().st_size:,} bytes) is damaged: {what} is not taken from it")
    return None


class StageFolder:
    """A folder with one file a finished stage. ``shared``: runs that serve what they train in another way use
    it too."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, name: str) -> dict[str, Any] | None:
        """What ``save_stage`` stored, or None: that stage has not finished, or its file is damaged,
        which the log says."""
        return read_state(self.path / f"{name}.stage.pth", f"the stage {stage_words(name)}")

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
        return read_state(self.path / f"{name}.progress.pth", f"the progress of stage {stage_words(name)}")

    def save_progress(self, name: str, content: dict[str, Any]) -> None:
        save_checkpoint(content, str(self.path / f"{name}.progress.pth"))


class SharedStage(StageFolder):
    """A folder of ``stage_cache``."""

    shared = True


class FollowedFolder(StageFolder):
    """The folder of a process that does not lead: it finds nothing there and writes nothing."""

    def __init__(self, path: Path, shared: bool = False) -> None:
        super().__init__(path)
        self.shared = shared

    def stage(self, name: str) -> dict[str, Any] | None:
        return None

    def below(self, name: str) -> StageFolder:
        return FollowedFolder(self.path / name, self.shared)

    def save_stage(self, name: str, content: dict[str, Any]) -> None:
        pass

    def lend(self, name: str, other: StageFolder) -> None:
        pass

    def progress(self, name: str) -> dict[str, Any] | None:
        return None

    def save_progress(self, name: str, content: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        """As a run folder's."""


class GroupFolder(StageFolder):
    """A folder as every process of a group sees it: what the leader finds in ``folder``, all have."""

    def __init__(self, folder: StageFolder, group: Group) -> None:
        super().__init__(folder.path)
        self.shared, self._folder, self._group = folder.shared, folder, group

    def stage(self, name: str) -> dict[str, Any] | None:
        return self._group.from_leader(lambda: self._folder.stage(name))

    def below(self, name: str) -> StageFolder:
        return GroupFolder(self._folder.below(name), self._group)

    def save_stage(self, name: str, content: dict[str, Any]) -> None:
        self._folder.save_stage(name, content)

    def lend(self, name: str, other: StageFolder) -> None:
        self._folder.lend(name, other)

    def progress(self, name: str) -> dict[str, Any] | None:
        return self._group.from_leader(lambda: self._folder.progress(name))

    def save_progress(self, name: str, content: dict[str, Any]) -> None:
        self._folder.save_progress(name, content)


def seen_by(group: Group, folder: StageFolder) -> StageFolder:
    """``folder`` of a run of one process, or of this process of a group."""
    return folder if group.count == 1 else GroupFolder(folder, group)


@contextmanager
def shared_stage(cache: Path, name: str, facts: Mapping[str, Any]) -> Iterator[StageFolder]:
    """The folder in ``cache`` of stage ``name`` under ``facts``, all that decides the stage.

    It is locked meanwhile, so that of several runs which need the stage one trains it and the others wait for
    it.
    """
    path = cache / f"{name}-{settings_hash(facts)}"
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            words = f"the stage {stage_words(name)} in {path}: waiting for it"
            logger.info(f"another process is training {words}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.utime(path)  # `recbole-alkd runs prune` goes by the last use
        yield SharedStage(path)
