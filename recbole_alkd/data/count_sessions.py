"""From the clicks of a part to its counts, in memory that hardly grows with them.

Clicks are read once. Where they are many, each goes to one of ``SHARDS`` files by the hash of its session, so
that a session is in one shard whole; then shard after shard is sorted into sessions and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from recbole_alkd.data.click_blocks import Block, ClickColumns, Items, click_blocks, hashed, mixed
from recbole_alkd.data.pairs import AT_ONCE, PairCounter, added, distinct
from recbole_alkd.data.partial_counts import (
    ENDING,
    CountSettings,
    CountsWriter,
    Part,
    PartialCounts,
)
from recbole_alkd.data.work_folder import work_folder
from recbole_alkd.settings.error import AlkdError

SHARDS = 64
IN_MEMORY = 1 << 22  # clicks: so many are counted without shards; 80 MiB
_CLICK = np.dtype([("session", "<u8"), ("time", "<i8"), ("item", "<i4")])
_ROW_BITS = 24


def count_file(
    path: Path,
    out: Path,
    columns: ClickColumns,
    settings: CountSettings,
    in_memory: int = IN_MEMORY,
    at_once: int = AT_ONCE,
) -> Path:
    """Count a part of the clicks, with whole sessions in it.

    Args:
        path: of the clicks, as ``click_blocks`` takes it. out: a folder; the file in it is named by the part
            and its fingerprint.
        in_memory: clicks, at_once: pairs that are held in memory.

    Returns:
        the file.

    Raises:
        AlkdError: clicks that cannot be read, no session in them, or a part that is counted in ``out``
            already.
    """
    items = Items()
    counted = count_blocks(
        click_blocks(path, columns, items), items, path.name, out, settings, in_memory, at_once
    )
    if counted is None:
        raise AlkdError(f"{path}: no session of {settings.min_length} clicks or more in it")
    return counted


def count_blocks(
    blocks: Iterable[Block],
    items: Items,
    name: str,
    out: Path,
    settings: CountSettings,
    in_memory: int = IN_MEMORY,
    at_once: int = AT_ONCE,
    again: bool = False,
) -> Path | None:
    """``count_file`` of blocks of clicks, as they come; None where there is no session.

    Args:
        again: whether a part that is counted already is no error: an earlier try of the same task wrote it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with work_folder(out / "counting") as work:
        shards = _shards(blocks, work, in_memory)
        ids = sorted(items.codes)
        number = np.empty(
            len(ids), dtype=np.int64
        )  # items in the order of their ids, in which files are added
        number[[items.codes[item] for item in ids]] = np.arange(len(ids))
        sessions = np.zeros(len(ids), dtype=np.int64)
        counter = PairCounter(len(ids), settings.longest, work, at_once)
        prints, clicks, total = _Fingerprint(ids), 0, 0
        for shard in shards:
            keys, flat, offsets = _sessions(shard, settings)
            flat = number[flat]
            counter.add(flat, offsets)
            sessions += session_counts(flat, offsets, len(ids))
            prints.add(keys, flat, offsets)
            clicks, total = clicks + len(flat), total + len(keys)
        if not total:
            return None
        part = Part(name, str(prints), clicks, total)
        stem = name.encode()[:80].decode(errors="ignore")
        file = out / f"{stem}-{part.fingerprint[:12]}{ENDING}"
        same = sorted(out.glob(f"*-{part.fingerprint[:12]}{ENDING}"))
        if same and again:
            return same[0]
        if same:
            raise AlkdError(f"{name}: its sessions are counted already, in {same[0]}; a part is counted once")
        with CountsWriter.open(file, ids, sessions, settings, [part]) as writer:
            for begin, end, pairs, counts in added(counter.runs(), counter.how, at_once):
                writer.add(begin, end, pairs, counts)
    return file


def count_sessions(
    flat: np.ndarray,
    offsets: np.ndarray,
    ids: Sequence[str],
    keys: Sequence[str],
    settings: CountSettings,
    name: str,
) -> PartialCounts:
    """The counts of sessions in memory.

    Args:
        flat, offsets: items by their place in ``ids``, oldest first, session after session, (N,), and where
            each begins, (n + 1,).
        ids: of the items, in any order, once each. keys: (n,) ids of the sessions.
    """
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    number = np.empty(len(ids), dtype=np.int64)
    number[order] = np.arange(len(ids))
    size = np.diff(offsets)
    flat, offsets, kept = _cut(number[np.asarray(flat)], size, settings)
    ordered = [ids[k] for k in order.tolist()]
    counter = PairCounter(len(ids), settings.longest)
    counter.add(flat, offsets)
    prints = _Fingerprint(ordered)
    prints.add(hashed(list(keys))[kept], flat, offsets)
    part = Part(name, str(prints), len(flat), len(offsets) - 1)
    return PartialCounts(
        ordered, session_counts(flat, offsets, len(ids)), counter.counts(), settings, (part,)
    )


def session_counts(flat: np.ndarray, offsets: np.ndarray, n_items: int) -> np.ndarray:
    """In how many sessions each item is, (n_items,) int64."""
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(distinct(session * n_items + flat) % max(1, n_items), minlength=n_items)


class _Fingerprint:
    """128 bits that say which sessions were counted, whatever their order."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._items, self._sums = hashed(list(ids)), [0, 0]

    def add(self, keys: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> None:
        place = np.arange(len(flat), dtype=np.uint64) - np.repeat(offsets[:-1], np.diff(offsets)).astype(
            np.uint64
        )
        clicks = mixed(self._items[flat] + place)
        whole = np.add.reduceat(clicks, offsets[:-1]) if len(flat) else clicks
        for k in range(2):
            self._sums[k] = (
                self._sums[k] + int(mixed(whole + mixed(keys) + np.uint64(k)).sum(dtype=np.uint64))
            ) % 2**64

    def __str__(self) -> str:
        return "".join(f"{one:016x}" for one in self._sums)


def _shards(blocks: Iterable[Block], work: Path, in_memory: int) -> Iterator[np.ndarray]:
    """The clicks, each session's in one array, in the order in which they came. All blocks are read before it
    returns.
    """
    waiting: list[np.ndarray] = []
    size, files = 0, [work / f"shard-{k:02}" for k in range(SHARDS)]
    spilt = False

    def spill() -> None:
        clicks = np.concatenate(waiting)
        waiting.clear()
        shard = (clicks["session"] % np.uint64(SHARDS)).astype(np.uint8)
        order = np.argsort(shard, kind="stable")
        ends = np.cumsum(np.bincount(shard, minlength=SHARDS)).tolist()
        clicks = clicks[order]
        for file, begin, end in zip(files, [0, *ends], ends, strict=False):
            with open(file, "ab") as stream:
                stream.write(clicks[begin:end].tobytes())

    for block in blocks:
        clicks = np.empty(len(block.item), dtype=_CLICK)
        clicks["session"], clicks["time"], clicks["item"] = block.session, block.time, block.item
        waiting.append(clicks)
        size += len(clicks)
        if size >= in_memory:
            spill()
            size, spilt = 0, True
    if not spilt:
        whole = np.concatenate([*waiting, np.empty(0, dtype=_CLICK)])
        return iter([whole])
    if waiting:
        spill()
    return _read(files)


def _read(files: Sequence[Path]) -> Iterator[np.ndarray]:
    for file in files:
        yield np.fromfile(file, dtype=_CLICK)
        file.unlink()


def _sessions(clicks: np.ndarray, settings: CountSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sessions of clicks: their hashes, (n,), their items, oldest first and ties as they came, (N,), and
    where each begins.
    """
    key, time = clicks["session"], clicks["time"]
    order = _by_key(key)
    sorted_key, sorted_time = key[order], time[order]
    new = np.append(True, sorted_key[1:] != sorted_key[:-1])[: len(order)]
    if (~new[1:] & (sorted_time[1:] < sorted_time[:-1])).any():
        order = order[np.lexsort((sorted_time, np.cumsum(new)))]
    first = np.flatnonzero(new)
    flat, offsets, kept = _cut(
        clicks["item"][order].astype(np.int64), np.diff(first, append=len(order)), settings
    )
    return sorted_key[first][kept], flat, offsets


def _by_key(key: np.ndarray) -> np.ndarray:
    """``np.argsort(key, kind="stable")`` of hashes: the upper bits and the place are sorted as one number."""
    if len(key) >= 1 << _ROW_BITS:
        return np.argsort(key, kind="stable")
    low = np.uint64((1 << _ROW_BITS) - 1)
    packed = (key & ~low) | np.arange(len(key), dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    upper, whole = packed >> np.uint64(_ROW_BITS), key[order]
    mixed_up = (upper[1:] == upper[:-1]) & (whole[1:] != whole[:-1])
    if mixed_up.any():  # two sessions that differ in the lower bits only
        some = np.isin(upper, np.unique(upper[1:][mixed_up]))
        order[some] = order[some][np.lexsort((order[some], whole[some]))]
    return order


def _cut(
    flat: np.ndarray, size: np.ndarray, settings: CountSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sessions of at least ``min_length`` clicks, their last items: items, where each session begins, and
    which are kept.
    """
    kept = size >= settings.min_length
    left = np.repeat(np.cumsum(size), size) - np.arange(
        len(flat)
    )  # clicks until the end of the session, its own among them
    inside = np.repeat(kept, size)
    if settings.last_items is not None:
        inside &= left <= settings.last_items
        size = np.minimum(size, settings.last_items)
    return flat[inside], np.append(0, np.cumsum(size[kept])), kept
