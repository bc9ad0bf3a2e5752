"""SessionKNN: a sparse table of item neighbours as a sequential recommender, fitted by counting instead of by
gradients.

score(j) = sum over the session's newest items, t = 0 the newest, of decay^t W_{i_t, j}, plus 1e-7 n_j, with W
the counts of ``counting.py``, weighed as in ``neighbours.py``.
Item k nearest neighbours for sessions: Ludewig & Jannach (UMUAI 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from recbole_alkd.model.chance import paired_intervals
from recbole_alkd.model.choosing import Counting, Sessions, choice_words, edge_choice, fit_counts
from recbole_alkd.model.counted import Counted, CountedModel, CountedView
from recbole_alkd.model.edges import Edges, Weighing, added, like, variants_of
from recbole_alkd.model.knn_settings import SETTINGS, as_list
from recbole_alkd.model.neighbours import PRIOR, served, table_bytes
from recbole_alkd.model.refine import refined
from recbole_alkd.model.sparse_ranks import table_ranks
from recbole_alkd.model.table_made import EdgeSet, Made, uses
from recbole_alkd.registry import backbones
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import settings_of


class SessionKNNView(CountedView):
    """Ranks come from the few scores that neighbours give, without a row of all items."""

    def target_ranks(self, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, masked: bool) -> Tensor:
        return table_ranks(self.model, item_seq, item_seq_len, target, masked)


@backbones.register("SessionKNN")
class SessionKNN(CountedModel):
    """Item neighbours, cut to ``student_neighbors`` an item or to ``student_bytes``;
    weights are float16 numbers.

    Settings: ``knn_backward``, ``knn_gap_decay``, ``knn_repeat``, ``knn_source_exponent``,
    ``knn_target_exponent``, ``knn_decay``, ``knn_edge_weight`` and ``knn_list_backward`` (a number, or a list
    from which validation chooses), ``knn_spread``, ``knn_last_items``, ``knn_refine_epochs``,
    ``student_neighbors``, ``student_bytes``, ``mask_session_items``, ``item_text``. With
    ``--model=SessionKNN`` it runs alone; as ``teacher_model`` it keeps its whole table, without text.

    ``fit_table`` makes the table; before that every score is 0. The state dict is the table: row starts
    ``indptr`` (n_items + 1,), neighbours ``indices`` (E,) int32 and ``weights`` (E,) float16 of all rows one
    after the other, ``counts`` (n_items,) int32 and ``decay``.
    ``made`` is what ``fit_table`` made it of, None for a table that was loaded.
    """

    view_class = SessionKNNView
    own_settings = SETTINGS
    heading: ClassVar[str] = "neighbours"
    free_sizes: ClassVar[tuple[str, ...]] = ("indices", "weights")
    has_table: ClassVar[bool] = True
    served_as: ClassVar[str] = "table"
    indptr: Tensor
    indices: Tensor
    counts: Tensor
    decay: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        sizes = settings_of(config).backbone
        self.neighbors, self.bytes = sizes.student_neighbors, sizes.student_bytes
        self.last_items = self._setting("knn_last_items", config["knn_last_items"])
        self.grid = {}
        for name, before in Counting()._asdict().items():
            # checkpoints from before there were direction, gap and repeats have no such settings
            value = before if config[f"knn_{name}"] is None else config[f"knn_{name}"]
            self.grid[name] = as_list(self._setting(f"knn_{name}", value))
        self.edge_weights = as_list(self._setting("knn_edge_weight", config["knn_edge_weight"]))
        back = config["knn_list_backward"]  # checkpoints from before there was one have none
        self.list_backward = tuple(as_list(self._setting("knn_list_backward", 0.0 if back is None else back)))
        spread = self._setting("knn_spread", config["knn_spread"])
        # a list stands beside equally many edges for every item; a number alone is taken as it is
        self.spreads: list[float | None] = [None, *as_list(spread)] if isinstance(spread, list) else [spread]
        self.refine_epochs = self._setting("knn_refine_epochs", config["knn_refine_epochs"])
        self.seed = config["seed"]
        self.register_buffer("indptr", torch.zeros(self.n_items + 1, dtype=torch.int32))
        self.register_buffer("indices", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int32))
        self.register_buffer("decay", torch.zeros(()))
        self.weights = nn.Parameter(torch.zeros(0, dtype=torch.float16), requires_grad=False)
        self.made: Made | None = None

    def _setting(self, key: str, value: Any) -> Any:
        return self.own_settings[key].checked(key, value)

    def count(self, train: Any, valid: Any = None, edges: Edges | None = None) -> Counted:
        """``fit_table``, with a line that says what came of it; its facts are what was chosen, and ``edges``,
        how many are kept."""
        edges = edges or {}
        chosen = self.fit_table(train, valid, edges)
        words = [f"{name.replace('_', ' ')} {chosen[name]:g}" for name in Counting._fields]
        choice: tuple[str, ...] = ()
        if not math.isnan(chosen["valid"]):
            choice = (choice_words(chosen, "plain counting") + ", with the whole table)",)
        words += choice
        for name in edges:
            weight, count = chosen[f"{name}_weight"], chosen[f"{name}_edges"]
            words.append(
                f"{count:,} edges of {name} at weight {weight:g}"
                + ("" if weight else ", which leaves them out")
            )
        if "spread_gain" in chosen or "spread" in chosen:
            words.append(spread_words(chosen))
        if "refined_epoch" in chosen:
            before, after = chosen["refined_before"], chosen["refined_after"]
            words.append(
                f"weights refined for {chosen['refined_epoch']} epochs ({before:.4f} -> {after:.4f} on "
                "validation)"
            )
        kept, n_items = len(self.indices), self.n_items
        words.append(
            f"{kept:,} edges kept, {kept / max(1, n_items - 1):.1f} an item, {table_bytes(n_items, kept):,} "
            "bytes"
        )
        facts = {key: value for key, value in chosen.items() if not math.isnan(value)}
        return Counted({**facts, "edges": kept}, tuple(words), choice)

    def fit_table(self, train: Any, valid: Any = None, edges: Edges | None = None) -> dict[str, Any]:
        """Count, choose, add, cut.

        Args:
            train, valid: the parts of a RecBole data set. The settings with the best mean gain of the
                targets' ranks in ``valid`` (NDCG, MRR or hits, as ``valid_metric`` says) under the whole
                table are taken (``fit_counts``); without ``valid`` those where the search would start.
            edges: name -> edges that are added, one set after the other, at the scale of the table's own
                (``edges.like``) times a weight of ``knn_edge_weight``. Validation chooses the weight, and of
                several makers of a set which one, under the table as it is served;
                a weight above 0 has to gain more than chance.

        Returns:
            the chosen ``Counting`` by its names; ``valid``, its gain, ``tried``, how many settings were,
            ``over_plain`` and ``over_next``, what it gains over plain counting and over the best of the
            others, with the ends of their intervals (``..._low``, ``..._high``), all NaN without a choice;
            for each set of edges ``<name>_edges``, how many, and ``<name>_weight`` (and ``<name>_variant``,
            which of several makers, from 0); the ``spread`` that was taken (nothing for equally many edges an
            item), and where there was a choice ``spread_gain``, what it gains over that with its interval;
            with ``knn_refine_epochs`` and ``valid`` the epoch that was kept, ``refined_epoch`` (0: the
            counted weights), and the gains ``refined_before`` and ``refined_after``.
        """
        choice = fit_counts(train, valid, self.grid, self.last_items, self.mask_session_items)
        sessions = (
            None
            if valid is None
            else Sessions.of(valid, self.last_items, self.mask_session_items).with_earlier()
        )
        chosen: dict[str, Any] = {**choice.how._asdict(), **choice.facts()}
        how, counts, table = choice.how, choice.counts, choice.table
        weighing = Weighing(
            counts, how.source_exponent, how.target_exponent, how.decay, self.last_items, table
        )
        variants = [
            [EdgeSet.of(name, *weighing.edges(make)) for make in variants_of(makers)]
            for name, makers in (edges or {}).items()
        ]
        table, sets, facts = self._best(table, variants, weighing, sessions)
        chosen |= facts
        spread = facts.get("spread")
        if self.refine_epochs and sessions is not None:
            rows = train.inter_feat
            parts = tuple(rows[name].numpy() for name in (self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.ITEM_ID))

            def gain(one: csr_array) -> float:
                return float(sessions.gains(one, counts, how.decay).mean())

            seed = stage_seed(self.seed, "knn_refine")
            table, epoch, gains = refined(
                table, parts, how.decay, self.last_items, self.refine_epochs, gain, seed
            )  # type: ignore[arg-type]
            chosen.update(refined_epoch=epoch, refined_before=gains[0], refined_after=max(gains))
        self.made = Made(how, tuple(sets), bool(chosen.get("refined_epoch")), spread)
        self.set_table(table, counts, how.decay)
        return chosen

    def _best(
        self,
        table: csr_array,
        variants: Sequence[Sequence[EdgeSet]],
        weighing: Weighing,
        sessions: Sessions | None,
    ) -> tuple[csr_array, list[EdgeSet], dict[str, float]]:
        """The table as it is served under the spread that gains most, equally many edges for every item at
        ties, with the variant and the weight of each set of edges that go with that spread; these sets; and
        the facts of both choices.
        """
        tried: list[tuple[csr_array, list[EdgeSet], dict[str, float]]] = []
        spreads = self.spreads if self.neighbors is not None or self.bytes is not None else [None]
        for spread in spreads if sessions is not None else spreads[:1]:
            grown, sets, facts = table, [], {}
            for made in variants:
                edges = [one.edges for one in made]
                grown, variant, weight = self._add(grown, edges, weighing, sessions, spread)
                taken = replace(made[variant], weight=weight)
                sets.append(taken)
                facts[f"{taken.name}_edges"] = taken.edges.nnz
                if len(made) > 1:
                    facts[f"{taken.name}_variant"] = variant
                facts[f"{taken.name}_weight"] = weight
            if spread is not None:
                facts["spread"] = spread
            tried.append((self._cut(grown, weighing.counts, spread), sets, facts))
        if len(tried) == 1 or sessions is None:
            return tried[0]
        gains = [sessions.gains(kept, weighing.counts, weighing.decay) for kept, _, _ in tried]
        best = int(np.argmax([gain.mean() for gain in gains]))
        difference = sessions.by_session(gains[best] - gains[0])[:, None]
        (low,), (high,) = paired_intervals(difference)
        kept, sets, facts = tried[best]
        facts |= {"spread_gain": float(difference.mean()), "spread_low": float(low)}
        facts["spread_high"] = float(high)
        return kept, sets, facts

    def _add(
        self,
        table: csr_array,
        variants: Sequence[csr_array],
        weighing: Weighing,
        sessions: Sessions | None,
        spread: float | None,
    ) -> tuple[csr_array, int, float]:
        """The table with the edges at the weight that validation prefers (``edge_choice``), which edges,
        and that weight."""
        counts = weighing.counts
        variants = [like(edges, self._cut(table, counts, spread)) for edges in variants]
        choices = sorted(self.edge_weights)
        best, weight = 0, choices[len(choices) // 2]
        if sessions is not None and (len(choices) > 1 or len(variants) > 1):

            def ranks_of(variant: int, choice: float) -> np.ndarray:
                one = self._cut(added(table, variants[variant], choice), counts, spread)
                return sessions.ranks(one, counts, weighing.decay)

            best, weight = edge_choice(len(variants), choices, ranks_of, sessions)
        return added(table, variants[best], weight), best, weight

    def _cut(self, table: csr_array, counts: np.ndarray, spread: float | None) -> csr_array:
        """The table as it is served."""
        return served(table, self.neighbors, self.bytes, uses(counts, spread))

    def set_table(self, table: csr_array, counts: np.ndarray, decay: float) -> None:
        """Take over a table (n_items, n_items), popularities (n_items,) and the decay."""
        device = self.indptr.device
        for name, values, dtype in (
            ("indptr", table.indptr, np.int32), ("indices", table.indices, np.int32),
            ("counts", counts, np.int32),
        ):  # fmt: skip
            setattr(self, name, torch.from_numpy(values.astype(dtype)).to(device))
        self.weights = nn.Parameter(
            torch.from_numpy(table.data.astype(np.float16)).to(device), requires_grad=False
        )
        self.decay = torch.tensor(decay, dtype=torch.float32, device=device)

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Scores of every item, (B, L), (B,) -> (B, n_items). Takes O(edges of the sessions' items) beside
        the result."""
        row, place, vote = self.votes(item_seq, item_seq_len)
        scores = (PRIOR * self.counts).repeat(len(item_seq), 1)
        spot = row * self.n_items + self.indices[place]
        scores.view(-1).index_add_(0, spot, self.weights[place].float() * vote)
        return scores

    def speaking(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The items of the sessions that count: the row of the batch, the item, decay^t. All (items,)."""
        age = item_seq_len.unsqueeze(1) - 1 - torch.arange(item_seq.shape[1], device=item_seq.device)
        row, column = torch.nonzero((age >= 0) & (age < self.last_items), as_tuple=True)
        return row, item_seq[row, column], self.decay ** age[row, column]

    def votes(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The edges of these items: the row of the batch, the place in the table, decay^t. All (edges,)."""
        row, item, vote = self.speaking(item_seq, item_seq_len)
        start = self.indptr[item].long()
        degree = self.indptr[item + 1] - start
        slot = torch.repeat_interleave(torch.arange(len(item), device=item.device), degree)
        first = degree.cumsum(0) - degree
        place = torch.arange(len(slot), device=item.device) + (start - first)[slot]
        return row[slot], place, vote[slot]


def spread_words(chosen: Mapping[str, float]) -> str:
    """How the edges are spread over the items, and what that is worth on validation."""
    words = (
        f"cut by weight times use^{chosen['spread']:g}"
        if "spread" in chosen
        else "cut to equally many edges an item"
    )
    if "spread_gain" not in chosen:
        return words
    gain, low, high = (chosen[f"spread_{key}"] for key in ("gain", "low", "high"))
    return f"{words} ({gain:+.4f} [{low:+.4f}, {high:+.4f}] on validation)"
