"""Places in an LLM's answer that name an item, the lists they stand in, and the text as it is read."""

from __future__ import annotations

import bisect
import functools
import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Mention:
    """A place that names an item, or seems to.

    Attributes:
        start, end: where it stands.
        tokens: the candidates it can mean, usually one; empty for an id that was not offered.
        marked: written as an id: ``<ID7>``, ``ID7``, ``"id": 7``, ``<7>``.
        element: a list element by itself, such as the 7 in ``5, 7, 12``.
        how: the repair it needs: "case", "title", or None.
        inside: index of the bracketed list around it, or -1.
        cut: behind an opened ``<`` or quote at the very end of the text, so that it may be half an id.
        restarts: behind a list number that begins to count again.
    """

    start: int
    end: int
    tokens: tuple[str, ...]
    marked: bool = False
    element: bool = False
    how: str | None = None
    inside: int = -1
    cut: bool = False
    restarts: bool = False


_DIGITS = {code: str(unicodedata.decimal(chr(code))) for code in range(128, 0x20000) if chr(code).isdecimal()}
_INVISIBLE = dict.fromkeys(
    [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
)


@functools.cache
def _many_marks() -> re.Pattern[str]:
    # normalising sorts a run of combining marks in quadratic time; Unicode's stream-safe format allows 30 in
    # a row
    marks = "".join(
        chr(c)
        for c in range(0x300, 0x20000)
        if unicodedata.combining(unicodedata.normalize("NFKD", chr(c))[0])
    )
    return re.compile(f"([{marks}]{{30}})[{marks}]+")


def normal(text: str) -> str:
    """``text`` after NFKC, with the digits of every script as 0-9 and without invisible characters."""
    if text.isascii():
        return text
    size = len(text)
    text = unicodedata.normalize("NFKC", _many_marks().sub(r"\1", text.translate(_INVISIBLE)))
    return text[: 2 * size].translate(_DIGITS)  # one character can become 18


class Lists:
    """The outermost square brackets of a text. ``unclosed``: the last one never ends."""

    def __init__(self, text: str) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        depth = 0
        for bracket in re.finditer(r"[\[\]]", text):
            if bracket.group() == "[":
                if not depth:
                    self.starts.append(bracket.start())
                depth += 1
            elif depth:
                depth -= 1
                if not depth:
                    self.ends.append(bracket.end())
        self.unclosed = depth > 0
        if self.unclosed:
            self.ends.append(len(text))

    def at(self, place: int) -> int:
        """The index of the list around ``place``, or -1."""
        index = bisect.bisect_right(self.starts, place) - 1
        return index if index >= 0 and place < self.ends[index] else -1
