"""From clicks to sessions, from sessions to a split, from a session to its rows: pure functions on arrays.

The order matters. RecBole augments before it splits, so that prefixes of test sessions land in training; here
whole sessions are split, and only the training part is augmented (ALKDRec, AAAI 2025, "Protocol":
6:2:2 over sessions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from recbole_alkd.settings.error import AlkdError

PARTS = ("train", "valid", "test")
ORDERS = ("random", "time")
AUGMENTATIONS = ("prefix", "last")
# In seconds this is the year 5138; a larger "second" is a millisecond, or finer.
_FAR_FUTURE = 10**11


@dataclass(frozen=True)
class Sessions:
    """n sessions over N clicks.

    Attributes:
        rows: (N,) positions of the clicks in the caller's arrays: session by session, oldest first,
            ties as they stood.
        offsets: (n + 1,) where each session begins and ends in ``rows``.
        ended: (n,) time of the last click.
    """

    rows: np.ndarray
    offsets: np.ndarray
    ended: np.ndarray


@dataclass(frozen=True)
class Rows:
    """m rows (history -> target) over clicks that stand session by session.

    Attributes:
        session: (m,) index of the session.
        begin, target: (m,) the history is ``[begin, target)``, the item to predict stands at ``target``.
        last: (m,) whether the target is the session's last item.
    """

    session: np.ndarray
    begin: np.ndarray
    target: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def farthest(time: np.ndarray) -> int | None:
    """The time that is farthest from 0, of (N,) int64; None without one. As a number of Python, whose size is
    exact: to numpy -2^63, which others write for a missing time, is its own absolute value.
    """
    if not len(time):
        return None
    return max(int(time.max()), int(time.min()), key=abs)


def window_index(time: np.ndarray, window: int, time_unit: str | None) -> np.ndarray:
    """(N,) floor(time / window), windows of ``window`` seconds from 1970 on, UTC."""
    if time_unit is None and (far := farthest(time)) is not None and abs(far) >= _FAR_FUTURE:
        raise AlkdError(
            f"timestamp {far}: no second before the year 5138; give time_unit (session_time_unit)"
        )
    # a window that no 64 bits hold is longer than all times, as the longest one that they hold is
    return time // min(window if time_unit is None else window * 10**9, 2**63 - 1)


def session_codes(user: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(N,) session codes of the pairs (user, window index), in order of first appearance."""
    _, dense = np.unique(window, return_inverse=True)
    return pd.factorize(user * (dense.max(initial=0) + 1) + dense)[0]


def cut_sessions(session: np.ndarray, time: np.ndarray) -> Sessions:
    """Order the clicks of every session by exact time. ``session`` (N,): codes 0..n-1, each used;
    ``time`` (N,): int64."""
    rows = np.lexsort((time, session))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(session))])
    return Sessions(rows, offsets, time[rows[offsets[1:] - 1]])


def only_positions(sessions: Sessions, time: np.ndarray) -> bool:
    """Whether the times are no clock but 0, 1, 2, ... (or 1, 2, 3, ...) within every session."""
    place = np.arange(len(time)) - np.repeat(sessions.offsets[:-1], np.diff(sessions.offsets))
    first = time[sessions.rows] - place
    return len(time) > 0 and bool(first[0] in (0, 1) and (first == first[0]).all())


def check_split(ratios: Sequence[float], where: str) -> None:
    """AlkdError unless ``ratios`` are three positive numbers that sum to 1."""
    good = isinstance(ratios, (list, tuple)) and len(ratios) == 3
    good = good and all(isinstance(r, Real) and not isinstance(r, bool) and r > 0 for r in ratios)
    if not good or abs(sum(ratios) - 1) > 1e-6:
        raise AlkdError(
            f"{where}: {ratios!r} is not allowed; allowed: three positive numbers (train, valid, "
            "test) that sum to 1"
        )


def split_sessions(ended: np.ndarray, ratios: Sequence[float], order: str, seed: int) -> list[np.ndarray]:
    """Indices of the sessions in train, valid and test.

    Args:
        ended: (n,) time of each session's last click.
        ratios: three shares; valid and test are rounded down as RecBole does, to no less than one session.
        order: "random" (a permutation drawn with ``seed``) or "time" (by ``ended``, earliest in train).
    """
    n = len(ended)
    permuted = (
        np.random.default_rng(seed).permutation(n) if order == "random" else np.argsort(ended, kind="stable")
    )
    valid, test = (max(1, int(ratio * n)) for ratio in ratios[1:])
    train = n - valid - test
    if train < 1:
        raise AlkdError(
            f"{n} sessions are too few for train, valid and test; give more clicks, or a lower min_length"
        )
    return np.split(permuted, [train, train + valid])


def expand(offsets: np.ndarray, part: np.ndarray, augmentation: str, max_length: int) -> Rows:
    """Rows of the sessions ``part``: for every item after the first ("prefix"),
    or for the last one ("last").

    Args:
        offsets: (n + 1,) where sessions begin and end; each has two items or more.
        part: session indices, in the order wanted; shorter prefixes come first.
        max_length: histories keep their last ``max_length`` items.
    """
    begin, end = offsets[part], offsets[part + 1]
    count = end - begin - 1 if augmentation == "prefix" else np.ones_like(part)
    session, end = np.repeat(part, count), np.repeat(end, count)
    # within each session the targets are the last `count` positions
    left = np.repeat(np.cumsum(count), count) - np.arange(len(session))
    target = end - left
    return Rows(session, np.maximum(offsets[session], target - max_length), target, left == 1)
