"""Recommendations for a file of sessions of any size, which can be killed and started again.

While it works ``OUT.part`` grows, and ``OUT.part.json`` says after every few seconds how much of it and of
the sessions is on the disk. The next start cuts ``OUT.part`` back to that place and resumes there, so
that no line is there twice, none by half and none is missing. In the end ``OUT.part`` becomes ``OUT``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from recbole_alkd.files import PART, sync, write_json
from recbole_alkd.serving.manifest import MANIFEST, digest
from recbole_alkd.serving.recommender import Recommender, at_least_one
from recbole_alkd.serving.session_lines import LONGEST, SessionLines
from recbole_alkd.settings.error import AlkdError

_BATCH = 256  # sessions that are scored together
_SAVED = 2.0  # seconds between two notes of how far it has come


class _Point(NamedTuple):
    """A place to which all is done: lines and bytes read, sessions done, ids ignored, bytes written,
    hash of what was read."""

    lines: int
    read: int
    done: int
    unknown: int
    written: int
    hash: Any


class Progress(NamedTuple):
    """How far it has come. done: sessions; bytes: read of ``size``; unknown: ids ignored;
    resumed: sessions of earlier starts."""

    done: int
    bytes: int
    size: int
    unknown: int
    resumed: int


def recommend_file(
    recommender: Recommender,
    file: Path,
    out: Path,
    k: int = 10,
    exclude_history: bool = True,
    tell: Callable[[Progress], None] = lambda _: None,
    titles: bool = False,
) -> Progress:
    """Write the ``k`` best items for every session of a file.

    Args:
        file: JSON lines, each a list of item ids (oldest first) or an object with ``history`` and, if it
            likes, ``session``, which is anything to know it by. out: a file that is not there; of every
            session a line with ``items`` and ``scores``, and its ``session``, in the same order.
        tell: is called after every batch. titles: what is no id may be a title, whole and in any case; of
            items with the same title the most popular is taken.

    Raises:
        AlkdError: a line that is none of these, which is named (what was done before it is kept: correct it
            and start again); ``out`` is there; ``OUT.part`` is of another bundle,
            of other options or of other sessions.
    """
    at_least_one(k)
    if out.exists():
        raise AlkdError(f"{out}: there is such a file; allowed: one that is not there")
    part = out.with_name(out.name + PART)
    with open(file, "rb") as source, _only_one(part) as target:
        state = part.with_name(part.name + ".json")
        lines = SessionLines(recommender, file, k, exclude_history, titles)
        job = _Job(lines, source, target, state)
        job.resume()
        progress = job.run(tell)
        target.flush()
        os.fsync(target.fileno())
        os.replace(part, out)
        job.state.unlink(missing_ok=True)
    sync(out.parent)
    return progress


class _Job:
    """One start of it."""

    def __init__(self, lines: SessionLines, source: BinaryIO, target: BinaryIO, state: Path) -> None:
        self.lines, self.source, self.target, self.state = lines, source, target, state
        self.options = {
            "k": lines.k,
            "exclude_history": lines.exclude_history,
            "titles": lines.titles,
            "bundle": digest(lines.recommender.path / MANIFEST),
        }
        self.size = os.fstat(source.fileno()).st_size
        self.point = _Point(0, 0, 0, 0, 0, hashlib.sha256())
        self.resumed = 0

    def resume(self) -> None:
        """Go to where the last start was; AlkdError where it was another job."""
        size = os.fstat(self.target.fileno()).st_size
        if not size:
            self._save()
            return
        try:
            saved = json.loads(self.state.read_bytes())
            numbers = [saved[name] for name in _Point._fields[:-1]]
            if not all(type(value) is int and value >= 0 for value in numbers):
                raise ValueError
            options = dict(saved["options"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise AlkdError(
                f"{self.target.name}: {self.state.name} does not say what it is; remove both, if you can"
            ) from None
        lines, read, done, unknown, written = numbers
        point = _Point(lines, read, done, unknown, written, hashlib.sha256())
        # what an earlier version does not say is off
        names = dict.fromkeys([*self.options, *options])
        other = [name for name in names if options.get(name, False) != self.options.get(name, False)]
        if other:
            what = "another bundle" if "bundle" in other else f"another {other[0]}"
            raise AlkdError(f"{self.target.name}: begun with {what}; use that one, or remove it")
        if size < point.written:
            raise AlkdError(f"{self.target.name}: shorter than {self.state.name} says; remove it")
        left = point.read
        while left and (piece := self.source.read(min(1 << 20, left))):
            point.hash.update(piece)
            left -= len(piece)
        if point.hash.hexdigest() != saved.get("sha256"):
            raise AlkdError(
                f"{self.lines.file}: its first {point.lines:,} lines are not those of {self.target.name}; "
                "remove that"
            )
        self.point, self.resumed = point, point.done
        self.target.truncate(point.written)
        self.target.seek(point.written)

    def run(self, tell: Callable[[Progress], None]) -> Progress:
        saved = time.monotonic()
        try:
            for sessions, lines, raw in self._batches():
                answers, unknown = self.lines.answers(sessions)
                self.target.write(answers)
                old, read = self.point, self.point.hash.copy()
                read.update(raw)
                # in one step, so that Ctrl-C never comes between two of them
                self.point = _Point(
                    lines,
                    old.read + len(raw),
                    old.done + len(sessions),
                    old.unknown + unknown,
                    old.written + len(answers),
                    read,
                )
                if time.monotonic() - saved > _SAVED:
                    self._save()
                    saved = time.monotonic()
                tell(self._progress())
        finally:
            self._save()
        return self._progress()

    def _progress(self) -> Progress:
        return Progress(self.point.done, self.point.read, self.size, self.point.unknown, self.resumed)

    def _save(self) -> None:
        point = self.point
        self.target.flush()
        os.fsync(self.target.fileno())
        note = dict(zip(_Point._fields[:-1], point, strict=False))
        write_json(self.state, {**note, "sha256": point.hash.hexdigest(), "options": self.options})

    def _batches(self) -> Iterator[tuple[list[tuple[str | None, list[str]]], int, bytes]]:
        """Sessions, as what they are known by (JSON) and ids; the number of their last line,
        and all that was read for them."""
        lines, error = self.point.lines, None
        while error is None:
            sessions: list[tuple[str | None, list[str]]] = []
            raw: list[bytes] = []
            while len(sessions) < _BATCH and (line := self.source.readline(LONGEST + 1)):
                try:
                    session = self.lines.session(line, lines + 1)
                except AlkdError as refused:  # what stands before it is done first
                    error = refused
                    break
                raw.append(line)
                lines += 1
                if session is not None:
                    sessions.append(session)
            if not raw:
                break
            yield sessions, lines, b"".join(raw)
        if error is not None:
            raise error


@contextlib.contextmanager
def _only_one(part: Path) -> Iterator[BinaryIO]:
    """The file that is being written, for this process alone."""
    with open(part, "a+b") as stream:
        try:
            import fcntl
        except ImportError:  # Windows
            pass
        else:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise AlkdError(f"{part}: another process is writing it") from None
        stream.seek(0)
        yield stream
