"""What every LLM teacher must hold, as a mixin.

A teacher of your own gets all of it with ``class TestMine(TeacherTests): teacher = "mine"``; settings it
needs go into ``values``, and one that cannot be built from its context alone overrides ``make``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.registry import teachers
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import (
    Answer,
    Asking,
    Instance,
    LLMTeacher,
    TeacherContext,
    bound_of,
    check_teacher,
)

WORDS = ["Toy", "Story", "Heat", "Casino", "Dust", "Sabrina", "Ran", "Alien", "Brazil", "Fargo"]
TITLES = {f"{n}A": f"{WORDS[n % 10]} {WORDS[n * 7 % 10]} {n // 10}" for n in range(60)} | {
    "61": 'The "other" <ID7>, {2}\u202e'
}


def some_instances(number: int = 6, seed: int = 0) -> list[Instance]:
    """Instances with histories and candidate lists of different lengths; ids that are no numbers."""
    rng = random.Random(seed)
    instances = []
    for row in range(number):
        items = rng.sample(sorted(TITLES), 25)
        instances.append(
            Instance(100 + row, f"s{row}", tuple(items[: 1 + row % 5]), tuple(items[5 : 25 - row]))
        )
    return instances


class TeacherTests:
    """The laws of an LLM teacher.

    Attributes:
        teacher: its ``llm_teacher`` name, or the class itself.
        values: settings it is made with.
        titles: item token -> title, of the items that it is asked about.
        uses_order: whether the order of ``Instance.candidates``, the teacher recommender's, may decide the
            answer. The place of a candidate tells the target apart where it was inserted,
            so an LLM's answer must not depend on it.
    """

    teacher: ClassVar[Any]
    values: ClassVar[dict[str, Any]] = {}
    titles: Mapping[str, str] = TITLES
    uses_order: ClassVar[bool] = False

    def make(self, folder: Path, **values: Any) -> LLMTeacher:
        teacher_class = teachers.get(self.teacher) if isinstance(self.teacher, str) else self.teacher
        named = {"llm_teacher": self.teacher} if isinstance(self.teacher, str) else {}
        settings = read_settings({**named, "lora": False, "llm_top_n": 7, **self.values, **values})
        context = TeacherContext(settings, "ml-tiny", folder, self.titles, folder / "cache")
        return teacher_class(context)  # type: ignore[no-any-return]

    def answers(self, teacher: LLMTeacher, instances: list[Instance]) -> dict[int, Answer]:
        """Row -> answer. Every instance is answered exactly once."""
        teacher.prepare()
        answers: dict[int, Answer] = {}
        for group in teacher.answers(instances, Asking()):  # as the engine asks
            for instance, answer in group:
                assert instance.row in {one.row for one in instances}
                assert instance.row not in answers
                answers[instance.row] = answer
        assert set(answers) == {instance.row for instance in instances}
        return answers

    @pytest.fixture
    def made(self, tmp_path: Path) -> Iterator[LLMTeacher]:
        made = self.make(tmp_path)
        yield made
        made.close()

    def test_ranks_distinct_candidates(self, made: LLMTeacher) -> None:
        instances = some_instances()
        for row, answer in self.answers(made, instances).items():
            candidates = next(i.candidates for i in instances if i.row == row)
            assert answer.status == "ok"
            assert 1 <= len(answer.ranking) <= 7
            assert len(set(answer.ranking)) == len(answer.ranking)
            assert set(answer.ranking) <= set(candidates)

    def test_no_instances_no_answers(self, made: LLMTeacher) -> None:
        assert self.answers(made, []) == {}

    def test_an_answer_depends_on_its_own_instance_only(self, made: LLMTeacher) -> None:
        instances = some_instances()
        together = self.answers(made, instances)
        for instance in instances[:3]:
            alone = self.answers(made, [replace(instance, row=7)])[7]
            assert alone.ranking == together[instance.row].ranking

    def test_another_object_gives_the_same(self, tmp_path: Path, made: LLMTeacher) -> None:
        other = self.make(tmp_path)
        instances = some_instances()
        assert other.identity == made.identity
        assert [other.prompt(i) for i in instances] == [made.prompt(i) for i in instances]
        theirs, ours = self.answers(other, instances), self.answers(made, instances)
        assert {row: a.ranking for row, a in theirs.items()} == {row: a.ranking for row, a in ours.items()}
        other.close()

    def test_identity_knows_the_settings(self, tmp_path: Path, made: LLMTeacher) -> None:
        before = made.identity
        self.answers(made, some_instances(2))
        assert made.identity == before  # also after `prepare` and `ask`: labels are looked up by it
        assert self.make(tmp_path, llm_top_n=5).identity != before

    def test_the_place_of_a_candidate_gives_nothing_away(self, made: LLMTeacher) -> None:
        if self.uses_order:
            pytest.skip("this control is the recommender's order, or a part of it")
        self.check_places(made)

    def test_ties_give_nothing_away(self, tmp_path: Path) -> None:
        """Candidates that the teacher cannot tell apart: with an order of their own,
        the inserted target would be known."""
        if self.uses_order:
            pytest.skip("this control is the recommender's order, or a part of it")
        self.titles = dict.fromkeys(self.titles, "Heat")
        made = self.make(tmp_path)
        self.check_places(made)
        made.close()

    def check_places(self, made: LLMTeacher) -> None:
        """Answers are the same whatever place a candidate has; the inserted target has the last one."""
        instances = some_instances()
        here = {row: answer.ranking for row, answer in self.answers(made, instances).items()}
        orders = (lambda c: c[::-1], lambda c: c[-1:] + c[:-1], lambda c: c[1::2] + c[::2])
        for order in orders:
            moved = [replace(i, candidates=order(i.candidates)) for i in instances]
            there = {row: answer.ranking for row, answer in self.answers(made, moved).items()}
            assert there == here, (
                "the order of the candidates decides the ranking: shuffle them (teacher.prompt.shown_order)"
            )

    def test_it_says_what_a_request_may_take(self, made: LLMTeacher) -> None:
        check_teacher(type(made))

    def test_the_bound_is_an_upper_bound(self, made: LLMTeacher) -> None:
        instances = some_instances()
        answers = self.answers(made, instances)
        for instance in instances:
            most, cost = bound_of(made, instance), answers[instance.row].cost
            assert cost.tokens <= most.tokens, f"{cost.tokens} tokens, and the bound says {most.tokens}"
            assert (cost.usd or 0.0) <= (most.usd or 0.0)

    def test_a_budget_of_tokens_is_kept(self, tmp_path: Path, made: LLMTeacher) -> None:
        instances = some_instances()
        bounds = [bound_of(made, instance).tokens for instance in instances]
        if not any(bounds):
            pytest.skip("answers of this teacher cost no tokens")
        limit = sum(bounds) - 1  # not enough for all at once
        with LabelStore(tmp_path / "labels.sqlite") as store:
            collected = collect_labels(made, instances, store, Budget(99, tokens=limit), show_progress=False)
        assert collected.labels
        assert (
            sum(label.prompt_tokens + label.completion_tokens for label in collected.labels.values()) <= limit
        )
        assert collected.bill.prompt_tokens + collected.bill.completion_tokens <= limit

    def test_the_second_run_asks_nothing(self, tmp_path: Path, made: LLMTeacher) -> None:
        instances = some_instances()
        with LabelStore(tmp_path / "labels.sqlite") as store:
            first = collect_labels(made, instances, store, Budget(99), show_progress=False)
            assert len(first.labels) == len(instances)
            again = self.make(tmp_path)
            for method in ("prepare", "prepare_with", "ask", "answers"):
                setattr(again, method, _must_not_be_called)
            second = collect_labels(again, instances, store, Budget(99), show_progress=False)
            again.close()
        assert second.labels == first.labels
        assert (second.bill.asked, second.bill.reused) == (0, len(instances))

    def test_can_be_closed_at_any_time(self, tmp_path: Path) -> None:
        made = self.make(tmp_path)
        made.close()
        made.close()


def _must_not_be_called(*_: Any) -> None:
    raise AssertionError("nothing is missing from the store")
