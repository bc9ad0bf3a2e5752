"""The kind of question that this package is about: rank the candidates of an instance.
A ``Label`` comes of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from recbole_alkd.labelling.question import Kind, Question
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.label import Label, label_key, to_row
from recbole_alkd.labels.side import SideFile
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, bound_of

logger = logging.getLogger(__name__)
_LONGEST_RAW = 1_000_000  # characters of an answer that are kept


def keys_of(teacher: LLMTeacher, instances: Sequence[Instance]) -> list[str]:
    """The label key of every instance."""
    identity = teacher.identity
    return [label_key(i.history, i.candidates, teacher.prompt(i), identity) for i in instances]


def questions_of(teacher: LLMTeacher, instances: Sequence[Instance]) -> dict[str, Instance]:
    """Label key -> the first instance that asks for it, in the order of the instances."""
    questions: dict[str, Instance] = {}
    for key, instance in zip(keys_of(teacher, instances), instances, strict=True):
        questions.setdefault(key, instance)
    return questions


def ranking_questions(keys: Sequence[str], instances: Sequence[Instance]) -> list[Question]:
    """A question for every distinct key, which counts as all the instances that have it."""
    first: dict[str, Instance] = {}
    for key, instance in zip(keys, instances, strict=True):
        first.setdefault(key, instance)
    counts = Counter(keys)
    return [Question(one.kind, key, one.row, counts[key], one) for key, one in first.items()]


class Rankings(Kind[Label]):
    """Rankings by one teacher, kept as labels."""

    name = "ranking"
    things = "labels"

    def find(self, store: LabelStore, keys: Sequence[str]) -> dict[str, Label]:
        return store.get_many(keys)

    def put(self, store: LabelStore, kept: Sequence[Label]) -> int:
        return store.put_many(kept)

    def keep_aside(self, side: SideFile, kept: Sequence[Label]) -> None:
        side.keep(kept)

    def bound(self, question: Question) -> Cost:
        assert question.instance is not None
        return bound_of(self.teacher, question.instance)

    def key(self, kept: Label) -> str:
        return kept.key

    def is_usable(self, kept: Label) -> bool:
        return kept.status == "ok"

    def read(self, question: Question, answer: Answer) -> Label:
        instance = question.instance
        assert instance is not None
        common: dict[str, Any] = {
            "key": question.key,
            "candidates": instance.candidates,
            **vars(answer.cost),
            "teacher": self.identity,
            "time": time.time(),
        }
        raw = answer.raw if isinstance(answer.raw, str) else repr(answer.raw)
        raw = raw[:_LONGEST_RAW]
        usable = answer.status == "ok" and bool(answer.ranking)
        try:
            if usable and not _is_ranking(answer.ranking, instance, self.teacher.ranks_candidates_only):
                return Label(ranking=(), raw=raw, repairs={}, status="failed", **common)
            status = "ok" if usable else "failed"
            ranking = answer.ranking if usable else ()
            label = Label(ranking=ranking, raw=raw, repairs=answer.repairs, status=status, **common)
            to_row(label)
            return label
        except Exception as error:
            logger.warning(
                "%s: the answer cannot be stored as it is (%s): a failed label", question.name, error
            )
            return Label(
                ranking=(), raw=raw or repr(answer)[:_LONGEST_RAW], repairs={}, status="failed", **common
            )

    def problem(self, question: Question, answer: Answer, kept: Label) -> str | None:
        if answer.status == "ok" and answer.ranking and kept.status == "failed":
            return (
                f"llm_teacher: {self.identity!r} answered {question.name} with a ranking that is not made of "
                "distinct "
                f"candidates: {answer.ranking!r:.300}; it is kept as a failed label"
            )
        return None


def _is_ranking(ranking: Sequence[str], instance: Instance, candidates_only: bool) -> bool:
    items = set(ranking)
    return len(items) == len(ranking) and (not candidates_only or items <= set(instance.candidates))
