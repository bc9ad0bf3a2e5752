"""``counts.safetensors`` and ``counts.npz``: what a table was made of, kept beside it, so that new sessions
can be added without counting the old ones. The first is a file of counts as ``recbole-alkd count`` writes it,
the second says how it was weighed."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.data.count_sessions import count_sessions
from recbole_alkd.data.partial_counts import CountSettings, PartialCounts
from recbole_alkd.learner.counting import count_model
from recbole_alkd.model.counting import LONGEST_GAP, weighed_gaps
from recbole_alkd.model.grid_tables import Counting
from recbole_alkd.model.neighbours import rows_of
from recbole_alkd.model.session_knn import SessionKNN
from recbole_alkd.model.table_made import EdgeSet, Made, shares, steps
from recbole_alkd.serving.manifest import COUNTS, PAIRS, REASONS
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import write_tensors

# the names of the edges that titles give: to items of like titles, and to their neighbours
TEXT, TEXT_NEIGHBORS = "text", "text_neighbors"
# So many edges may differ from those that are served: tables of earlier versions were summed in another
# order, in float32.
_ROUNDED = 1e-3


@dataclass(frozen=True)
class TableCounts:
    """What a table is made of.

    Attributes:
        partial: the counts of all sessions. number: (items of it,) the bundle's number of each.
        n_items: of the bundle, with the padding. made: how the table was made of them.
        neighbors, size: how it is cut, as ``neighbours.cut`` has them.
        fields: how its clicks are read: ``session``, ``item``, ``time``, ``list`` name columns; ``window``,
            ``time_unit``, ``min_length``, ``title_field``. text: settings of title edges, {} without them.
    """

    partial: PartialCounts
    number: np.ndarray
    n_items: int
    made: Made
    neighbors: int | None
    size: int | None
    fields: dict[str, Any]
    text: dict[str, Any]

    @classmethod
    def of(
        cls, flat: np.ndarray, offsets: np.ndarray, n_items: int, made: Made, neighbors: int | None = None,
        size: int | None = None, fields: dict[str, Any] | None = None, text: dict[str, Any] | None = None,
        ids: Sequence[str] | None = None, keys: Sequence[str] | None = None, name: str = "training",
    ) -> TableCounts:  # fmt: skip
        """Count sessions, as ``counting.training_sessions`` gives them.

        Args:
            ids: of the items 1, 2, ...; their numbers without it.
                keys: ids of the sessions; their places without it.
        """
        ids = [str(k) for k in range(1, n_items)] if ids is None else ids
        keys = [str(k) for k in range(len(offsets) - 1)] if keys is None else keys
        fields = fields or {}
        settings = CountSettings(None, LONGEST_GAP, fields.get("min_length", 2), fields.get("window"))
        partial = count_sessions(np.asarray(flat) - 1, offsets, ids, keys, settings, name)
        return cls(partial, numbers(partial, ids), n_items, made, neighbors, size, fields, text or {})

    @property
    def sessions(self) -> int:
        """How many were counted."""
        return sum(part.sessions for part in self.partial.parts)

    @cached_property
    def counts(self) -> np.ndarray:
        """In how many sessions each item is, (n_items,)."""
        counts = np.zeros(self.n_items, dtype=np.int64)
        counts[self.number] = self.partial.sessions
        return counts

    @cached_property
    def forward(self) -> csr_array:
        """F (n_items, n_items), ``counting.py``, under the gap decay of ``made``."""
        (table,) = weighed_gaps(self.partial.pairs, [self.made.how.gap_decay])
        places = (self.number[rows_of(table)], self.number[table.indices])
        table = csr_array((table.data, places), shape=(self.n_items, self.n_items))
        table.sort_indices()
        return table

    @cached_property
    def steps(self) -> list[csr_array]:
        """The whole table as it was counted, and after each set of edges."""
        return steps(self.forward, self.counts, self.made, self.neighbors, self.size)

    @cached_property
    def table(self) -> csr_array:
        """The table as it is served."""
        return self.made.served(self.steps[-1], self.counts, self.neighbors, self.size)

    def write(self, folder: Path) -> None:
        facts = {
            "how": self.made.how._asdict(), "n_items": self.n_items,
            "neighbors": self.neighbors, "size": self.size,
            "fields": self.fields, "text": self.text, "spread": self.made.spread,
            "sets": [
                {
                    "name": one.name, "weight": one.weight, "weighed": one.together is not None,
                    "most": one.most,
                }
                for one in self.made.sets
            ],
        }  # fmt: skip
        self.partial.write(folder / PAIRS)
        arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), "number": self.number}
        for k, one in enumerate(self.made.sets):
            arrays |= _arrays(f"set_{k}", one.edges if one.together is None else one.together)
        np.savez(folder / COUNTS, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path, reason: str = "export its run again") -> TableCounts:
        """What ``write`` wrote; AlkdError where there is nothing, with the reason that the bundle gives, or
        something else."""
        file = folder / COUNTS
        if not file.is_file():
            words = f"no {COUNTS} in it, so that nothing can be added to its table: {reason}"
            raise AlkdError(f"{folder}: {words}")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if "forward_data" in arrays:
                    raise AlkdError(
                        f"{file}: counts of an earlier version, which cannot be added to; "
                        "export its run again"
                    )
                facts, sets = json.loads(arrays["facts"].tobytes()), []
                for k, one in enumerate(facts["sets"]):
                    edges = _matrix(f"set_{k}", arrays)
                    together = edges if one["weighed"] else None
                    # bundles from before there were borrowed edges say nothing of them, nor of a spread
                    sets.append(
                        EdgeSet(one["name"], edges, together, float(one["weight"]), int(one.get("most", 0)))
                    )
                made = Made(Counting(**facts["how"]), tuple(sets), spread=facts.get("spread"))
                cut = facts["neighbors"], facts["size"]
                partial, number = PartialCounts.read(folder / PAIRS), arrays["number"]
                if (
                    number.shape != (len(partial.ids),)
                    or number.min(initial=1) < 1
                    or number.max(initial=0) >= facts["n_items"]
                ):
                    raise ValueError(f"{len(number)} numbers for {len(partial.ids)} items")
                return cls(partial, number, facts["n_items"], made, *cut, facts["fields"], facts["text"])
        except AlkdError:
            raise
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise AlkdError(
                f"{file}: not what a bundle keeps there ({error}); the bundle is damaged"
            ) from None


def counts_of(
    model: SessionKNN,
    train: Any,
    flat: np.ndarray,
    offsets: np.ndarray,
    fitted: dict[str, Any],
    valid: Any = None,
) -> TableCounts | str:
    """The counts of a fitted table, or why there are none.

    Args:
        model: the table. train: the part that it was fitted on. flat, offsets: its sessions.
        fitted: what the report says was chosen, for a table that was loaded; {} where nothing does.
        valid: the part that a table was chosen on which was trained alone; it is counted again.
    """
    made = model.made or _made(fitted)
    if made is None and valid is not None:
        again = copy.deepcopy(model)
        count_model(again, train, valid, logging.getLogger(), row="the table, counted again")
        made = again.made
    if fitted.get("refined_epoch") or (made is not None and made.refined):
        return "its weights were refined by gradients (knn_refine_epochs), which counts do not give again"
    if made is None:
        return (
            "it was loaded, and the lists or titles among its edges are not kept beside it; start the run "
            "anew (another checkpoint_dir), and its bundle has them"
        )
    config, text = train.config, model.text.flat() if model.text.item_text else {}
    cut = not config["benchmark_filename"]  # rows of benchmark files are sessions already
    fields = {
        "session": train.uid_field, "item": train.iid_field, "time": config["TIME_FIELD"],
        "list": train.iid_field + config["LIST_SUFFIX"], "window": config["session_window"] if cut else None,
        "time_unit": config["session_time_unit"], "min_length": config["session_min_length"] if cut else 2,
        "title_field": config["title_field"],
    }  # fmt: skip
    ids = np.asarray(train.field2id_token[train.iid_field])[1:].astype(str).tolist()
    keys = None
    if hasattr(train, "session_items"):  # then sessions come in this order
        sessions = np.unique(train.inter_feat[train.uid_field].numpy())
        keys = np.asarray(train.field2id_token[train.uid_field])[sessions].astype(str).tolist()
    counts = TableCounts.of(
        flat,
        offsets,
        train.item_num,
        made,
        model.neighbors,
        model.bytes,
        fields,
        text,
        ids,
        keys,
        str(config["dataset"]),
    )
    table, weights = counts.table, model.weights.detach().cpu().numpy()
    same = len(table.data) == len(weights) and np.array_equal(table.indices, model.indices.cpu().numpy())
    if not same or (table.data.astype(np.float16) != weights).mean() > _ROUNDED:
        return "counting its sessions again gives another table: the data set or a setting has changed"
    return counts


def write_reasons(folder: Path, counts: TableCounts) -> None:
    """Write what of every edge came from titles and from an LLM's lists, where there are such edges."""
    if not any(one.weight for one in counts.made.sets):
        return
    of_kind: dict[str, np.ndarray] = {}
    for name, share in shares(counts.steps, counts.made, counts.table).items():
        kind = "title" if name in (TEXT, TEXT_NEIGHBORS) else "llm"
        of_kind[kind] = of_kind.get(kind, 0) + share
    write_tensors(folder / REASONS, {kind: share.astype(np.float16) for kind, share in of_kind.items()})


def numbers(partial: PartialCounts, ids: Sequence[str]) -> np.ndarray:
    """The numbers that the items of counts have among ``ids``, the ids of the items 1, 2, ...;
    (items of the counts,)."""
    number = {item: k for k, item in enumerate(ids, 1)}
    return np.array([number[item] for item in partial.ids], dtype=np.int64)


def _made(fitted: dict[str, Any]) -> Made | None:
    """How a table was made, from the report of its run: of counts alone, or None."""
    if any(fitted.get(key) is None for key in Counting._fields) or fitted.get("refined_epoch"):
        return None
    if any(value for key, value in fitted.items() if key.endswith("_weight")):
        return None  # the edges themselves are in no report
    return Made(Counting(**{key: fitted[key] for key in Counting._fields}), spread=fitted.get("spread"))


def _arrays(name: str, table: csr_array) -> dict[str, np.ndarray]:
    return {f"{name}_indptr": table.indptr, f"{name}_indices": table.indices, f"{name}_data": table.data}


def _matrix(name: str, arrays: Any) -> csr_array:
    parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    n_items = len(parts[2]) - 1
    matrix = csr_array(parts, shape=(n_items, n_items))
    matrix.check_format()
    return matrix
