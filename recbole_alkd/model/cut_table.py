"""A neighbour table from counts of any size: weighed and cut some rows at a time, with the numbers of the
table in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array, csr_array

from recbole_alkd.data.pairs import AT_ONCE, PairCounts
from recbole_alkd.data.partial_counts import PartialCounts
from recbole_alkd.model.counting import weighed_gaps
from recbole_alkd.model.grid_tables import Counting, median_of
from recbole_alkd.model.neighbours import cut, repeat_weight, weigh

_EDGE = np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f4")])


def cut_table(
    counts: PartialCounts, how: Counting, neighbors: int | None, work: Path, at_once: int = AT_ONCE
) -> csr_array:
    """The table of counts, with each item's ``neighbors`` largest weights: what ``Tables`` and ``cut`` give,
    bit for bit.

    Args:
        counts: of items numbered from 0. how: how they are weighed.
        neighbors: None keeps all, in memory. work: a folder for what goes the other way round. at_once:
            entries in memory.

    Returns:
        (n_items, n_items) float32 numbers of float16, rows in order.
    """
    n_items = len(counts.ids)
    ends = _row_ends(counts.pairs, at_once)
    behind = _backward(counts.pairs, how, ends, work) if how.backward else None
    times = np.zeros(1 << 16, dtype=np.int64)
    blocks, begin = [], 0
    for number, end in enumerate(ends):
        (together,) = weighed_gaps(_some_rows(counts.pairs, begin, end), [how.gap_decay], n_items)
        if behind is not None:
            edges = np.fromfile(behind[number], dtype=_EDGE)
            behind[number].unlink()
            back = csr_array(
                coo_array((edges["value"], (edges["row"] - begin, edges["column"])), shape=together.shape)
            )
            together = csr_array(together + np.float32(how.backward) * back)
            together.sort_indices()
        block = weigh(together, counts.sessions, how.source_exponent, how.target_exponent, begin)
        times += np.bincount(block.data.astype(np.float16).view(np.uint16), minlength=len(times))
        blocks.append(cut(block, neighbors))
        begin = end
    start = np.concatenate([[0], *(np.diff(block.indptr) for block in blocks)]).cumsum()
    data, indices = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("data", "indices")
    )
    table = csr_array((data, indices, start), shape=(n_items, n_items))
    middle = median_of(times)
    if not how.repeat or not middle:
        return table
    # a row's own item can be among its largest weights only together with those that were
    weight, own = repeat_weight(how.repeat, middle), np.arange(n_items)
    table = csr_array(table + csr_array((np.repeat(weight, n_items), (own, own)), shape=table.shape))
    table.sort_indices()
    return cut(table, neighbors)


def _row_ends(pairs: PairCounts, at_once: int) -> list[int]:
    """Ends of blocks of rows with about ``at_once`` entries of both directions together, one row at least."""
    both = np.diff(pairs.start)
    for begin in range(0, len(pairs.target), AT_ONCE):
        both = both + np.bincount(pairs.target[begin : begin + AT_ONCE], minlength=pairs.n_items)
    total = np.cumsum(both)
    ends: list[int] = []
    while not ends or ends[-1] < pairs.n_items:
        begin = ends[-1] if ends else 0
        before = total[begin - 1] if begin else 0
        ends.append(max(begin + 1, int(np.searchsorted(total, before + at_once, side="right"))))
    return ends


def _some_rows(pairs: PairCounts, begin: int, end: int) -> PairCounts:
    start = pairs.start[begin : end + 1]
    rows = slice(int(start[0]), int(start[-1]))
    return PairCounts(start - start[0], pairs.target[rows], pairs.gap[rows], pairs.count[rows])


def _backward(pairs: PairCounts, how: Counting, ends: list[int], work: Path) -> list[Path]:
    """F the other way round, a file for every block of rows; in each row the columns rise."""
    files = [work / f"backward-{number:05}" for number in range(len(ends))]
    for file in files:
        file.touch()
    begin = 0
    for end in ends:
        (forward,) = weighed_gaps(_some_rows(pairs, begin, end), [how.gap_decay], pairs.n_items)
        edges = np.empty(forward.nnz, dtype=_EDGE)
        edges["row"], edges["value"] = forward.indices, forward.data
        edges["column"] = np.repeat(np.arange(begin, end), np.diff(forward.indptr))
        for file, some in _by_block(edges, ends, files):
            with open(file, "ab") as stream:
                stream.write(some.tobytes())
        begin = end
    return files


def _by_block(edges: np.ndarray, ends: list[int], files: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    block = np.searchsorted(ends, edges["row"], side="right").astype(np.int32)
    order = np.argsort(block, kind="stable")
    edges = edges[order]
    stops = np.cumsum(np.bincount(block, minlength=len(ends))).tolist()
    for file, begin, end in zip(files, [0, *stops], stops, strict=False):
        if end > begin:
            yield file, edges[begin:end]
