"""What a run under way is doing: the newest line of its log, shown now and then, so that a long stage is not silent."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic

EVERY = 10.0  # seconds between two lines of one run; an epoch that takes longer has a line of its own
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
        self._at, self._next = 0, monotonic() + every

    def news(self) -> str | None:
        """The newest whole line since the last call that gave one; one of an epoch if any. None: nothing, or not yet."""
        if monotonic() < self._next:
            return None
        try:
            with open(self.log, "rb") as stream:
                end = stream.seek(0, 2)
                stream.seek(max(min(self._at, end), end - TAIL))
                content = stream.read()
        except OSError:
            return None
        whole = content[: content.rfind(b"\n") + 1]
        lines = [STAMP.sub("", COLOUR.sub("", line)).strip() for line in whole.decode("utf-8", "replace").splitlines()]
        lines = [line for line in lines if line]
        if not lines:
            return None
        self._at, self._next = end - len(content) + len(whole), monotonic() + self.every
        return next((line for line in reversed(lines) if line.startswith("epoch ")), lines[-1])[:200]
