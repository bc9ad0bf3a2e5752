"""Who answers the engine's questions. The engine, in the process that drives, owns store, budget
and claims."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Protocol

from recbole_alkd.labelling.question import Question
from recbole_alkd.labels.budget import Reservation
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, Asking, Instance, LLMTeacher, Materials

Answered = list[tuple[Question, Answer]]


class Workers(Protocol):
    """Questions in, answers out: the teacher in this process, or others of the same settings elsewhere.

    Questions, answers, a teacher's context (without ``log_metric``) and its materials are data,
    so they can be sent.

    Attributes:
        chunk: how many questions are handed over at most.
        instant: whether answers take no time and cost nothing.
    """

    @property
    def chunk(self) -> int: ...

    @property
    def instant(self) -> bool: ...

    def answers(
        self,
        questions: Sequence[Question],
        may_send: Callable[[Question], bool],
        reservations: Mapping[str, Reservation],
        has_answered: Callable[[], bool],
    ) -> Iterator[Answered]:
        """Answer the questions in any order, each as soon as its answer is there,
        those of one moment together.

        Args:
            may_send: called just before a question is sent; False: it must not be, and nothing is answered
                for it. AlkdError: nothing more must be sent.
            reservations: key -> what is reserved for it.
            has_answered: whether the store has an answer of this teacher.
        """
        ...

    def stop(self) -> bool:
        """Send nothing more. Whether answers that are on their way still come."""
        ...


class Prepared(Workers, Protocol):
    """Workers that know when the teacher of this process is prepared, and that are ended."""

    def ready(self, materials: Materials) -> None:
        """Called once, before the first question: the teacher here was prepared, with ``materials``."""
        ...

    def close(self) -> None:
        """Give processes back. It can be called at any time; the teacher here is not closed."""
        ...


class OwnProcess:
    """``Workers`` that are one teacher, with what threads or event loop it has, in this process."""

    def __init__(self, teacher: LLMTeacher) -> None:
        self.teacher = teacher

    @property
    def chunk(self) -> int:
        return self.teacher.chunk

    @property
    def instant(self) -> bool:
        return self.teacher.instant

    def stop(self) -> bool:
        return self.teacher.stop()

    def ready(self, materials: Materials) -> None:
        """The teacher itself answers."""

    def close(self) -> None:
        """There is nothing but the teacher."""

    def answers(
        self,
        questions: Sequence[Question],
        may_send: Callable[[Question], bool],
        reservations: Mapping[str, Reservation],
        has_answered: Callable[[], bool],
    ) -> Iterator[Answered]:
        """See ``Workers``. Of a teacher that does not ask for leave, all questions count as sent at once."""
        rankings = {question.number: question for question in questions if question.instance}
        for question in questions:
            if not question.instance and may_send(question):
                yield [(question, self.teacher.write(question.messages, reservations.get(question.key)))]
        if not rankings:
            return

        def may_ask(instance: Instance) -> bool:
            return may_send(rankings[instance.row])

        held = {row: reservations[one.key] for row, one in rankings.items() if one.key in reservations}
        instances = [one.instance for one in rankings.values() if one.instance]
        if not self.teacher.says_when_it_sends and not self.instant:
            instances = [one for one in instances if may_ask(one)]
        groups = self.teacher.answers(instances, Asking(may_ask, held, has_answered))
        try:
            for group in groups:
                yield [(self._asked(rankings, instance), answer) for instance, answer in group]
        finally:
            if isinstance(groups, Generator):
                groups.close()

    def _asked(self, rankings: Mapping[int, Question], instance: Instance) -> Question:
        question = rankings.get(instance.row)
        if question is None:
            raise AlkdError(
                f"llm_teacher: {self.teacher.identity!r} answered session {instance.session!r}, "
                "which it was not asked about"
            )
        return question
