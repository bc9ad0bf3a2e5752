"""VSTAN: session neighbours as a sequential recommender, which keeps all training sessions
(``session_neighbours.py``)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from recbole_alkd.model.choosing import Sessions, edge_choice
from recbole_alkd.model.counted import Counted, CountedView
from recbole_alkd.model.edges import Edges
from recbole_alkd.model.knn_settings import numbers
from recbole_alkd.model.neighbours import PRIOR, present, profiles, score_ranks
from recbole_alkd.model.rival import Rival
from recbole_alkd.model.session_neighbours import SessionMemory, Vstan
from recbole_alkd.registry import backbones
from recbole_alkd.settings.field import NO_DEFAULT, Field, is_a, words

_ROWS_AT_ONCE = 1000
# Items of neighbours that one try looks at: a few seconds on a core.
# Long sessions leave fewer targets to choose by.
_ENTRIES_A_TRY = 40_000_000
_LEAST_TARGETS = 500


def _counts(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(is_a(v, int) and v >= 1 for v in values)


SETTINGS = {
    "vstan_neighbors": Field(
        NO_DEFAULT, (int, list), check=words("an integer of at least 1, or a list of such integers", _counts)
    ),
    **{f"vstan_{name}": numbers(math.inf) for name in (*Vstan._fields[1:], "edge_weight")},
}


class VSTANView(CountedView):
    """Ranks come from the few scores that neighbours give, without a row of all items."""

    def target_ranks(self, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, masked: bool) -> Tensor:
        sessions, length, items = (part.cpu().numpy() for part in (item_seq, item_seq_len, target))
        ranks = [np.zeros(0)]
        for start in range(0, len(items), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            excluded = present(sessions[rows], self.model.n_items) if masked else None
            scores = self.model.spoken(sessions[rows], length[rows])
            ranks.append(score_ranks(scores, self.model.popularity, items[rows], excluded))
        return torch.from_numpy(np.concatenate(ranks)).to(target.device)


@backbones.register("VSTAN")
class VSTAN(Rival):
    """Vector multiplication of sequence and time aware neighbours; V-SKNN and STAN are corners of its grid.

    It has no size limit but that of the sessions, which are its state: ``items`` of all training sessions,
    ``starts``, ``counts``, and ``how``, the values of ``Vstan``. Items that no neighbour has are ranked by
    popularity. Edges (``kd_loss``, ``item_text``) are added to the scores: E_ij for every item i of the
    session, at the weight of ``vstan_edge_weight`` that validation prefers, with the median edge as large as
    the median score.
    """

    view_class = VSTANView
    own_settings = SETTINGS
    heading = "session neighbours"
    prefix, kind = "vstan", Vstan
    free_sizes: ClassVar[tuple[str, ...]] = ("items", "starts", "edge_indices", "edge_weights_kept")
    starts: Tensor
    counts: Tensor
    how: Tensor
    edge_starts: Tensor
    edge_indices: Tensor
    edge_weights_kept: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.items = nn.Parameter(torch.zeros(0, dtype=torch.int32), requires_grad=False)
        self.register_buffer("starts", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int32))
        self.register_buffer("how", torch.tensor(self.start(), dtype=torch.float64))
        self.register_buffer("edge_starts", torch.zeros(self.n_items + 1, dtype=torch.int32))
        self.register_buffer("edge_indices", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("edge_weights_kept", torch.zeros(0))
        self._memory: SessionMemory | None = None

    def count(self, train: Any, valid: Any = None, edges: Edges | None = None) -> Counted:
        """Keep the sessions and choose on validation how neighbours are weighed, and what edges weigh."""
        flat, offsets, counts = self.counted(train)
        memory = SessionMemory(flat, offsets, self.n_items)
        rows, popularity = self.rows(valid), counts.astype(np.float32)
        if rows is not None:
            rows = rows.at_most(
                max(_LEAST_TARGETS, int(_ENTRIES_A_TRY / memory.typical(self.start().neighbors)))
            )

        def ranks_of(how: Vstan) -> np.ndarray:
            assert rows is not None
            return rows.ranks_of(lambda item_seq, length: memory.scores(how, item_seq, length), popularity)

        chosen = self.choose(rows, ranks_of)
        table, weights = self._learn(edges, memory, chosen.how, rows, train, popularity)
        self.items = nn.Parameter(
            torch.from_numpy(flat.astype(np.int32)).to(self.counts.device), requires_grad=False
        )
        self._set(starts=offsets, counts=counts, edge_starts=table.indptr, edge_indices=table.indices)
        self.how = torch.tensor(chosen.how, dtype=torch.float64, device=self.counts.device)
        self.edge_weights_kept = torch.from_numpy(table.data.astype(np.float32)).to(self.counts.device)
        self._memory = None
        return self.result(chosen, weights, f"{len(offsets) - 1:,} sessions and {len(flat):,} clicks kept")

    def _set(self, **values: np.ndarray) -> None:
        for name, value in values.items():
            setattr(self, name, torch.from_numpy(value.astype(np.int32)).to(self.counts.device))

    def _learn(
        self,
        edges: Edges | None,
        memory: SessionMemory,
        how: Vstan,
        rows: Sessions | None,
        train: Any,
        popularity: np.ndarray,
    ) -> tuple[csr_array, dict[str, float]]:
        """The edges at the weights that validation prefers, as one table."""
        table = csr_array((self.n_items, self.n_items), dtype=np.float32)
        weights: dict[str, float] = {}
        for name, variants in self.edge_sets(edges, memory.counts).items():
            scale = _typical_score(memory, how, train)
            variants = [one * np.float32(scale / np.median(one.data)) if one.nnz else one for one in variants]
            best, weight = 0, sorted(self.edge_weights)[len(self.edge_weights) // 2]
            if rows is not None and (len(self.edge_weights) > 1 or len(variants) > 1):
                before = table

                def ranks_of(variant: int, weight: float) -> np.ndarray:
                    added = csr_array(before + np.float32(weight) * variants[variant])  # noqa: B023  (called at once)

                    def scored(item_seq: np.ndarray, length: np.ndarray) -> csr_array:
                        return _spoken(memory, how, added, item_seq, length)

                    return rows.ranks_of(scored, popularity)

                best, weight = edge_choice(len(variants), self.edge_weights, ranks_of, rows)
            table = csr_array(table + np.float32(weight) * variants[best])
            weights |= {f"{name}_edges": variants[best].nnz, f"{name}_weight": weight}
        table.sort_indices()
        return table, weights

    @property
    def popularity(self) -> np.ndarray:
        """(n_items,) float32."""
        popularity: np.ndarray = self.counts.cpu().numpy().astype(np.float32)
        return popularity

    @property
    def memory(self) -> SessionMemory:
        """The kept sessions, in the form that neighbours are found in."""
        if self._memory is None:
            self._memory = SessionMemory(self.items.cpu().numpy(), self.starts.cpu().numpy(), self.n_items)
        return self._memory

    def spoken(self, item_seq: np.ndarray, length: np.ndarray) -> csr_array:
        """Scores above popularity, (B, n_items)."""
        first, *rest = self.how.tolist()
        parts = (self.edge_weights_kept, self.edge_indices, self.edge_starts)
        edges = csr_array(tuple(part.cpu().numpy() for part in parts), shape=(self.n_items, self.n_items))
        return _spoken(self.memory, Vstan(int(first), *rest), edges, item_seq, length)

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        votes = self.spoken(item_seq.cpu().numpy(), item_seq_len.cpu().numpy()).toarray()
        return torch.from_numpy(votes + PRIOR * self.popularity).to(item_seq.device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._memory = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _spoken(
    memory: SessionMemory, how: Vstan, edges: csr_array, item_seq: np.ndarray, length: np.ndarray
) -> csr_array:
    scores = memory.scores(how, item_seq, length)
    if not edges.nnz:
        return scores
    profile = profiles(item_seq, length, 1.0, item_seq.shape[1], memory.n_items)
    return csr_array(scores + csr_array(profile @ edges))


def _typical_score(memory: SessionMemory, how: Vstan, train: Any) -> float:
    """The median score that neighbours give in a thousand training rows."""
    rows = train.inter_feat[: min(1000, len(train.inter_feat))]
    item_seq = rows[train.iid_field + train.config["LIST_SUFFIX"]].numpy()
    scores = memory.scores(how, item_seq, rows[train.config["ITEM_LIST_LENGTH_FIELD"]].numpy())
    return float(np.median(scores.data)) if scores.nnz else 1.0
