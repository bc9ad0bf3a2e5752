"""Sessions whose targets a table is chosen by, and what a table gains on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.neighbours import present, profiles, rows_of, score_ranks
from recbole_alkd.model.scoring import METRICS, worth

# Where there are fewer validation sessions, their earlier items are targets as well:
# a few hundred targets choose by luck.
TARGETS = 5_000
_ROWS_AT_ONCE = 1000
# item_seq (B, L), length (B,) -> scores of items (B, n_items) above their popularity
Scored = Callable[[np.ndarray, np.ndarray], csr_array]


@dataclass(frozen=True)
class Sessions:
    """Validation sessions, and what the rank of a target is worth there.

    Attributes:
        item_seq, length, target: (rows, L), (rows,), (rows,), as RecBole has them.
        session: (rows,) which session a row is of. The rows of the first target of all sessions come first,
            in their order.
        n_items, last_items: of the table. masked: whether items of the session are never recommended.
        metric: RecBole's ``valid_metric``: NDCG or MRR; every other one counts hits.
    """

    item_seq: np.ndarray
    length: np.ndarray
    target: np.ndarray
    session: np.ndarray
    n_items: int
    last_items: int
    masked: bool
    metric: str

    @classmethod
    def of(cls, part: Any, last_items: int, masked: bool) -> Sessions:
        """All rows of a part of a RecBole sequential data set, each of a session of its own."""
        config, rows = part.config, part.inter_feat
        names = (part.iid_field + config["LIST_SUFFIX"], config["ITEM_LIST_LENGTH_FIELD"], part.iid_field)
        item_seq, length, target = (rows[name].numpy() for name in names)
        session, metric = np.arange(len(target)), str(config["valid_metric"] or "NDCG@10")
        return cls(item_seq, length, target, session, part.item_num, last_items, masked, metric)

    @property
    def cutoff(self) -> int:
        """Ranks behind it are worth nothing."""
        return int(self.metric.partition("@")[2] or 10)

    def with_earlier(self, least: int = TARGETS) -> Sessions:
        """The same sessions, and their earlier items as targets until there are ``least`` (or no
        more items)."""
        blocks, rows = [self], len(self.target)
        while 0 < rows < least:
            last = blocks[-1]
            longer = last.length > 1
            if not longer.any():
                break
            length = last.length[longer] - 1
            item_seq = last.item_seq[longer].copy()
            target = item_seq[np.arange(len(length)), length]
            item_seq[np.arange(len(length)), length] = 0
            blocks.append(
                replace(last, item_seq=item_seq, length=length, target=target, session=last.session[longer])
            )
            rows += len(length)
        item_seq, length, target, session = (
            np.concatenate([getattr(one, key) for one in blocks])
            for key in ("item_seq", "length", "target", "session")
        )
        return replace(self, item_seq=item_seq, length=length, target=target, session=session)

    def by_session(self, gains: np.ndarray) -> np.ndarray:
        """(rows,) -> (sessions,), with the same mean: what a session adds to the mean over all rows."""
        sessions = int(self.session.max(initial=-1)) + 1
        return np.bincount(self.session, gains, minlength=sessions) * (sessions / max(1, len(gains)))

    def ranks(self, table: csr_array, counts: np.ndarray, decay: float) -> np.ndarray:
        """``target_ranks`` of all sessions, (rows,)."""

        def scored(item_seq: np.ndarray, length: np.ndarray) -> csr_array:
            return csr_array(profiles(item_seq, length, decay, self.last_items, self.n_items) @ table)

        return self.ranks_of(scored, counts)

    def ranks_of(self, scored: Scored, counts: np.ndarray) -> np.ndarray:
        """``score_ranks`` of all sessions, (rows,), from what ``scored`` gives items above their
        popularity."""
        ranks = [np.zeros(0)]
        for start in range(0, len(self.target), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            excluded = present(self.item_seq[part], self.n_items) if self.masked else None
            ranks.append(
                score_ranks(
                    scored(self.item_seq[part], self.length[part]), counts, self.target[part], excluded
                )
            )
        return np.concatenate(ranks)

    def gains(self, table: csr_array, counts: np.ndarray, decay: float) -> np.ndarray:
        """What each row adds to the metric, whose value is the mean, (rows,)."""
        return self.worth(self.ranks(table, counts, decay))

    def worth(self, ranks: np.ndarray, everywhere: bool = False) -> np.ndarray:
        """What ranks add to the metric, (rows,); ``everywhere``: those behind the cutoff as well."""
        name = self.metric.lower().partition("@")[0]
        return worth(ranks, name if name in METRICS else "hit", None if everywhere else self.cutoff)

    def at_most(self, rows: int) -> Sessions:
        """The sessions, or so many of them, drawn once and for all; every row is a session of its own."""
        if len(self.target) <= rows:
            return self
        drawn = np.sort(np.random.default_rng(0).choice(len(self.target), rows, replace=False))
        kept = np.zeros(len(self.target), dtype=bool)
        kept[drawn] = True
        return replace(self.only(kept), session=np.arange(rows))

    def undecided(self, table: csr_array, counts: np.ndarray) -> np.ndarray:
        """Which sessions can gain anything under a table of no more edges than this one, (rows,) bool.

        The others have a target that no item of theirs leads to, and enough items that are more popular.

        Args:
            table: rows in order.
        """
        popular = len(counts) - np.searchsorted(np.sort(counts), counts[self.target], side="right")
        can_gain = popular < self.cutoff + (self.item_seq > 0).sum(1) * self.masked
        age = self.length[:, None] - 1 - np.arange(self.item_seq.shape[1])
        row, place = np.nonzero((age >= 0) & (age < self.last_items))
        edges = rows_of(table) * np.int64(self.n_items) + table.indices
        wanted = self.item_seq[row, place] * np.int64(self.n_items) + self.target[row]
        at = np.searchsorted(edges, wanted)
        can_gain[row[np.append(edges, -1)[at] == wanted]] = True
        return can_gain

    def only(self, kept: np.ndarray) -> Sessions:
        """The sessions that are ``kept``, (rows,) bool."""
        return replace(
            self,
            item_seq=self.item_seq[kept],
            length=self.length[kept],
            target=self.target[kept],
            session=self.session[kept],
        )
