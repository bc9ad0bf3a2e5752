"""What may be labelled, row by row: what policies, prompts and distillation ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.active.game import Counts
from recbole_alkd.active.policy.base import Pool
from recbole_alkd.active.ratio import KINDS, classify
from recbole_alkd.labelling.candidates import insert_target, top_candidates
from recbole_alkd.labelling.examples import LoraExamples
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.scoring import in_batches, mean_ranks
from recbole_alkd.settings.field import fields_of
from recbole_alkd.settings.groups import Settings, TrainingSettings
from recbole_alkd.settings.identity import settings_hash
from recbole_alkd.teacher.base import Instance

# What decides a teacher recommender besides the data.
RECOMMENDER_KEYS = (
    "seed", "teacher_model", "teacher_embedding_size", "teacher_config", "learning_rate", "learner",
    "weight_decay",
    "train_batch_size", "epochs", "eval_step", "stopping_step", "valid_metric", "mask_session_items",
    "MAX_ITEM_LIST_LENGTH",
    "session_augmentation", *fields_of(TrainingSettings),
)  # fmt: skip
# What decides the LoRA examples: the fold recommenders and their lists.
LORA_KEYS = (*RECOMMENDER_KEYS, "llm_candidates", "lora_examples", "lora_folds")
# What decides the cases that hints are made of.
HINT_KEYS = (*RECOMMENDER_KEYS, "llm_hint_cases")


class Rows(ABC):
    """What may be labelled, row by row: training rows (``TrainingRows``), or items (``item_rows.ItemRows``).

    Attributes:
        dataset: the training part of a data set. settings: the run's.
        recommender_config: what the teacher recommender was trained with. unit: ``alkd_unit``.
        item_seq (n, L), item_seq_len (n,), target (n,): the rows on the CPU; a target of 0 is none.
        tokens: (n_items,) of all items. sessions: (n,) what each row is called.
        part: a data set of these rows alone, of which a student learns labels.
            first: the ``alkd_row`` of its first row.
    """

    unit: ClassVar[str]
    instance: ClassVar[type[Instance]] = Instance
    first: int = 0
    dataset: Any
    part: Any
    recommender_config: Any
    settings: Settings
    item_field: str
    item_seq: Tensor
    item_seq_len: Tensor
    target: Tensor
    tokens: np.ndarray
    sessions: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all rows in tokens."""

    @abstractmethod
    def check_candidates(self) -> None:
        """AlkdError when some row leaves fewer items than ``llm_candidates``."""

    @abstractmethod
    def check_budget(self) -> None:
        """PoolExhausted when ``budget_labels`` is more than the rows that may be labelled."""

    @abstractmethod
    def pool_rows(self, can_label: Callable[[Sequence[str]], list[bool]]) -> np.ndarray:
        """Row ids that may be labelled, under the teacher's own limits too. AlkdError when there are none."""

    @abstractmethod
    def hint_cases(self, teacher: Backbone, device: torch.device) -> list[Instance]:
        """Cases of which an LLM makes hints, each with the teacher recommender's own best items as
        candidates."""

    @abstractmethod
    def examples(self, folds: Folds) -> LoraExamples:
        """The examples that a local LLM's adapter is trained on, and judged by."""

    @abstractmethod
    def _difficulty(self, rows: np.ndarray, teacher: Backbone, device: torch.device) -> np.ndarray:
        """How hard rows are, (m,); larger is harder."""

    @abstractmethod
    def _fold_of(self, rows: np.ndarray, folds: Folds) -> np.ndarray:
        """The fold of the session that the target of each row comes from, (m,)."""

    def pool(
        self,
        rows: np.ndarray,
        teacher: Backbone,
        student: Backbone,
        device: torch.device,
        counts: Counts | None = None,
    ) -> Pool:
        """The pool of ``rows`` as a policy sees it; difficulty and the like are computed when they are asked
        for.

        ``counts``: numbers of effective, similar and incorrect labels to assume, where evidence gives them.
        """
        index = torch.as_tensor(rows)
        seq, length = self.item_seq[index].to(device), self.item_seq_len[index].to(device)

        def batched(function: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
            return in_batches(student, seq, length, lambda s, n, _: function(s, n)).double().numpy()

        def entropy(s: Tensor, n: Tensor) -> Tensor:
            log_p = torch.log_softmax(student.scores(s, n)[:, 1:], dim=1)
            return -(log_p.exp() * log_p).sum(1)

        def disagreement(s: Tensor, n: Tensor) -> Tensor:
            size = min(20, len(self.tokens) - 1)
            ours = student.scores(s, n)[:, 1:].topk(size).indices
            theirs = teacher.scores(s, n)[:, 1:].topk(size).indices
            return 1 - (ours.unsqueeze(2) == theirs.unsqueeze(1)).any(2).float().mean(1)

        return Pool(
            sessions=self.sessions[rows],
            difficulty=lambda: self._difficulty(rows, teacher, device),
            entropy=lambda: batched(entropy),
            disagreement=lambda: batched(disagreement),
            counts=counts,
        )

    def instances(
        self,
        rows: np.ndarray,
        teacher: Backbone,
        device: torch.device,
        size: int | None = None,
        inject: bool | None = None,
    ) -> list[Instance]:
        """What the LLM teacher is asked about ``rows``: history and candidates in tokens.

        Args:
            size: candidates of a session; None: ``llm_candidates``.
            inject: whether the true next item is put among them; None: ``llm_inject_target``.
        """
        size = size or self.settings.teacher.llm_candidates
        shown = self.tokens[self._candidates(np.asarray(rows), teacher, device, size, inject).cpu().numpy()]
        return [
            self.instance(
                row=int(row),
                session=str(self.sessions[row]),
                history=tuple(self.tokens[self.item_seq[row, : self.item_seq_len[row]].numpy()].tolist()),
                candidates=tuple(shown[place].tolist()),
            )
            for place, row in enumerate(rows)
        ]

    def _candidates(
        self, rows: np.ndarray, teacher: Backbone, device: torch.device, size: int, inject: bool | None
    ) -> Tensor:
        """Candidates of the rows, (m, size), in the teacher recommender's order."""
        index = torch.as_tensor(rows, dtype=torch.long)
        seq, length = self.item_seq[index].to(device), self.item_seq_len[index].to(device)
        candidates = top_candidates(teacher, seq, length, size)
        if self.settings.teacher.llm_inject_target if inject is None else inject:
            candidates, _ = insert_target(candidates, self.target[index].to(candidates.device))
        return candidates

    def lists(
        self, rankings: Mapping[int, Sequence[str]], candidates: Mapping[int, Sequence[str]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels as item ids.

        Returns:
            The place of each ``alkd_row`` in the lists (first + n,), -1 without a label; the lists (m,
            top_n); the candidates (m, c). Both tables are 0-padded.
        """
        token_id = self.dataset.field2token_id[self.item_field]
        place = torch.full((self.first + len(self),), -1, dtype=torch.long)
        place[self.first + torch.as_tensor(list(rankings), dtype=torch.long)] = torch.arange(len(rankings))
        lists = torch.zeros(len(rankings), self.settings.teacher.llm_top_n, dtype=torch.long)
        shown = torch.zeros(len(rankings), self.settings.teacher.llm_candidates, dtype=torch.long)
        for i, (row, ranking) in enumerate(rankings.items()):
            for table, tokens in ((lists, ranking), (shown, candidates[row])):
                # recorded rankings may name items that this data set does not have
                ids = [token_id[token] for token in tokens if token in token_id][: table.shape[1]]
                table[i, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
        return place, lists, shown

    def target_tokens(self, rows: Sequence[int]) -> list[str]:
        """The true next items of ``rows``, as tokens."""
        return self.tokens[self.target[torch.as_tensor(rows, dtype=torch.long)].numpy()].tolist()

    def lora_key(self, recorded: str = "") -> str:
        """A hash of all that decides the LoRA examples. ``recorded``: of the rankings that they imitate."""
        own: dict[str, Any] = {"lora_examples": self.settings.lora_examples}
        if self.settings.lora.only_natural:
            own["lora_inserted"] = False
        if self.settings.lora.lora_held_out is not None:
            own["lora_held_out"] = self.settings.lora.lora_held_out
        return self._key(LORA_KEYS, {**own, "recorded": recorded} if recorded else own)

    def hint_key(self) -> str:
        """A hash of all that decides the cases for hints."""
        return self._key(HINT_KEYS)

    def _key(self, names: Sequence[str], more: Mapping[str, Any] = MappingProxyType({})) -> str:
        config = self.recommender_config
        return settings_hash({"data": self.fingerprint(), **{name: config[name] for name in names}, **more})

    def kinds(self, rows: Sequence[int], rankings: Mapping[int, Sequence[str]], folds: Folds) -> np.ndarray:
        """Whether the labels of ``rows`` turned out effective,
        similar or incorrect (``active.ratio.classify``), (m,).

        The recommender's rank of the true next item is that of the fold recommender that never saw the
        session, among all items outside of it. A row without a usable ranking counts as one that does not
        hold the item. A row without a next item (an item that no other follows) is incorrect,
        which is the worst that it can be.
        """
        index = np.asarray(rows)
        llm = np.zeros(len(index), dtype=np.int64)
        for k, row in enumerate(index):
            ranking = list(rankings.get(int(row), ()))
            target = str(self.tokens[self.target[row]])
            llm[k] = ranking.index(target) + 1 if target in ranking else 0
        recommender = np.zeros(len(index))
        fold_of = self._fold_of(index, folds)
        for fold, view in enumerate(folds.views):
            mine = np.flatnonzero((fold_of == fold) & (self.target[torch.as_tensor(index)].numpy() > 0))
            if len(mine):
                recommender[mine] = self._ranks(view, index[mine])
        ends = [int(end) for end, _ in self.settings.distill.kd_position_weight]
        kinds = classify(llm, recommender, ends)
        kinds[self.target[torch.as_tensor(index)].numpy() == 0] = KINDS.index("incorrect")
        return kinds

    def _ranks(self, view: Backbone, rows: np.ndarray) -> np.ndarray:
        """``mean_ranks`` of the rows' targets among the items outside of their sessions, (m,)."""
        index = torch.as_tensor(rows)
        target = self.target[index]

        def ranks(seq: Tensor, length: Tensor, batch: slice) -> Tensor:
            own, scores = target[batch].to(seq.device).unsqueeze(1), view.scores(seq, length)
            outside = scores.scatter(1, seq, -torch.inf).scatter(1, own, scores.gather(1, own))
            return mean_ranks(outside, own.squeeze(1))

        return in_batches(view, self.item_seq[index], self.item_seq_len[index], ranks).numpy()
