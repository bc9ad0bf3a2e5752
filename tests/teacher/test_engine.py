"""The engine behind every label: teachers of earlier versions, ties, what can be sent to another process,
who makes examples."""

import dataclasses
import json
import multiprocessing
import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labelling.engine import Engine
from recbole_alkd.labelling.question import Question
from recbole_alkd.labelling.rankings import Rankings, keys_of, ranking_questions
from recbole_alkd.labelling.supplies import Supplies, read_examples
from recbole_alkd.labels import Budget, LabelStore, label_key
from recbole_alkd.labels.budget import Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.registry import teachers
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import (
    Answer,
    Asking,
    Instance,
    LLMTeacher,
    LoraExample,
    Materials,
    TeacherContext,
)
from recbole_alkd.testing.teachers import TITLES, some_instances


def context(folder: Path, **own: Any) -> TeacherContext:
    return TeacherContext(read_settings({"llm_top_n": 7}), "ml-tiny", folder, TITLES, folder / "cache", **own)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


def label(teacher: LLMTeacher, instances: Sequence[Instance], store: LabelStore, **more: Any) -> Any:
    return collect_labels(teacher, instances, store, Budget(10**6), show_progress=False, **more)


class Tied(LLMTeacher):
    """Scores every candidate alike and sorts by score, as one writes it without a thought."""

    identity = "tied"

    def prompt(self, instance: Instance) -> str:
        return "rank"

    def bound(self, instance: Instance) -> Cost:
        return Cost(10)

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in instances:
            yield instance, Answer(tuple(sorted(instance.candidates, key=lambda item: 0)))


class TiedByOrder(Tied):
    takes_recommender_order = True


def test_ties_do_not_give_the_inserted_target_away(tmp_path: Path, store: LabelStore) -> None:
    instances = [Instance(row, f"s{row}", (f"h{row}",), ("1A", "2A", "3A", "4A")) for row in range(400)]
    collected = label(Tied(context(tmp_path)), instances, store)
    # where the target was inserted
    places = Counter(one.ranking.index("4A") for one in collected.labels.values())
    assert min(places[place] for place in range(4)) > 60
    # the key is of the instance as it is, so that a store of an earlier version still answers
    key = label_key(("h0",), ("1A", "2A", "3A", "4A"), "rank", "tied")
    assert store.get(key).candidates == ("1A", "2A", "3A", "4A")
    with LabelStore(tmp_path / "again") as other:
        assert (
            label(Tied(context(tmp_path)), instances[::-1], other).labels[3].ranking
            == collected.labels[3].ranking
        )
    with LabelStore(tmp_path / "other") as other:
        assert label(TiedByOrder(context(tmp_path)), instances[:1], other).labels[0].ranking == (
            "1A",
            "2A",
            "3A",
            "4A",
        )


class Earlier(LLMTeacher):
    """Written against the first release: budget, store and reservations are attributes,
    and it asks for something first."""

    identity = "earlier"
    says_when_it_sends = True
    seen: dict[str, Any]

    def prompt(self, instance: Instance) -> str:
        return "rank"

    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        return 100, 0.5

    def prepare(self) -> None:
        assert self.budget is not None and self.store is not None
        reservation = self.budget.reserve(40, labels=0)
        reservation.settle(30, labels=0)
        self.preparation = Answer((), prompt_tokens=30)
        self.seen = {"cases": self.context.hint_cases, "examples": self.context.lora_examples}

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in instances:
            if self.may_send(instance):
                assert self.reservations[instance.row].extend(50, 0.1)  # asked a second time
                yield instance, Answer(instance.candidates[:1], prompt_tokens=140, usd=0.6)


def test_a_teacher_of_the_first_release_runs_as_it_did(tmp_path: Path, store: LabelStore) -> None:
    teacher, budget = Earlier(context(tmp_path)), Budget(9, tokens=1000, usd=9.0)
    collected = collect_labels(teacher, some_instances(3), store, budget, show_progress=False)
    assert len(collected.labels) == 3
    assert budget.spent.tokens == collected.bill.cost.tokens == 30 + 3 * 140
    assert collected.bill.usd == pytest.approx(1.8) and budget.spent.labels == 3
    assert teacher.seen == {"cases": None, "examples": None}  # it hears that there are none
    again = collect_labels(teacher, some_instances(4), store, Budget(9), show_progress=False)
    assert (again.bill.asked, again.bill.cost.tokens) == (1, 170)


# another process


def _answer(given: TeacherContext, questions: Sequence[Question]) -> list[tuple[int, Answer]]:
    """What a process elsewhere does: it has a teacher of its own, and neither store nor budget."""
    teacher = teachers.get("null")(given)
    teacher.prepare()
    groups = teacher.answers([one.instance for one in questions if one.instance], Asking())
    return [(instance.row, answer) for group in groups for instance, answer in group]


class Elsewhere:
    """``Workers`` that are another process."""

    chunk, instant = 4, False

    def __init__(self, given: TeacherContext, pool: Any) -> None:
        self.given, self.pool = given, pool

    def stop(self) -> bool:
        return False

    def answers(
        self,
        questions: Sequence[Question],
        may_send: Callable[[Question], bool],
        reservations: Mapping[str, Reservation],
        has_answered: Callable[[], bool],
    ) -> Iterator[list[tuple[Question, Answer]]]:
        sent = {one.number: one for one in questions if may_send(one)}
        answered = self.pool.apply(_answer, (self.given, list(sent.values())))
        yield [(sent[number], answer) for number, answer in answered]


def test_another_process_can_answer(tmp_path: Path, store: LabelStore) -> None:
    given, instances = context(tmp_path, show_progress=False), some_instances(10)
    teacher = teachers.get("null")(given)
    questions = ranking_questions(keys_of(teacher, instances), instances)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        budget = Budget(99)
        engine = Engine(Rankings(teacher), questions, Elsewhere(given, pool), store, budget)
        engine.run()
    assert len(store) == 10 and engine.missing == {} and budget.spent.labels == 10
    with LabelStore(tmp_path / "here") as other:
        assert {row: one.ranking for row, one in label(teacher, instances, other).labels.items()} == {
            one.instance.row: engine.known[one.key].ranking for one in questions if one.instance
        }


def test_what_a_teacher_needs_is_data(tmp_path: Path) -> None:
    example = LoraExample(("a",), ("b", "c"), "b", True)
    question = Question("hints", "k", messages=({"role": "user", "content": "x"},))
    for thing in (
        context(tmp_path),
        Materials(("rule",), (example,), ()),
        question,
        Answer(("a",)),
        some_instances(1)[0],
    ):
        assert pickle.loads(pickle.dumps(thing)) == thing
    assert dataclasses.replace(context(tmp_path), log_metric=None).hint_cases is None


# examples


class Trained(Tied):
    """Needs examples, and says which it was given."""

    def needs(self) -> frozenset[str]:
        return frozenset({"lora_examples"})

    def prepare_with(self, materials: Materials, budget: Budget, store: LabelStore) -> Cost:
        self.given = materials
        return Cost()


def counted(made: list[int]) -> Supplies:
    def examples() -> list[LoraExample]:
        made.append(1)
        items = ("85123A", 'odd "id"', "\ud83d", "é")
        return [LoraExample(items[:2], items, items[k % 4], k % 2 == 0, items[: k % 3]) for k in range(6)]

    return Supplies(list, examples, lambda: examples()[:1])


def test_examples_are_made_once_for_their_key(tmp_path: Path, store: LabelStore) -> None:
    made: list[int] = []
    first, second = (Trained(context(tmp_path, lora_key="k")) for _ in range(2))
    label(first, some_instances(1), store, supplies=counted(made))
    label(second, some_instances(2), store, supplies=counted(made))
    assert len(made) == 2  # to train on, and held out
    assert (
        first.given == second.given
        and len(first.given.lora_examples) == 6
        and len(first.given.lora_held_out) == 1
    )
    other = Trained(context(tmp_path, lora_key="l"))
    label(other, some_instances(3), store, supplies=counted(made))
    assert len(made) == 4
    label(Tied(context(tmp_path, lora_key="m")), some_instances(4), store, supplies=counted(made))
    assert len(made) == 4  # who needs none causes none


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: {},
        lambda content: {**content, "form": 3},
        lambda content: {**content, "examples": [{"history": []}]},
        lambda content: {**content, "examples": [{**content["examples"][0], "target": "not offered"}]},
        lambda content: {**content, "examples": [{**content["examples"][0], "candidates": "abc"}]},
        lambda content: [],
    ],
)
def test_a_file_of_examples_that_cannot_be_used_is_made_again(tmp_path: Path, damage: Any) -> None:
    made: list[int] = []
    teacher = Trained(context(tmp_path, lora_key="k"))
    whole = counted(made).materials(teacher, None)
    file = teacher.context.cache / "examples" / "k.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    assert read_examples(file) is None
    assert counted(made).materials(teacher, None) == whole and len(made) == 4
    assert read_examples(file) == (whole.lora_examples, whole.lora_held_out)


def test_of_two_that_want_the_same_examples_one_makes_them(tmp_path: Path) -> None:
    made: list[int] = []
    began, may_end, supplied = threading.Event(), threading.Event(), []

    def slowly() -> list[LoraExample]:
        made.append(1)
        began.set()
        assert may_end.wait(30)
        return []

    def want() -> None:
        teacher = Trained(context(tmp_path, lora_key="k"))
        supplied.append(Supplies(list, slowly).materials(teacher, None))

    threads = [threading.Thread(target=want) for _ in range(2)]
    threads[0].start()
    assert began.wait(30)
    threads[1].start()
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert made == [1] and supplied == [Materials(None, (), ())] * 2
