"""Where answers go that were paid for and cannot be stored: a file beside the store,
which the next start takes in.

Room for it is set aside before anything is asked, because a full disk is one of the reasons why a store
cannot be written. While its owner lives the file is locked; what a killed owner left is taken in by whoever
comes next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import hashlib
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from recbole_alkd.labels.file import LabelStoreError
from recbole_alkd.labels.hints import Hints, put_hints
from recbole_alkd.labels.label import Label
from recbole_alkd.labels.store import LabelStore

logger = logging.getLogger(__name__)
_ROOM = (1 << 20, 1 << 16)  # bytes: as much as can be had of these


class SideFile:
    """Room for answers beside the store at ``store_path``. A context manager:
    leaving it gives unused room back.

    Attributes:
        kept: answers that were written down here. lost: those for which no disk had room.

    Raises:
        LabelStoreError: there is no room at all, so that nothing should be asked.
    """

    def __init__(self, store_path: Path) -> None:
        self._store_path = store_path
        self._files: list[tuple[Path, IO[bytes]]] = []
        self.kept = self.lost = 0
        self._reason = ""
        try:
            stream = self._new(store_path.parent, f"{store_path.name}.answers")
        except OSError as error:
            raise LabelStoreError(
                f"label_store: no file can be made beside {str(store_path)!r} ({error.strerror}): "
                "nothing is asked"
            ) from None
        for room in _ROOM:
            try:
                _set_aside(stream, room)
                return
            except OSError as error:
                reason = error.strerror
        self.close()
        raise LabelStoreError(
            f"label_store: the disk of {str(store_path)!r} has no room for answers ({reason}; "
            f"{_ROOM[-1] // 1024} KiB are needed): "
            "nothing is asked"
        )

    def _new(self, folder: Path, prefix: str) -> IO[bytes]:
        file = folder / f"{prefix}-{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
        stream = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b", buffering=0)
        fcntl.flock(stream, fcntl.LOCK_EX)
        self._files.append((file, stream))
        return stream

    def keep(self, labels: Iterable[Label] = (), hints: Iterable[Hints] = ()) -> None:
        """Write them down, durably on return. Where this disk is full, a second file in the system's folder
        for temporary files takes the rest; what finds no room at all is counted as ``lost``."""
        # no null for a number that is none, as elsewhere: what is kept must come back as it was
        lines = [json.dumps(dataclasses.asdict(label), default=str) for label in labels]
        lines += [json.dumps({"hints": dataclasses.asdict(case_hints)}, default=str) for case_hints in hints]
        for line in lines:
            try:
                # a line of its own, whatever half a line stands before it
                self._write(b"\n" + line.encode() + b"\n")
                self.kept += 1
            except OSError as error:
                self.lost, self._reason = self.lost + 1, str(error.strerror)

    def _write(self, data: bytes) -> None:
        if not self._files[-1][0].exists():  # the folder was deleted, and what is written to it would be lost
            self._store_path.parent.mkdir(parents=True, exist_ok=True)
            self._new(self._store_path.parent, f"{self._store_path.name}.answers")
        try:
            _append(self._files[-1][1], data)
        except OSError:
            folder, prefix = _elsewhere(self._store_path)
            if self._files[-1][0].parent == folder:
                raise
            _append(self._new(folder, prefix), data)

    def told(self) -> str:
        """One sentence on what is kept here."""
        names = ", ".join(str(file) for file, stream in self._files if stream.tell())
        parts = (
            [f"{self.kept} answers are kept in {names}; the next start takes them in"] if self.kept else []
        )
        parts += [f"{self.lost} answers could not be kept anywhere ({self._reason})"] if self.lost else []
        return "; ".join(parts) or "every answer that came is stored"

    def close(self) -> None:
        for file, stream in self._files:
            with contextlib.suppress(OSError):
                if stream.tell():
                    stream.truncate()
                else:
                    file.unlink()
            stream.close()
        self._files = []

    def __enter__(self) -> SideFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def store_hints(store: LabelStore, hints: Hints) -> bool:
    """As ``put_hints``; where the store cannot be written, they are kept beside it.

    Raises:
        LabelStoreError: that the store cannot be written, and where the hints are.
    """
    try:
        return put_hints(store, hints)
    except LabelStoreError as error:
        with SideFile(store.path) as side:
            side.keep(hints=[hints])
            raise LabelStoreError(f"{error}; {side.told()}") from error


def take_in(store: LabelStore) -> int:
    """Put what side files of ``store`` hold into it, and remove them. How many answers were new.

    Raises:
        LabelStoreError: the store cannot be written now; the files stay.
    """
    stored = 0
    for file in _side_files(store.path):
        with contextlib.suppress(FileNotFoundError), file.open("rb" if store.readonly else "r+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            if not file.exists():
                continue  # another process has taken it in
            labels, hints, unreadable = _read(stream.read())
            if store.readonly:
                if labels or hints:
                    logger.warning(
                        "%s: %d answers stand in %s, and the store is read-only",
                        store.path,
                        len(labels),
                        file,
                    )
                continue
            new = store.put_many(labels) + sum(put_hints(store, case_hints) for case_hints in hints)
            stored += new
            if labels or hints:
                logger.warning(
                    "%s: %d answers of %s, which could not be stored earlier, are stored now",
                    store.path,
                    new,
                    file,
                )
            if unreadable:
                left = file.replace(file.with_suffix(".unreadable"))
                logger.warning("%s: %d lines cannot be read and are kept there", left, unreadable)
            else:
                file.unlink()
    return stored


def _read(content: bytes) -> tuple[list[Label], list[Hints], int]:
    labels: list[Label] = []
    hints: list[Hints] = []
    unreadable = 0
    for line in content.replace(b"\0", b"").split(b"\n"):  # room that was set aside holds zeros
        if not line.strip():
            continue
        try:
            values: Any = json.loads(line)
            if "hints" in values:
                case_hints = Hints(**values["hints"])
                hints.append(dataclasses.replace(case_hints, rules=tuple(case_hints.rules)))
            else:
                labels.append(Label(**values))
        except (ValueError, TypeError, RecursionError):
            unreadable += 1
    return labels, hints, unreadable


def _side_files(store_path: Path) -> Iterator[Path]:
    yield from sorted(store_path.parent.glob(f"{glob.escape(store_path.name)}.answers-*.jsonl"))
    with contextlib.suppress(OSError):
        folder, prefix = _elsewhere(store_path)
        yield from sorted(folder.glob(f"{prefix}-*.jsonl"))


def _elsewhere(store_path: Path) -> tuple[Path, str]:
    """A folder of this user's on another disk, and what names of files for this store begin with.

    Raises:
        OSError: there is none that nobody else can write.
    """
    folder = Path(tempfile.gettempdir()) / f"recbole_alkd-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder, hashlib.sha256(os.fsencode(store_path)).hexdigest()[:16]


def _set_aside(stream: IO[bytes], room: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, room)
    else:
        stream.write(b"\0" * room)
        stream.seek(0)


def _append(stream: IO[bytes], data: bytes) -> None:
    place = stream.tell()
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) or 0 :]
        os.fsync(stream.fileno())
    except OSError:
        stream.seek(place)  # ``close`` cuts off what stands behind
        raise
