"""The labels of a run of several processes: the leader selects and asks, all are given what is distilled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.learner.base import Lesson
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.groups import Settings
from recbole_alkd.trainer.labels import Asking, RunLabels


class GroupLabels:
    """What ``RunLabels`` is to a run of one process.

    Args:
        labels: this process's, which only the leader's asks with. run: whose labels they are.
    """

    def __init__(self, labels: RunLabels, run: Asking, group: Group) -> None:
        self._labels, self._run, self._group = labels, run, group

    @property
    def rounds(self) -> LabelRounds:
        """The labels, round by round; the leader has them."""
        return self._labels.rounds

    @property
    def asked(self) -> bool:
        return self._labels.asked

    @property
    def lora_report(self) -> dict[str, Any] | None:
        return self._labels.lora_report

    def check(self) -> None:
        """As ``RunLabels.check``, by the leader."""
        if self._group.leads:
            self._labels.check()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The LLM teacher lives meanwhile, with the leader."""
        with ExitStack() as teacher:
            if self._group.leads:
                with self._group.alone():
                    teacher.enter_context(self._labels.asking())
            yield

    def ask(self, number: int) -> None:
        """Round ``number``; recommenders that are cross-fitted for it are trained by the leader alone."""
        self._group.from_leader(lambda: self._labels.ask(number))

    def lesson(self, settings: Settings) -> Lesson:
        """What is distilled of the labels, in every process."""
        own: list[Lesson] = []

        def lists() -> Any:
            own.append(self._labels.lesson(settings))
            return [*own[0].lists, [int(row) for row in own[0].labelled]]

        place, rankings, candidates, labelled = self._group.from_leader(lists)
        if own:
            return own[0]
        run, state = self._run, self._run.outcomes["student"].state
        part = self._labels.part()
        return Lesson(settings, run.recommender, (place, rankings, candidates), labelled, state, part)
