"""The students of a bundle, as functions from a session to scores: tables and embeddings; ``graphs.py`` has
those that ONNX Runtime runs.

Numbers are computed in float32 and in the order in which the trainer's evaluation adds them, so that ranks
are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbole_alkd.serving.manifest import REASONS, STUDENT
from recbole_alkd.serving.many import best_of_rows, distinct
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import TensorFile

# Items are told apart by their popularity where no neighbour speaks for them.
PRIOR = np.float32(1e-7)
# where there are so few items for each edge of a session, adding to all of them takes less than sorting the
# edges
_DENSE = 4
_TRUE = np.ones(1, dtype=bool)


class Part(NamedTuple):
    """A part of a score. place: of the item in the session it comes from, None for a part of no single
    one."""

    place: int | None
    kind: str
    weight: float


class Student(ABC):
    """Scores of sessions.

    A session is an array of item numbers, oldest first, cut to ``max_length``. Items are numbered from 1, 0
    is the padding.
    """

    def __init__(self, counts: np.ndarray, popular: np.ndarray) -> None:
        self.counts, self.popular = counts, popular
        self.n_items = len(counts)
        self._every = np.arange(self.n_items)

    @abstractmethod
    def scores(self, session: np.ndarray) -> np.ndarray:
        """Scores of every item, (n_items,) float32, as the trainer's evaluation has them but for masked
        items."""

    def top(
        self, session: np.ndarray, k: int, banned: np.ndarray, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` best items and their scores, best first, the smaller number first at ties.

        Args:
            session: not empty. banned: items that are left out. allowed: the only items that are not, rising;
                None for all.
        """
        return self._best_of_all(self.scores(session), k, banned, allowed)

    def top_many(
        self, sessions: Sequence[np.ndarray], k: int, banned: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``top`` of many sessions: items and scores of one session after the other,
        and how many of each there are."""
        lists = [self.top(session, k, never) for session, never in zip(sessions, banned, strict=True)]
        items, scores = ([one[part] for one in lists] for part in (0, 1))
        return np.concatenate(items), np.concatenate(scores), np.array([*map(len, items)])

    def top_popular(
        self, k: int, banned: np.ndarray, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``top`` for a session of which nothing is known: the most popular items."""
        items = self.popular[: k + len(banned)] if allowed is None else allowed
        if len(banned):
            items = items[~np.isin(items, banned)]
        return best(np.sort(items), PRIOR * self.counts[np.sort(items)].astype(np.float32), k)

    def _best_of_all(
        self, scores: np.ndarray, k: int, banned: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``top`` from the scores of all items, which are changed."""
        scores[banned] = -np.inf
        if allowed is not None:
            return best(allowed, scores[allowed], k)
        scores[0] = -np.inf
        return best(self._every, scores, k)

    @abstractmethod
    def parts(self, session: np.ndarray, item: int) -> list[Part]:
        """What the score of an item is made of; the weights sum to it."""


class Table(Student):
    """Neighbours and weights of all items one after the other; an item t places before the newest counts
    ``recency[t]``."""

    def __init__(self, folder: Path, counts: np.ndarray, popular: np.ndarray) -> None:
        super().__init__(counts, popular)
        self.file = TensorFile(folder / STUDENT)
        self.starts, self.neighbours, self.weights = (
            self.file[name] for name in ("indptr", "indices", "weights")
        )
        self.recency = self.file["recency"]
        self._begins, self._ends = self.starts[:-1], self.starts[1:]
        self._oldest_first = self.recency[::-1].copy()
        self._prior = PRIOR * self.counts.astype(np.float32)
        self.reasons = folder / REASONS
        edges = len(self.neighbours)
        good = (
            self.starts.shape == (self.n_items + 1,)
            and self.weights.shape == (edges,)
            and len(self.recency) > 0
        )
        good = (
            good
            and self.starts[0] == 0
            and self.starts[-1] == edges
            and bool((np.diff(self.starts) >= 0).all())
        )
        if not good:
            raise AlkdError(
                f"{self.file.file}: rows and edges of its table do not fit; the bundle is damaged"
            )

    def scores(self, session: np.ndarray) -> np.ndarray:
        items, votes = self._votes(session)
        scores = self._prior.copy()
        np.add.at(scores, items, votes)
        return scores

    def top(
        self, session: np.ndarray, k: int, banned: np.ndarray, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        items, votes = self._votes(session)
        if self.n_items < _DENSE * len(items):
            scores = self._prior.copy()
            np.add.at(scores, items, votes)
            return self._best_of_all(scores, k, banned, allowed)
        if allowed is not None and not len(allowed):
            return allowed, np.zeros(0, dtype=np.float32)
        # no other item can stand above the best of those that no neighbour speaks for
        others = self.popular[: k + len(banned)] if allowed is None else allowed
        items, place = _distinct(np.concatenate([items, others, banned.astype(items.dtype)]))
        scores = self._prior[items]
        np.add.at(scores, place[: len(votes)], votes)
        if len(banned):
            scores[place[-len(banned) :]] = -np.inf
        if allowed is not None:
            at = allowed.searchsorted(items)
            scores[allowed.take(at, mode="clip") != items] = -np.inf
        return best(items, scores, k)

    def top_many(
        self, sessions: Sequence[np.ndarray], k: int, banned: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        newest = [session[-len(self.recency) :] for session in sessions]
        lengths = np.array([*map(len, newest)])
        items, every = np.concatenate(newest), np.arange(len(sessions))
        age = lengths.cumsum().repeat(lengths) - np.arange(1, len(items) + 1)
        begins = self.starts[items].astype(np.int64)
        degrees = self.starts[items + 1] - begins
        edges = (begins - (degrees.cumsum() - degrees)).repeat(degrees) + np.arange(degrees.sum())
        votes = self.weights[edges].astype(np.float32)
        votes *= self.recency[age].repeat(degrees)
        rows = every.repeat(lengths).repeat(degrees)
        never, widths = np.concatenate(banned), np.array([*map(len, banned)])
        others = self.popular[: k + int(widths.max())]
        keys = np.concatenate(
            [rows * self.n_items + self.neighbours[edges], (every[:, None] * self.n_items + others).ravel()]
        )
        unique_keys, place = distinct(keys)
        scores = self._prior[unique_keys % self.n_items]
        np.add.at(scores, place[: len(votes)], votes)
        wrong = every.repeat(widths) * self.n_items + never
        at = unique_keys.searchsorted(wrong)
        scores[at[unique_keys.take(at, mode="clip") == wrong]] = -np.inf
        rows = unique_keys // self.n_items
        place, many = best_of_rows(rows, scores, len(sessions), k)
        return unique_keys[place] % self.n_items, scores[place], many

    def parts(self, session: np.ndarray, item: int) -> list[Part]:
        shares = self._shares()
        parts = []
        for place, source, recency in self._speaking(session):
            row = slice(int(self.starts[source]), int(self.starts[source + 1]))
            for edge in np.flatnonzero(self.neighbours[row] == item) + row.start:
                whole = float(self.weights[edge].astype(np.float32) * recency)
                left = whole
                for kind, share in shares.items():
                    if part := whole * float(share[edge]):
                        parts.append(Part(place, kind, part))
                        left -= part
                # what the shares leave is what counting gave
                if not shares or abs(left) > 1e-6 * whole:
                    parts.append(Part(place, "repeat" if source == item else "counted", left))
        if prior := float(PRIOR * np.float32(self.counts[item])):
            parts.append(Part(None, "popularity", prior))
        return parts

    def _speaking(self, session: np.ndarray) -> list[tuple[int, int, np.float32]]:
        """Place, item and recency of those of a session that count, oldest first."""
        first = max(0, len(session) - len(self.recency))
        items = session[first:].tolist()
        return [(first + k, item, self.recency[len(items) - 1 - k]) for k, item in enumerate(items)]

    def _votes(self, session: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The neighbours of a session's items, and what each of them adds; an item may be there several
        times."""
        session = session[-len(self.recency) :]
        begins = self._begins[session]
        degrees = self._ends[session] - begins
        ends = degrees.cumsum()
        edges = (begins - ends + degrees).repeat(degrees)
        edges = edges + np.arange(len(edges))
        # float16 times float32 is float32
        votes = self.weights[edges] * self._oldest_first[-len(session) :].repeat(degrees)
        return self.neighbours[edges], votes

    def _shares(self) -> Mapping[str, np.ndarray]:
        """What of each edge came from elsewhere than counting: kind -> (E,) in [0, 1]."""
        if not self.reasons.is_file():
            return {}
        shares = TensorFile(self.reasons).arrays
        for name, share in shares.items():
            if share.shape != self.neighbours.shape:
                raise AlkdError(
                    f"{self.reasons}: {name!r} is not of every edge of the table; the bundle is damaged"
                )
        return shares


class Embeddings(Student):
    """SessionFPMC: the mean of the session's input vectors, each item counting ``decay`` of the one after it,
    and an inner product.

    The last ``title_size`` coordinates are titles, where late fusion serves some.
    """

    def __init__(
        self, folder: Path, counts: np.ndarray, popular: np.ndarray, decay: float, title_size: int
    ) -> None:
        super().__init__(counts, popular)
        self.file = TensorFile(folder / STUDENT)
        self.input, self.output = self.file["input"], self.file["output"]
        self.decay, self.title_size = decay, title_size
        if self.input.ndim != 2 or self.input.shape != self.output.shape or len(self.input) != self.n_items:
            raise AlkdError(
                f"{self.file.file}: its vectors are not of {self.n_items} items; the bundle is damaged"
            )

    def scores(self, session: np.ndarray) -> np.ndarray:
        if self.decay == 1:
            vector = self.input[session].sum(0) / np.float32(len(session))
        else:
            vector = self._recency(session) @ self.input[session]
        return self.output @ vector

    def parts(self, session: np.ndarray, item: int) -> list[Part]:
        given = self.input[session].astype(np.float64) * self._recency(session)[:, None] * self.output[item]
        own = given.shape[1] - self.title_size
        parts = [Part(place, "learned", float(row[:own].sum())) for place, row in enumerate(given)]
        if self.title_size:
            parts += [Part(place, "title", float(row[own:].sum())) for place, row in enumerate(given)]
        return parts

    def _recency(self, session: np.ndarray) -> np.ndarray:
        weight = np.float32(self.decay) ** np.arange(len(session) - 1, -1, -1, dtype=np.float32)
        return weight / weight.sum()


def best(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` items with the largest scores, best first; of equal scores the item that stands first. -inf
    never comes."""
    falling, least = -scores, np.float32(np.inf)
    if len(falling) > k:
        kept = falling.copy()
        kept.partition(k - 1)
        least = kept[k - 1]
    some = (falling <= least if least < np.inf else falling < np.inf).nonzero()[0]
    places = some[falling[some].argsort(kind="stable")[:k]]
    return items[places], scores[places]


def _distinct(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items once each, rising, and the place of every one among them: ``np.unique``, without what it does
    for others."""
    order = items.argsort()
    rising = items[order]
    first = np.concatenate([_TRUE, rising[1:] != rising[:-1]])
    place = np.empty(len(items), dtype=np.intp)
    place[order] = first.cumsum() - 1
    return rising[first], place
