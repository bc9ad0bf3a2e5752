"""The best items of many sessions at once under a table: array operations over all their edges,
the same numbers as one by one."""

from __future__ import annotations

import numpy as np

_WORD = 63  # bits of a sort key


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys, (N,) int64 and not negative, once each and rising, and the place of every one among them."""
    order, rising = _sorted(keys)
    first = np.empty(len(keys), dtype=bool)
    first[:1] = True
    np.not_equal(rising[1:], rising[:-1], out=first[1:])
    place = np.empty(len(keys), dtype=np.intp)
    place[order] = first.cumsum() - 1
    return rising[first], place


def best_of_rows(rows: np.ndarray, scores: np.ndarray, n_rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the ``k`` best of every row stand, best first, of equal scores the first; -inf never comes.

    Args:
        rows: (N,) int64, rising. scores: (N,) float32.

    Returns:
        Places (M,), one row after the other, and how many of each row there are (n_rows,).
    """
    place = np.flatnonzero(scores > -np.inf)
    rows = rows[place]
    bits = (scores[place] + np.float32(0)).view(np.uint32).astype(np.int64)  # of the two zeros one
    falling = np.where(bits >> 31, bits, 0x7FFFFFFF - bits)  # larger numbers first, as integers
    order, _ = _sorted((rows << 32) | falling)
    held = np.bincount(rows, minlength=n_rows)
    within = np.arange(len(order)) - (held.cumsum() - held).repeat(held)
    return place[order[within < k]], np.minimum(held, k)


def _sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stable order of keys that are not negative, and the keys in it: the place is put into the key, where
    there is room for it, since numbers are sorted much faster than places."""
    room = max(1, int(len(keys) - 1).bit_length())
    if len(keys) and int(keys.max()).bit_length() + room <= _WORD:
        packed = (keys << room) | np.arange(len(keys))
        packed.sort()
        return packed & ((1 << room) - 1), packed >> room
    order = keys.argsort(kind="stable")
    return order, keys[order]
