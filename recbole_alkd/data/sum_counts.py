"""The sum of partial counts: of any number of them, a range of items at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from recbole_alkd.data.pairs import AT_ONCE, Keys, Source, added, collected
from recbole_alkd.data.partial_counts import ENDING, CountsWriter, PartialCounts
from recbole_alkd.settings.error import AlkdError


class Numbered:
    """Counts of one file under the numbers that their items have in the sum: a ``pairs.Source``.

    Args:
        number: (items of the file,) int64, the number of each in the sum, rising. n_items: of the sum.
    """

    def __init__(self, counts: PartialCounts, number: np.ndarray, n_items: int) -> None:
        self._pairs, self._number = counts.pairs, number
        self._how = Keys(n_items, counts.settings.longest)

    def before(self, item: int) -> int:
        return int(self._pairs.start[self._number.searchsorted(item)])

    def piece(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        first, last = self._number.searchsorted([begin, end]).tolist()
        start = self._pairs.start[first : last + 1]
        rows = slice(int(start[0]), int(start[-1]))
        source = np.repeat(self._number[first:last], np.diff(start))
        return self._how.of(
            source, self._number[self._pairs.target[rows]], self._pairs.gap[rows]
        ), self._pairs.count[rows]


class Sum:
    """The sum of counts of several parts, before it is made.

    Raises:
        AlkdError: none, other settings than the first's, or a part that is among them twice; it names the
            files.
    """

    def __init__(self, counts: Sequence[PartialCounts]) -> None:
        if not counts:
            raise AlkdError("nothing to add; allowed: one file of counts or more")
        seen: dict[str, str] = {}
        for one in counts:
            name = _name(one)
            if one.settings != counts[0].settings:
                mine, first = vars(one.settings), vars(counts[0].settings)
                key = next(key for key in mine if mine[key] != first[key])
                raise AlkdError(
                    f"{name}: counted with {key} {mine[key]}, and {_name(counts[0])} with {first[key]}; "
                    "allowed: counts of the same settings"
                )
            for part in one.parts:
                if part.fingerprint in seen:
                    raise AlkdError(
                        f"{name}: the sessions of {part.name} are in {seen[part.fingerprint]} already; "
                        "a part is added once"
                    )
                seen[part.fingerprint] = name
        self.settings = counts[0].settings
        self.parts = tuple(part for one in counts for part in one.parts)
        self.ids = sorted(set[str]().union(*(one.ids for one in counts)))
        number = {item: k for k, item in enumerate(self.ids)}
        self.how = Keys(len(self.ids), self.settings.longest)
        self.how.check()
        self.sessions = np.zeros(len(self.ids), dtype=np.int64)
        self._sources: list[Source] = []
        for one in counts:
            numbers = np.fromiter((number[item] for item in one.ids), dtype=np.int64, count=len(one.ids))
            self.sessions[numbers] += one.sessions
            self._sources.append(Numbered(one, numbers, len(self.ids)))

    def write(self, file: Path, at_once: int = AT_ONCE) -> Path:
        """Make the sum as a file, in the memory of ``at_once`` entries."""
        with CountsWriter.open(file, self.ids, self.sessions, self.settings, self.parts) as writer:
            for begin, end, keys, counts in added(self._sources, self.how, at_once):
                writer.add(begin, end, keys, counts)
        return file

    def counts(self) -> PartialCounts:
        """Make the sum in memory."""
        pairs = collected(added(self._sources, self.how), self.how)
        return PartialCounts(self.ids, self.sessions, pairs, self.settings, self.parts)


def files_of_counts(paths: Iterable[Path]) -> list[Path]:
    """The files of counts among paths; a folder stands for those in it. AlkdError for one without any."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path]
        if not inside:
            raise AlkdError(
                f"{path}: no *{ENDING} in it; allowed: a file of counts, or a folder of such files"
            )
        files += inside
    return files


def _name(counts: PartialCounts) -> str:
    return (
        str(counts.file) if counts.file else ", ".join(part.name for part in counts.parts) or "these counts"
    )
