"""Items as what may be labelled (``alkd_unit: item``): a row is an item of the training sessions, as a
session of this one item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_alkd.active.difficulty import item_difficulty
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.data.columns import ROW_FIELD
from recbole_alkd.labelling.candidates import top_candidates
from recbole_alkd.labelling.examples import ItemExamples, LoraExamples
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.labelling.item_neighbours import ItemNeighbours, merged
from recbole_alkd.labelling.training_rows import HINT_LIST, Rows, TrainingRows
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.scoring import in_batches
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import Instance, ItemInstance


class ItemRows(Rows):
    """The items of the training sessions, each as a session of one item.

    ``target`` is the next item in one training session with the item, drawn by the run's seed, or 0 where no
    other item follows it in any: a pilot judges answers by it, and nothing else looks at it. Candidates are
    the counted neighbours of the item, its neighbours by title and the teacher recommender's best for it,
    taken in turn. No target is put among them: what sessions say is there already.

    Args:
        training: the training rows. neighbours: what counts and titles say.

    Attributes:
        items: (n,) the item of each row, as its internal id. hardness: (n,) ``item_difficulty``.
    """

    unit = "item"
    instance: ClassVar[type[Instance]] = ItemInstance

    def __init__(self, training: TrainingRows, neighbours: ItemNeighbours) -> None:
        self.training, self.neighbours = training, neighbours
        self.dataset, self.settings = training.dataset, training.settings
        self.recommender_config, self.item_field, self.tokens = (
            training.recommender_config,
            training.item_field,
            training.tokens,
        )
        self.items = np.flatnonzero(neighbours.times)
        self.sessions = self.tokens[self.items]
        self.first = len(training)
        # as wide as training rows: some backbones size their position embeddings by it
        self.item_seq = torch.zeros(len(self.items), training.item_seq.shape[1], dtype=torch.long)
        self.item_seq[:, 0] = torch.from_numpy(self.items)
        self.item_seq_len = torch.ones(len(self.items), dtype=torch.long)
        target, self._drawn_from = self._draw()
        self.target = torch.from_numpy(target)
        self.part = self._part()
        agreement = neighbours.agreement
        self.hardness = item_difficulty(
            neighbours.times[self.items], None if agreement is None else agreement[self.items]
        )

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        """The item after each item in a random session with it (0: none), and that session's internal id;
        both (n,)."""
        flat, offsets = training_sessions(self.dataset)
        session = np.repeat(np.unique(self.training.session_ids), np.diff(offsets))
        here = np.flatnonzero(np.r_[session[1:] == session[:-1], False] & np.r_[flat[1:] != flat[:-1], False])
        rng = np.random.default_rng(stage_seed(self.dataset.config["seed"], "items"))
        here = rng.permutation(here)
        item, first = np.unique(flat[here], return_index=True)
        place = np.full(len(self.tokens), -1)
        place[item] = here[first]
        at = place[self.items]
        return np.where(at < 0, 0, flat[at + 1]), np.where(at < 0, session[0], session[at])

    def _part(self) -> Any:
        data, config = self.dataset, self.dataset.config
        return data.copy(
            Interaction(
                {
                    data.uid_field: torch.from_numpy(self._drawn_from.astype(np.int64)),
                    self.item_field + config["LIST_SUFFIX"]: self.item_seq,
                    self.item_field: self.target,
                    config["ITEM_LIST_LENGTH_FIELD"]: self.item_seq_len,
                    ROW_FIELD: self.first + torch.arange(len(self.items)),
                }
            )
        )

    def fingerprint(self) -> str:
        """A hash of the training rows, which decide all of this, and of the title neighbours."""
        digest = hashlib.sha256(f"items {self.training.fingerprint()}".encode())
        if self.neighbours.titles is not None:
            digest.update(self.neighbours.titles.indices.tobytes())
        return digest.hexdigest()[:16]

    def check_candidates(self) -> None:
        size, left = self.settings.teacher.llm_candidates, len(self.tokens) - 2
        if left < size:
            raise AlkdError(
                f"llm_candidates: {size} is more than the {left} other items; allowed: at most {left}"
            )

    def check_budget(self) -> None:
        wanted = self.settings.selection.budget_labels
        if wanted > len(self):
            raise PoolExhausted(len(self), wanted)

    def pool_rows(self, can_label: Callable[[Sequence[str]], list[bool]]) -> np.ndarray:
        rows = np.flatnonzero(np.asarray(can_label(self.sessions.tolist()), dtype=bool))
        if not len(rows):
            raise AlkdError(
                f"the pool is empty: llm_teacher {self.settings.teacher.llm_teacher!r} can label none "
                "of the items (for replay: are the recorded item ids those of this data set?)"
            )
        return rows

    def hint_cases(self, teacher: Backbone, device: torch.device) -> list[Instance]:
        """Random items, each with the teacher recommender's own best items as candidates."""
        rng = np.random.default_rng(stage_seed(self.dataset.config["seed"], "hints"))
        rows = rng.permutation(len(self))[: self.settings.teacher.llm_hint_cases]
        size, index = min(HINT_LIST, len(self.tokens) - 2), torch.as_tensor(rows)
        best = top_candidates(
            teacher, self.item_seq[index].to(device), self.item_seq_len[index].to(device), size
        )
        shown = self.tokens[best.numpy()]
        return [
            ItemInstance(
                int(row), str(self.sessions[row]), (str(self.sessions[row]),), tuple(shown[place].tolist())
            )
            for place, row in enumerate(rows)
        ]

    def examples(self, folds: Folds) -> LoraExamples:
        return ItemExamples(self.training, folds)

    def _candidates(
        self, rows: np.ndarray, teacher: Backbone, device: torch.device, size: int, inject: bool | None
    ) -> Tensor:
        """Counted, title and recommended neighbours in turn, then in the teacher recommender's order."""

        def chosen(seq: Tensor, length: Tensor, batch: slice) -> Tensor:
            scores = teacher.scores(seq, length).float()
            scores[:, 0] = -torch.inf
            scores.scatter_(1, seq, -torch.inf)
            recommended = scores.topk(size, dim=1).indices.cpu().tolist()
            own = self.items[rows[batch]].tolist()
            lists = [
                merged([*self.neighbours.best(i, size), best], size)
                for i, best in zip(own, recommended, strict=True)
            ]
            candidates = torch.tensor(lists, device=scores.device)
            return candidates.gather(
                1, scores.gather(1, candidates).argsort(dim=1, descending=True, stable=True)
            )

        index = torch.as_tensor(rows, dtype=torch.long)
        if not len(rows):
            return torch.empty(0, size, dtype=torch.long)
        return in_batches(
            teacher, self.item_seq[index].to(device), self.item_seq_len[index].to(device), chosen
        )

    def _difficulty(self, rows: np.ndarray, teacher: Backbone, device: torch.device) -> np.ndarray:
        return self.hardness[rows]

    def _fold_of(self, rows: np.ndarray, folds: Folds) -> np.ndarray:
        return folds.fold_of_session[np.searchsorted(folds.sessions, self._drawn_from[rows])]

    def _key(self, names: Sequence[str], more: Mapping[str, Any] = MappingProxyType({})) -> str:
        return super()._key(names, {**more, "unit": self.unit})
