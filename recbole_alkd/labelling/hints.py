"""The kind of question that comes before the rankings: rules in the LLM's own words (paper, Module 1;
``teacher.hints``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from recbole_alkd.labelling.engine import Engine
from recbole_alkd.labelling.question import Kind, Question
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labelling.workers import OwnProcess, Workers
from recbole_alkd.labels.budget import Budget
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.hints import Hints, get_hints, put_hints
from recbole_alkd.labels.side import SideFile
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, LLMTeacher
from recbole_alkd.teacher.hints import read_rules

logger = logging.getLogger(__name__)


class HintKind(Kind[Hints]):
    """The hints of one teacher. They are asked for once, and also kept where they are of no use."""

    name = "hints"
    things = "hints"

    def find(self, store: LabelStore, keys: Sequence[str]) -> dict[str, Hints]:
        every = {key: get_hints(store, key) for key in keys}
        return {key: kept for key, kept in every.items() if kept}

    def put(self, store: LabelStore, kept: Sequence[Hints]) -> int:
        return sum(put_hints(store, one) for one in kept)

    def keep_aside(self, side: SideFile, kept: Sequence[Hints]) -> None:
        side.keep(hints=kept)

    def bound(self, question: Question) -> Cost:
        return self.teacher.text_costs(question.messages)[1]

    def claim(self, key: str) -> str:
        return f"hints {key}"

    def key(self, kept: Hints) -> str:
        return kept.key

    def read(self, question: Question, answer: Answer) -> Hints:
        rules = read_rules(answer.raw)
        if not rules:
            logger.warning("the LLM gave no hints that can be used; its prompts have none")
        cost = vars(answer.cost)
        return Hints(question.key, rules, answer.raw, **cost, teacher=self.identity, time=time.time())


def hint_question(
    teacher: LLMTeacher, store: LabelStore | None, supplies: Supplies | None
) -> Question | None:
    """What ``teacher`` must be asked before the first ranking; None where it has no hints,
    or ``store`` has them."""
    key = teacher.hint_key
    if key == "none" or (store is not None and get_hints(store, key)):
        return None
    if supplies is None:
        raise ValueError("hints are made of training sessions: give the supplies of the run")
    return Question("hints", key, messages=tuple(teacher.hint_messages(supplies.hint_cases())))


def hints_of(
    teacher: LLMTeacher,
    store: LabelStore,
    budget: Budget,
    supplies: Supplies | None,
    workers: Workers | None = None,
) -> tuple[tuple[str, ...] | None, Cost]:
    """The hints of ``teacher`` and what they took now; asked for when the store has none yet.
    (None, free) where it has none.

    Of several processes that want the same hints one asks, and the others wait for it.

    Raises:
        AlkdError: the budget has no room for them, or the LLM gave no answer.
    """
    key = teacher.hint_key
    if key == "none":
        return None, Cost()
    question = hint_question(teacher, store, supplies)
    if question is None:
        kept = get_hints(store, key)
        return (kept.rules if kept else ()), Cost()
    engine = Engine(HintKind(teacher), [question], workers or OwnProcess(teacher), store, budget)
    engine.run()
    if engine.ended:
        raise AlkdError(f"{engine.ended}: too little for the hints; set llm_hints: False to do without them")
    if key not in engine.known:
        raise AlkdError(
            f"llm_hints: {teacher.identity!r} gave no hints; set llm_hints: False to do without them"
        )
    return engine.known[key].rules, engine.bill.cost
