"""What a run under way is doing: the newest line of its log, shown now and then,
so that a long stage is not silent."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic

EVERY = 10.0  # seconds between two lines of one run; an epoch that takes longer has a line of its own
SILENT = 120.0  # seconds after which a run that logs nothing (an LLM is answering) is said to be under way
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# RecBole's "Fri 27 Nov 2026 16:40:00  INFO  "
STAMP = re.compile(r"^.{0,40}?\b(?:INFO|WARNING|ERROR)\s+")
TAIL = 1 << 16


class LogWatch:
    """The log of one run, read as it grows.

    Args:
        log: the file; it need not be there yet. every: seconds.
    """

    def __init__(self, log: Path, every: float = EVERY) -> None:
        self.log, self.every = log, every
        self._began = self._said = monotonic()
        self._at, self._next, self._last = 0, monotonic() + every, "nothing yet"

    def news(self) -> str | None:
        """The newest whole line since the last call that gave one; one of an epoch if any.
        None: nothing, or not yet.

        After ``SILENT`` seconds without a line it says for how long the run has been going,
        and the last line.
        """
        if monotonic() < self._next:
            return None
        line = self._newest()
        if line:
            self._last = line
        elif monotonic() >= self._said + SILENT:
            line = f"{(monotonic() - self._began) / 60:.0f} minutes so far; last: {self._last}"
        if line:
            self._said, self._next = monotonic(), monotonic() + self.every
        return line

    def _newest(self) -> str | None:
        try:
            with open(self.log, "rb") as stream:
                end = stream.seek(0, 2)
                stream.seek(max(min(self._at, end), end - TAIL))
                content = stream.read()
        except OSError:
            return None
        whole = content[: content.rfind(b"\n") + 1]
        lines = [
            STAMP.sub("", COLOUR.sub("", line)).strip()
            for line in whole.decode("utf-8", "replace").splitlines()
        ]
        lines = [line for line in lines if line]
        if not lines:
            return None
        self._at = end - len(content) + len(whole)
        return next((line for line in reversed(lines) if line.startswith("epoch ")), lines[-1])[:200]
