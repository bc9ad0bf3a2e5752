"""How often one item follows another in sessions, by the gap between them: whole numbers, from which every
table is weighed.

    N_ijd = in how many sessions and places a < b with items i and j, i != j, lie d = b - a - 1 items between
    the two

The counts do not depend on the order in which sessions, blocks or parts come, so that sums of parts are the
sum of all, bit for bit. What a gap is worth is decided later (``model/counting.py``). Keys are sorted by
numpy's own sort in blocks of a fixed size and added in order of the keys, so that memory does not grow with
the clicks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from recbole_alkd.settings.error import AlkdError

AT_ONCE = 1 << 24  # keys that are sorted or added together: 128 MiB, and about four times that while they are
MOST = 2**32 - 1  # what a count can hold
# A place of a session is counted together with so many places after it, at most: one endless session costs no
# more than many short ones. Sessions up to this length are counted whole.
LONGEST_GAP = 100


class PairCounts(NamedTuple):
    """N for all items, sorted by i, j and d.

    Attributes:
        start: (n_items + 1,) int64, where the entries of each i begin. target: (E,) j. gap: (E,) d. count:
            (E,) above 0.
    """

    start: np.ndarray
    target: np.ndarray
    gap: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # tuples have a method of this name

    @property
    def n_items(self) -> int:
        return len(self.start) - 1

    def source(self) -> np.ndarray:
        """(E,) i of every entry."""
        return np.repeat(np.arange(self.n_items), np.diff(self.start))


class Source(Protocol):
    """Counts sorted by their keys, which ``added`` reads a piece at a time."""

    def before(self, item: int) -> int:
        """How many entries have an i below ``item``."""

    def piece(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys, rising, and counts of the entries with an i from ``begin`` to ``end`` - 1."""


class Keys(NamedTuple):
    """How (i, j, d) is one whole number: (i * n_items + j) * longest + d."""

    n_items: int
    longest: int

    def of(self, source: np.ndarray, target: np.ndarray, gap: np.ndarray | int) -> np.ndarray:
        return (source * np.int64(self.n_items) + target) * np.int64(self.longest) + gap

    def first(self, item: int) -> int:
        """The smallest key with i = ``item``."""
        return item * self.n_items * self.longest

    def check(self) -> None:
        """AlkdError where keys do not fit 63 bits."""
        if self.n_items**2 * self.longest >= 1 << 63:
            raise AlkdError(
                f"{self.n_items:,} items are too many to count; allowed: "
                f"{int((2**63 / self.longest) ** 0.5):,}"
            )


class Run:
    """One sorted run: keys, each once, and their counts. Both may be mapped from files."""

    def __init__(self, how: Keys, keys: np.ndarray, counts: np.ndarray) -> None:
        self._how, self.keys, self.counts = how, keys, counts

    def before(self, item: int) -> int:
        return int(self.keys.searchsorted(self._how.first(item)))

    def piece(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self.before(begin), self.before(end))
        return self.keys[rows], self.counts[rows]


class PairCounter:
    """Counts sessions, given in any number of blocks.

    Args:
        n_items: items are below it. longest: places after a place that it counts with, at most.
        folder: where sorted runs are kept; None: in memory. at_once: keys that are sorted together.
    """

    def __init__(
        self, n_items: int, longest: int, folder: Path | None = None, at_once: int = AT_ONCE
    ) -> None:
        self.how = Keys(n_items, longest)
        self.how.check()
        self._folder, self._at_once = folder, at_once
        self._waiting: list[np.ndarray] = []
        self._size = 0
        self._runs: list[Run] = []

    def add(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        """Count sessions: their items, oldest first, one session after the other, (N,), and where each
        begins, (sessions + 1,).
        """
        flat = np.asarray(flat, dtype=np.int64)
        ends, begin = np.asarray(offsets)[1:], 0
        while begin < len(ends):  # blocks of whole sessions with about as many pairs as are sorted together
            first = 0 if begin == 0 else int(ends[begin - 1])
            room = max(1, self._at_once // self.how.longest)
            stop = max(begin + 1, int(np.searchsorted(ends, first + room, side="right")))
            self._add(flat[first : ends[stop - 1]], np.append(first, ends[begin:stop]) - first)
            begin = stop

    def _add(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        size = np.diff(offsets)
        after = np.repeat(offsets[1:], size) - np.arange(len(flat)) - 1  # places of the session behind each
        place = np.flatnonzero(after > 0)
        for gap in range(self.how.longest):
            if not len(place):
                break
            source, target = flat[place], flat[place + 1 + gap]
            other = source != target
            keys = self.how.of(source[other], target[other], gap)
            self._waiting.append(keys)
            self._size += len(keys)
            if self._size >= self._at_once:
                self._sort()
            place = place[after[place] > gap + 1]

    def _sort(self) -> None:
        """Make a run of the keys that wait."""
        keys = np.concatenate(self._waiting) if self._waiting else np.zeros(0, dtype=np.int64)
        self._waiting, self._size = [], 0
        keys.sort()
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]) if len(keys) else keys)
        counts = np.diff(first, append=len(keys)).astype(np.uint32)
        self._keep(keys[first], counts)

    def _keep(self, keys: np.ndarray, counts: np.ndarray) -> None:
        if self._folder is not None:
            stem = self._folder / f"run-{len(self._runs):05}"
            mapped = []
            for name, array in (("keys", keys), ("counts", counts)):
                file = stem.with_name(f"{stem.name}.{name}.npy")
                np.save(file, array)
                mapped.append(np.load(file, mmap_mode="r") if len(array) else array)
            keys, counts = mapped
        self._runs.append(Run(self.how, keys, counts))

    def runs(self) -> list[Run]:
        """What was counted, in sorted runs; nothing may be added after that."""
        if self._size or not self._runs:
            self._sort()
        return self._runs

    def counts(self) -> PairCounts:
        """What was counted, in memory."""
        return collected(added(self.runs(), self.how, self._at_once), self.how)


def count_pairs(flat: np.ndarray, offsets: np.ndarray, n_items: int, longest: int) -> PairCounts:
    """``PairCounts`` of sessions, as ``PairCounter.add`` takes them."""
    counter = PairCounter(n_items, longest)
    counter.add(flat, offsets)
    return counter.counts()


def added(
    sources: Sequence[Source], how: Keys, at_once: int = AT_ONCE
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Sums of counts, by ranges of items, in memory for about ``at_once`` entries (or those of one item,
    where it has more).

    Yields:
        the first and the last item of a range and one, the keys of the range, rising, each once, and their
        counts (int64).
    """
    begin = 0
    while begin < how.n_items:
        end = _range_end(sources, begin, how.n_items, at_once)
        pieces = [source.piece(begin, end) for source in sources]
        pieces = [piece for piece in pieces if len(piece[0])]
        if len(pieces) == 1:
            yield begin, end, pieces[0][0], pieces[0][1].astype(np.int64)
        elif pieces:
            keys = np.concatenate([keys for keys, _ in pieces])
            order = np.argsort(
                keys, kind="stable"
            )  # takes sorted runs as they are: faster than any other here
            keys = keys[order]
            counts = np.concatenate([counts for _, counts in pieces])[order].astype(np.int64)
            first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
            yield begin, end, keys[first], np.add.reduceat(counts, first)
        else:
            yield begin, end, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        begin = end


def _range_end(sources: Sequence[Source], begin: int, n_items: int, at_once: int) -> int:
    """The largest end of a range from ``begin`` on with at most ``at_once`` entries; one item at least."""
    already = sum(source.before(begin) for source in sources)
    low, high = begin + 1, n_items
    while low < high:
        middle = (low + high + 1) // 2
        if sum(source.before(middle) for source in sources) - already <= at_once:
            low = middle
        else:
            high = middle - 1
    return low


def distinct(keys: np.ndarray) -> np.ndarray:
    """Keys once each, rising: ``np.unique``, which takes ten times as long for whole numbers (it hashes them
    first).
    """
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]


def unpacked(keys: np.ndarray, how: Keys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i, j and d of keys: int64, int32, uint8."""
    pair = keys // how.longest  # np.divmod takes more than a division and a product
    source = pair // how.n_items
    gap, target = keys - pair * how.longest, pair - source * how.n_items
    return source, target.astype(np.int32), gap.astype(np.uint8)


def narrowed(counts: np.ndarray) -> np.ndarray:
    """Counts as uint32; AlkdError for one that does not fit."""
    if len(counts) and counts.max() > MOST:
        raise AlkdError(f"a pair of items was counted {counts.max():,} times; allowed: at most {MOST:,}")
    return counts.astype(np.uint32)


def collected(ranges: Iterator[tuple[int, int, np.ndarray, np.ndarray]], how: Keys) -> PairCounts:
    """What ``added`` yields, as one."""
    rows, parts = np.zeros(how.n_items, dtype=np.int64), []
    for begin, end, keys, counts in ranges:
        source, target, gap = unpacked(keys, how)
        rows[begin:end] = np.bincount(source - begin, minlength=end - begin)
        parts.append((target, gap, narrowed(counts)))
    target, gap, count = (np.concatenate(list(one)) for one in zip(*parts, strict=True))
    return PairCounts(np.append(0, np.cumsum(rows)), target, gap, count)
