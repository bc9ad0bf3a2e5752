"""Simulated answers about items: how often they are right is given, the truth is of sessions set apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.counting import both_ways, forward_counts, session_counts
from recbole_alkd.model.edges import EdgeMaker, Weighing, list_edges
from recbole_alkd.model.neighbours import profiles

PLACES = 5  # items that an answer names
GAP = 0.8  # what an item counts for every other item between it and X
POSITION = 3.0  # the weight of each of the first five places, as kd_position_weight has it


def halves(sessions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which of the distinct sessions are in the second half, (S,) bool: a random half of them."""
    second = np.zeros(len(sessions), dtype=bool)
    second[rng.permutation(len(sessions))[: len(sessions) // 2]] = True
    return second


def true_neighbours(
    flat: np.ndarray, offsets: np.ndarray, n_items: int, most: int = PLACES
) -> dict[int, list[int]]:
    """Item -> the items that come after it most often, best first.

    An item g places later counts ``GAP``^(g - 1).

    Args:
        flat, offsets: sessions, as ``counting.training_sessions`` gives them: (clicks,) items and
            (sessions + 1,) places where they begin.
        most: neighbours of an item. Ties are decided by how many sessions hold a neighbour, then by its id.
    """
    (later,) = forward_counts(flat, offsets, n_items, [GAP])
    times, found = session_counts(flat, offsets, n_items), {}
    for item in np.flatnonzero(np.diff(later.indptr)):
        part = slice(later.indptr[item], later.indptr[item + 1])
        others, weight = later.indices[part], later.data[part]
        found[int(item)] = others[np.lexsort((others, -times[others], -weight))][:most].tolist()
    return found


def simulated_list(
    truth: Sequence[int], candidates: Sequence[int], accuracy: float, rng: np.random.Generator
) -> list[int]:
    """``PLACES`` different candidates: at each place the best true one not yet named, with probability
    ``accuracy``, else a random one that is not true. Where one kind has run out, it is of the other.

    Args:
        truth: the true neighbours, best first. candidates: of which the false ones are taken.
        accuracy: in [0, 1].
    """
    known = set(truth)
    right = list(truth)
    wrong = [int(one) for one in rng.permutation([one for one in candidates if one not in known])]
    named = []
    for _ in range(min(PLACES, len(right) + len(wrong))):
        hit = rng.random() < accuracy
        named.append((right if (hit and right) or not wrong else wrong).pop(0))
    return named


def answers_as_edges(
    n_items: int, items: Sequence[int], lists: Sequence[Sequence[int]], backward: float = 0.0
) -> EdgeMaker:
    """Edges from each item to those that were named for it, made and weighed as labels of a run are
    (``learner.list_edges``); ``backward`` is what they count the other way round."""
    table = np.zeros((len(items), PLACES), dtype=np.int64)
    for row, named in enumerate(lists):
        table[row, : len(named)] = named[:PLACES]
    sequence = np.asarray(items, dtype=np.int64)[:, None]

    def make(weighing: Weighing) -> csr_array:
        one = np.ones(len(items), dtype=np.int64)
        profile = profiles(sequence, one, weighing.decay, weighing.last_items, n_items)
        return weighing(both_ways(list_edges(profile, table, np.full(PLACES, POSITION)), backward))

    return make


def share_true(lists: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> float:
    """The share of named items that are true."""
    named = sum(len(one) for one in lists)
    return sum(len(set(one) & set(right)) for one, right in zip(lists, truth, strict=True)) / max(1, named)
