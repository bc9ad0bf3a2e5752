"""What every LLM teacher must hold, as a mixin.

A teacher of your own gets all of it with ``class TestMine(TeacherTests): name = "mine"``; settings it needs go into
``values``, and one that cannot be built from its context alone overrides ``make``.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.registry import teachers
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, TeacherContext

WORDS = ["Toy", "Story", "Heat", "Casino", "Dust", "Sabrina", "Ran", "Alien", "Brazil", "Fargo"]
TITLES = {f"{n}A": f"{WORDS[n % 10]} {WORDS[n * 7 % 10]} {n // 10}" for n in range(60)} | {"61": 'The "other" <ID7>, {2}\u202e'}


def some_instances(number: int = 6, seed: int = 0) -> list[Instance]:
    """Instances with histories and candidate lists of different lengths; ids that are no numbers."""
    rng = random.Random(seed)
    found = []
    for row in range(number):
        items = rng.sample(sorted(TITLES), 25)
        found.append(Instance(100 + row, f"s{row}", tuple(items[: 1 + row % 5]), tuple(items[5 : 25 - row])))
    return found


class TeacherTests:
    """The laws of a teacher.

    Attributes:
        name: its ``llm_teacher`` name.
        values: settings it is made with.
        uses_order: whether the order of ``Instance.candidates``, the teacher recommender's, may decide the answer. The place of
            a candidate tells the target apart where it was inserted, so an LLM's answer must not depend on it.
    """

    name: ClassVar[str]
    values: ClassVar[dict[str, Any]] = {}
    uses_order: ClassVar[bool] = False

    def make(self, folder: Path, **values: Any) -> LLMTeacher:
        settings = read_settings({"llm_teacher": self.name, "lora": False, "llm_top_n": 7, **self.values, **values})
        context = TeacherContext(settings, "ml-tiny", folder, TITLES, folder / "cache")
        return teachers.get(self.name)(context)

    def answers(self, teacher: LLMTeacher, instances: list[Instance]) -> dict[int, Answer]:
        """Row -> answer. Every instance is answered exactly once."""
        teacher.prepare()
        found: dict[int, Answer] = {}
        for instance, answer in teacher.ask(instances):
            assert instance in instances
            assert instance.row not in found
            found[instance.row] = answer
        assert set(found) == {instance.row for instance in instances}
        return found

    @pytest.fixture
    def teacher(self, tmp_path: Path) -> Any:
        teacher = self.make(tmp_path)
        yield teacher
        teacher.close()

    def test_ranks_distinct_candidates(self, teacher: LLMTeacher) -> None:
        instances = some_instances()
        for row, answer in self.answers(teacher, instances).items():
            candidates = next(i.candidates for i in instances if i.row == row)
            assert answer.status == "ok"
            assert 1 <= len(answer.ranking) <= 7
            assert len(set(answer.ranking)) == len(answer.ranking)
            assert set(answer.ranking) <= set(candidates)

    def test_no_instances_no_answers(self, teacher: LLMTeacher) -> None:
        assert self.answers(teacher, []) == {}

    def test_an_answer_depends_on_its_own_instance_only(self, teacher: LLMTeacher) -> None:
        instances = some_instances()
        together = self.answers(teacher, instances)
        for instance in instances[:3]:
            alone = self.answers(teacher, [replace(instance, row=7)])[7]
            assert alone.ranking == together[instance.row].ranking

    def test_another_object_gives_the_same(self, tmp_path: Path, teacher: LLMTeacher) -> None:
        other = self.make(tmp_path)
        instances = some_instances()
        assert other.identity == teacher.identity
        assert [other.prompt(i) for i in instances] == [teacher.prompt(i) for i in instances]
        theirs, ours = self.answers(other, instances), self.answers(teacher, instances)
        assert {row: a.ranking for row, a in theirs.items()} == {row: a.ranking for row, a in ours.items()}
        other.close()

    def test_identity_knows_the_settings(self, tmp_path: Path, teacher: LLMTeacher) -> None:
        before = teacher.identity
        self.answers(teacher, some_instances(2))
        assert teacher.identity == before  # also after `prepare` and `ask`: labels are looked up by it
        assert self.make(tmp_path, llm_top_n=5).identity != before

    def test_the_place_of_a_candidate_gives_nothing_away(self, teacher: LLMTeacher) -> None:
        if self.uses_order:
            pytest.skip("this control is the recommender's order, or a part of it")
        instances = some_instances()
        moved = [replace(i, candidates=i.candidates[::-1]) for i in instances]
        here, there = self.answers(teacher, instances), self.answers(teacher, moved)
        assert {row: a.ranking for row, a in here.items()} == {row: a.ranking for row, a in there.items()}

    def test_the_estimate_is_an_upper_bound(self, teacher: LLMTeacher) -> None:
        instances = some_instances()
        answers = self.answers(teacher, instances)
        for instance in instances:
            tokens, usd = teacher.estimate(instance)
            answer = answers[instance.row]
            assert answer.prompt_tokens + answer.completion_tokens <= tokens
            assert (answer.usd or 0.0) <= (usd or 0.0)

    def test_the_second_run_asks_nothing(self, tmp_path: Path, teacher: LLMTeacher) -> None:
        instances = some_instances()
        with LabelStore(tmp_path / "labels.sqlite") as store:
            first = collect_labels(teacher, instances, store, Budget(99), show_progress=False)
            assert len(first.labels) == len(instances)
            again = self.make(tmp_path)
            again.prepare = again.ask = _must_not_be_called  # type: ignore[method-assign, assignment]
            second = collect_labels(again, instances, store, Budget(99), show_progress=False)
            again.close()
        assert second.labels == first.labels
        assert (second.bill.asked, second.bill.reused) == (0, len(instances))

    def test_can_be_closed_at_any_time(self, tmp_path: Path) -> None:
        teacher = self.make(tmp_path)
        teacher.close()
        teacher.close()


def _must_not_be_called(*_: Any) -> None:
    raise AssertionError("nothing is missing from the store")
