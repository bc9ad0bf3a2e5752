"""Progress of what takes a while: a bar on a terminal, and elsewhere (a file, a pipe) a line a minute."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY = 60.0  # seconds between two lines
_UP = "\x1b[A"  # how tqdm goes back from a bar under another one
_LINE = "{desc}: {n_fmt} of {total_fmt} ({elapsed}, {remaining} left)"


class _Lines(io.TextIOBase):
    """tqdm writes over its own line; here each of its states is a line of its own."""

    def write(self, text: str) -> int:
        if words := text.replace(_UP, "").strip():
            sys.stderr.write(words + "\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def on_terminal() -> bool:
    """Whether somebody watches: standard error is a terminal."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or a closed one
        return False


def progress_bar(iterable: Iterable[Any] | None = None, **how: Any) -> Any:
    """A tqdm with the options ``how``; where nobody watches it says where it is once in ``EVERY`` seconds."""
    if not on_terminal():
        quiet = {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY, "bar_format": _LINE}
        how |= {**quiet, "leave": False, "file": _Lines()}
    return tqdm(iterable, **how)
