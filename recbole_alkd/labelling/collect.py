"""Turns chosen instances into labels: looked up first, asked only where missing, stored as each answer comes.

This is the one place where any teacher is asked for rankings, the controls included, so every one of them
goes through the same store and the same budget (paper, Module 2: the subset B of Eq. 1 and its rankings).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from recbole_alkd.labelling.bill import Bill
from recbole_alkd.labelling.engine import Engine
from recbole_alkd.labelling.hints import hints_of
from recbole_alkd.labelling.item_answers import kind_of
from recbole_alkd.labelling.rankings import keys_of, questions_of, ranking_questions
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labelling.workers import OwnProcess, Prepared
from recbole_alkd.labels.budget import Budget
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.label import Label
from recbole_alkd.labels.side import take_in
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.teacher.base import Instance, LLMTeacher, Materials, bound_of

__all__ = ["Bill", "Labelling", "collect_labels", "keys_of", "prepare", "questions_of"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelling:
    """The labels of one call of ``collect_labels``.

    Attributes:
        labels: row -> ok label, in the order of the instances.
        bill: what they took.
        repairs: how often the parser repaired what, summed over the answers of this run.
        ended: one sentence on the limit that ended the asking before all was asked, or None.
        missing: rows of the instances that were never asked, or whose request got no answer:
            the next run asks them.
    """

    labels: dict[int, Label]
    bill: Bill
    repairs: dict[str, int] = field(default_factory=dict)
    ended: str | None = None
    missing: tuple[int, ...] = ()


def collect_labels(
    teacher: LLMTeacher,
    instances: Sequence[Instance],
    store: LabelStore,
    budget: Budget,
    *,
    show_progress: bool,
    retry_failed: bool = False,
    supplies: Supplies | None = None,
) -> Labelling:
    """The labels of ``instances``: from the store where it has them, from the teacher where it does not.

    The teacher is prepared once, and only when a label is missing. Every answer is stored durably as it
    comes. Reused labels count towards ``budget_labels`` and cost nothing; where the instances outnumber what
    is left of ``budget_labels``, the first ones are taken. What another process is asking at this moment is
    not asked again but waited for. Failed labels are final unless ``retry_failed``;
    an answer with the status "unanswered" is not stored.

    Args:
        supplies: what the teacher's preparation may need; None: the teacher has no hints and trains no
            adapter.

    Raises:
        AlkdError: the teacher ranked what is no candidate, or one candidate twice; it took more than it said.
        KeyboardInterrupt: passed on; all labels that came are in the store, and the log says how many.
    """
    left = budget.left.labels
    asked = list(instances) if left is None else list(instances[:left])
    workers = workers_of(teacher)
    preparation = Preparation(teacher, store, budget, supplies, workers)
    keys = keys_of(teacher, asked)
    if teacher.open_identity and _must_ask(teacher, asked, keys, store, budget, retry_failed):
        preparation.do()
        keys = keys_of(teacher, asked)  # of whoever it has turned out to be
    engine = Engine(
        kind_of(teacher, asked),
        ranking_questions(keys, asked),
        workers,
        store,
        budget,
        prepare=preparation.billed,
        retry_failed=retry_failed,
        show_progress=show_progress,
    )
    try:
        engine.run()
    except KeyboardInterrupt:
        logger.warning(
            "interrupted: %d rankings are kept in %s, %d of them new; the next run resumes with them",
            len(_labels(engine, asked, keys)), store.path, engine.bill.asked,
        )  # fmt: skip
        raise
    finally:
        workers.close()
    engine.bill += Bill(cost=dataclasses.replace(preparation.left, seconds=0.0))
    if not workers.instant:
        engine.check_store()
    return _labelling(engine, instances, asked, keys)


def workers_of(teacher: LLMTeacher) -> Prepared:
    """Who answers: ``teacher``, or the actors of a Ray cluster (``label_engine``)."""
    settings = teacher.context.settings.teacher
    if settings.label_engine == "ray":
        from recbole_alkd.labelling.ray_workers import RayWorkers

        return RayWorkers(teacher, settings.ray_address)
    return OwnProcess(teacher)


class Preparation:
    """What comes before a teacher's first ranking: done once, and on the bill once."""

    def __init__(
        self,
        teacher: LLMTeacher,
        store: LabelStore,
        budget: Budget,
        supplies: Supplies | None,
        workers: Prepared,
    ) -> None:
        self._made = (teacher, store, budget, supplies, workers)
        self._done = False
        self._unbilled = Cost()

    def do(self) -> None:
        """Do it, unless it is done."""
        if not self._done:
            self._unbilled, self._done = prepare(*self._made), True

    def billed(self) -> Cost:
        """Do it, unless it is done; what it took, where no bill has that yet."""
        self.do()
        cost, self._unbilled = self._unbilled, Cost()
        return cost

    @property
    def left(self) -> Cost:
        """What it took and no bill has."""
        return self._unbilled


def _must_ask(
    teacher: LLMTeacher,
    instances: Sequence[Instance],
    keys: Sequence[str],
    store: LabelStore,
    budget: Budget,
    retry_failed: bool,
) -> bool:
    """Whether a label is missing and the budget allows a request about it:
    nothing is loaded or trained otherwise."""
    take_in(store)
    stored = store.get_many(list(dict.fromkeys(keys)))
    known = {key for key, label in stored.items() if label.status == "ok" or not retry_failed}
    first = next((one for one, key in zip(instances, keys, strict=True) if key not in known), None)
    if first is None:
        return False
    most = bound_of(teacher, first)
    reservation = budget.reserve(most.tokens, most.usd)
    if reservation is None:
        return False
    reservation.release()
    return True


def prepare(
    teacher: LLMTeacher,
    store: LabelStore,
    budget: Budget,
    supplies: Supplies | None,
    workers: Prepared | None = None,
) -> Cost:
    """Make what ``teacher`` needs before its first ranking, and let it load and train;
    what that took of an LLM. ``workers`` are told."""
    hints, cost = hints_of(teacher, store, budget, supplies)
    materials = supplies.materials(teacher, hints) if supplies else Materials(hints)
    cost = cost + teacher.prepare_with(materials, budget, store)
    if workers:
        workers.ready(materials)
    return cost


def _labels(engine: Engine[Label], asked: Sequence[Instance], keys: Sequence[str]) -> dict[int, Label]:
    pairs = ((instance.row, engine.known.get(key)) for instance, key in zip(asked, keys, strict=True))
    return {row: label for row, label in pairs if label is not None and label.status == "ok"}


def _labelling(
    engine: Engine[Label], instances: Sequence[Instance], asked: Sequence[Instance], keys: Sequence[str]
) -> Labelling:
    labels = _labels(engine, asked, keys)
    # never asked: the budget ended first
    waiting = sum(question.labels for question in engine.missing.values())
    bill = dataclasses.replace(engine.bill, failed=len(asked) - waiting - len(labels))
    known = {instance.row for instance, key in zip(asked, keys, strict=True) if key in engine.known}
    missing = tuple(instance.row for instance in instances if instance.row not in known)
    ended = engine.ended
    if ended is None and len(instances) > len(asked):
        ended = f"budget_labels: only {len(asked)} of {len(instances)} instances fit what was left"
    _report(labels, bill, ended, missing)
    return Labelling(labels, bill, dict(engine.repairs), ended, missing)


def _report(labels: dict[int, Label], bill: Bill, ended: str | None, missing: Sequence[int]) -> None:
    # tokens, time and money are in the bill of the run
    words = "labels: %d usable, %d of them from the store, %d failed"
    logger.info(words, len(labels), bill.reused, bill.failed)
    if ended:
        logger.warning(
            "labelling ended before all was asked: %s; %d instances are without a label", ended, len(missing)
        )
