"""collect_labels when the store, the disk, a teacher or a process misbehaves: what was paid for is kept."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_labelling import Scripted, instances, key_of

from recbole_alkd.labelling import engine as labelling
from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, LabelStore, LabelStoreError
from recbole_alkd.labels import file as file_module
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.ledger import Ledger
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, bound_of, check_teacher

GOOD = Answer(("c", "a"), "[c, a]", {}, 60, 20, 0.5, 0.004)


class Acting(Scripted):
    """Calls ``act(session)`` when it has the answer, before it hands it over; stops when it is told to."""

    says_when_it_sends = True

    def __init__(self, act: Any, **script: Answer) -> None:
        super().__init__(script)
        self.act, self.stopped = act, False

    def ask(self, wanted: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in wanted:
            if self.stopped:
                return
            if not self.may_send(instance):
                continue
            self.asked.append(instance.session)
            answer = self.script.get(instance.session, GOOD)
            self.act(instance.session)
            yield instance, answer

    def stop(self) -> bool:
        self.stopped = True
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


def lock_at(path: Path, session: str, seconds: float) -> Any:
    """Another connection takes the write lock when ``session`` is answered, and holds it for ``seconds``."""

    def act(answered: str) -> None:
        if answered == session:
            other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(seconds, other.close).start()

    return act


def test_nothing_is_asked_while_a_write_waits_and_nothing_is_lost(store: LabelStore) -> None:
    teacher = Acting(lock_at(store.path, "s2", 2.0))
    collected = collect_labels(teacher, instances(6), store, Budget(6), show_progress=False)
    assert teacher.asked == [f"s{row}" for row in range(6)] and len(collected.labels) == 6 == len(store)


def test_a_write_that_is_given_up_leaves_the_answers_to_the_next_start(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_module, "LOCKED_SECONDS", 0.3)
    teacher, budget = Acting(lock_at(store.path, "s2", 4.0)), Budget(6, tokens=1000)
    with pytest.raises(
        LabelStoreError, match=r"another process holds it .*; 1 answers are kept in .*the next start"
    ) as error:
        collect_labels(teacher, instances(6), store, budget, show_progress=False)
    assert "\n" not in str(error.value)
    assert teacher.asked == ["s0", "s1", "s2"]
    assert budget.spent.tokens == 240  # it was paid for
    monkeypatch.undo()
    again = Acting(lambda session: None)
    collected = collect_labels(again, instances(6), store, Budget(6), show_progress=False)
    assert again.asked == ["s3", "s4", "s5"] and len(collected.labels) == 6
    assert "1 answers of" in caplog.text and "are stored now" in caplog.text


def test_an_interrupt_while_a_write_waits_keeps_the_answer(store: LabelStore) -> None:
    lock = lock_at(store.path, "s1", 4.0)

    def act(session: str) -> None:
        lock(session)
        if session == "s1":
            for delay in (0.2, 0.6):  # the first one only asks to end, the second one means it
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        collect_labels(Acting(act), instances(6), store, Budget(6), show_progress=False)
    time.sleep(4.0)
    again = Acting(lambda session: None)
    assert len(collect_labels(again, instances(6), store, Budget(6), show_progress=False).labels) == 6
    assert again.asked == ["s2", "s3", "s4", "s5"]


@pytest.mark.parametrize("last", [False, True])
def test_a_store_that_is_deleted_meanwhile(store: LabelStore, last: bool) -> None:
    """All that this call had stored was in it: it is kept beside the place, and the next start has it."""

    def act(session: str) -> None:
        if session == ("s5" if last else "s3"):
            for file in store.path.parent.glob("labels.sqlite*"):
                if "answers" not in file.name:
                    file.unlink()

    teacher = Acting(act)
    with pytest.raises(LabelStoreError, match=r"was deleted or moved while it was used; \d answers are kept"):
        collect_labels(teacher, instances(6), store, Budget(6), show_progress=False)
    again = Acting(lambda session: None)
    with LabelStore(store.path) as new:
        assert len(collect_labels(again, instances(6), new, Budget(6), show_progress=False).labels) == 6
        assert len(new) == 6
    assert set(teacher.asked).isdisjoint(again.asked)


def test_a_store_that_is_deleted_behind_the_last_write(store: LabelStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        real = labelling.Engine.check_store

        def check(self: Any) -> None:
            store.path.unlink()
            real(self)

        patch.setattr(labelling.Engine, "check_store", check)
        with pytest.raises(LabelStoreError, match="6 answers are kept"):
            collect_labels(Acting(lambda session: None), instances(6), store, Budget(6), show_progress=False)
    with LabelStore(store.path) as new:
        assert len(collect_labels(Scripted(), instances(6), new, Budget(6), show_progress=False).labels) == 6


def test_a_readonly_or_damaged_store_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabelStore(tmp_path / "s") as store:
        collect_labels(Scripted(), instances(3), store, Budget(3), show_progress=False)
        for patch, words in (
            (("readonly", True), "read-only"),
            (("first_problem", lambda: "row 3 missing from index"), r"is damaged \(row 3 .* store repair"),
        ):
            with monkeypatch.context() as context:
                real = file_module.StoreFile.__init__

                def opened(self: Any, path: Path, patch: Any = patch, real: Any = real) -> None:
                    real(self, path)
                    setattr(self, *patch)

                context.setattr(file_module.StoreFile, "__init__", opened)
                file_module._checked.clear()
                with LabelStore(tmp_path / "s") as again:
                    teacher = Scripted()
                    assert (
                        len(
                            collect_labels(
                                teacher, instances(3), again, Budget(3), show_progress=False
                            ).labels
                        )
                        == 3
                    )
                    with pytest.raises(LabelStoreError, match=words):
                        collect_labels(teacher, instances(5), again, Budget(5), show_progress=False)
                    assert teacher.asked == [] and teacher.prepared == 0


ODD: list[Any] = [10**30, 12.5, -3, True, "many", float("nan"), None]


@pytest.mark.parametrize("count", ODD, ids=str)
def test_an_unreadable_count_charges_the_most_and_keeps_the_ranking(store: LabelStore, count: Any) -> None:
    odd = Answer(("b",), "[b]", {}, count, 5, 0.1, 0.002)
    budget = Budget(9, tokens=1000)
    collected = collect_labels(Scripted({"s1": odd}), instances(3), store, budget, show_progress=False)
    assert collected.labels[1].ranking == ("b",)
    assert budget.spent.tokens == 80 + 100 + 80  # 100 is what its estimate says
    assert (store.get(key_of(instances(3)[1])).prompt_tokens, collected.bill.prompt_tokens) == (100, 220)


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -1, "free", True], ids=str)
def test_an_unreadable_price_charges_the_most(store: LabelStore, usd: Any) -> None:
    odd = Answer(("b",), "[b]", {}, 60, 20, usd, usd)
    budget = Budget(9, usd=1.0)
    collected = collect_labels(Scripted({"s1": odd}), instances(3), store, budget, show_progress=False)
    assert (
        collected.labels[1].ranking == ("b",)
        and collected.labels[1].usd == 0.01
        and collected.labels[1].seconds == 0.0
    )
    assert budget.spent.usd == pytest.approx(0.018)


@pytest.mark.parametrize(
    "odd",
    [
        Answer(("b",), "[b]", {"odd": object()}, 60, 20, 0.1, 0.004),
        Answer(("b",), b"[b]", {}, 60, 20, 0.1, 0.004),
        Answer(("b",), "\ud83d \0 \udc00" * 3, {"\ud83d": 1}, 60, 20, 0.1, 0.004),
        Answer((), "\ud83d", {}, 60, 20, 0.1, 0.004, "failed"),
        Answer((3,), "[3]", {}, 60, 20, 0.1, 0.004),
        Answer(("\ud83d",), "x", {}, 60, 20, 0.1, 0.004),
        Answer(([],), "x", {}, 60, 20, 0.1, 0.004),
        Answer(None, "x", {}, 60, 20, 0.1, 0.004),
        Answer(("b",), "x" * 3_000_000, {}, 60, 20, 0.1, 0.004),
    ],
    ids=[
        "repairs",
        "bytes",
        "surrogates",
        "failed surrogate",
        "number",
        "surrogate item",
        "list item",
        "no ranking",
        "huge",
    ],
)
def test_whatever_an_answer_holds_a_label_comes_of_it(store: LabelStore, odd: Answer) -> None:
    teacher = Scripted({"s1": odd})
    try:
        collect_labels(teacher, instances(3), store, Budget(9), show_progress=False)
    except AlkdError as error:  # a ranking that is none: the teacher is named
        assert "kept as a failed label" in str(error) and "\n" not in str(error)
    label = store.get(key_of(instances(3)[1]))
    assert label is not None and label.completion_tokens == 20 and len(label.raw) <= 1_000_000
    again = Scripted()
    assert collect_labels(again, instances(3), store, Budget(9), show_progress=False).bill.failed == (
        label.status == "failed"
    )
    assert "s1" not in again.asked  # it is paid for


def test_an_overdrawn_reservation_names_the_teacher_once_a_limit_is_set(store: LabelStore) -> None:
    greedy = Answer(("b",), "[b]", {}, 200, 33, 0.1, 0.004)
    teacher, budget = Acting(lambda session: None, s1=greedy), Budget(9, tokens=1000)
    with pytest.raises(
        AlkdError, match=r"'scripted', session 's1': 233 tokens were taken where 100 were reserved"
    ) as error:
        collect_labels(teacher, instances(5), store, budget, show_progress=False)
    assert "\n" not in str(error.value)
    assert teacher.asked == ["s0", "s1"] and budget.spent.tokens == 313
    assert store.get(key_of(instances(5)[1])).ranking == ("b",)
    free = Acting(lambda session: None, s3=greedy)
    assert len(collect_labels(free, instances(5), store, Budget(9), show_progress=False).labels) == 5


class Silent(LLMTeacher):
    identity = "silent"


class Free(Silent):
    instant = True


def test_a_teacher_must_say_what_a_request_may_take() -> None:
    with pytest.raises(
        AlkdError, match=r"Silent does not say what a request may take.* a method bound\(instance\)"
    ) as error:
        check_teacher(Silent)
    assert "\n" not in str(error.value)
    with pytest.raises(AlkdError, match="Silent does not say"):
        Silent(None).estimate(instances(1)[0])
    check_teacher(Free)
    assert Free(None).estimate(instances(1)[0]) == (0, None)
    check_teacher(Scripted)


class OneNumber(Scripted):
    def estimate(self, instance: Instance) -> Any:
        return 100


class Bounding(Scripted):
    """States its bounds as a cost, above a class that has them as a pair."""

    def bound(self, instance: Instance) -> Cost:
        return Cost(50, 30, usd=0.01)


@pytest.mark.parametrize("limits", [{}, {"tokens": 1000}])
def test_a_bound_of_one_number_is_an_error_before_anything_is_asked(
    store: LabelStore, limits: dict[str, int]
) -> None:
    teacher = OneNumber()
    with pytest.raises(AlkdError, match=r"OneNumber.estimate: 100 does not say what a request may take"):
        collect_labels(teacher, instances(3), store, Budget(9, **limits), show_progress=False)
    assert teacher.asked == [] and teacher.prepared == 0


def test_a_bound_may_be_a_cost_and_the_nearest_method_counts(store: LabelStore) -> None:
    teacher, budget = Bounding(), Budget(9, tokens=240)  # three requests of 80
    collected = collect_labels(teacher, instances(5), store, budget, show_progress=False)
    assert len(collected.labels) == 3

    class Halved(Bounding):
        def estimate(self, instance: Instance) -> tuple[int, float | None]:
            return 40, None

    assert bound_of(Halved(), instances(1)[0]) == Cost(40)


def test_a_question_that_another_process_has_taken_meanwhile_is_not_sent(store: LabelStore) -> None:
    def act(session: str) -> None:
        if session == "s0":  # this process was stopped, and another took these over
            with store.transaction() as db:
                for row in (2, 3):
                    key = key_of(instances(6)[row])
                    db.execute(
                        "INSERT OR REPLACE INTO claims VALUES (?, 'another-host/1/x', ?)",
                        [key, time.time() + 1],
                    )

    ledger = Ledger(store.path.with_name("spending.jsonl"))
    teacher, budget = Acting(act), Budget(6, tokens=10_000, ledger=ledger)
    collected = collect_labels(teacher, instances(6), store, budget, show_progress=False)
    # asked after the other one fell silent
    assert teacher.asked == ["s0", "s1", "s4", "s5", "s2", "s3"] and len(collected.labels) == 6
    assert budget.spent.tokens == 480 == ledger.spending.tokens and budget.left.tokens == 10_000 - 480


def test_a_teacher_that_does_not_say_when_it_sends_counts_a_whole_chunk_as_sent(store: LabelStore) -> None:
    file = store.path.with_name("spending.jsonl")
    teacher = Scripted({"s2": KeyboardInterrupt()})  # it asks backwards: s4, s3, and is cut short
    noted: list[int] = []
    real = teacher.ask

    def ask(wanted: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        noted.append(Ledger(file).spending.tokens)
        yield from real(wanted)

    teacher.ask = ask
    with pytest.raises(KeyboardInterrupt):
        collect_labels(
            teacher, instances(5), store, Budget(9, tokens=1000, ledger=Ledger(file)), show_progress=False
        )
    assert noted == [500]  # what a kill would have left
    assert Ledger(file).spending.tokens == 160


def test_an_answer_to_what_was_not_asked_names_the_teacher(store: LabelStore) -> None:
    class Confused(Scripted):
        def ask(self, wanted: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
            yield from super().ask(wanted)
            yield instances(1, first=99)[0], GOOD

    with pytest.raises(AlkdError, match=r"'scripted' answered session 's99', which it was not asked about"):
        collect_labels(Confused(), instances(3), store, Budget(3), show_progress=False)
    assert len(store) == 3


def test_disk_errors_before_anything_is_asked(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the claims cannot be written, nothing is paid."""
    monkeypatch.setattr(file_module, "FAULT_SECONDS", 0.2)
    with store.transaction() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
    real = file_module.connect

    def small(target: Any) -> sqlite3.Connection:
        db = real(target)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    monkeypatch.setattr(file_module, "connect", small)
    teacher = Scripted()
    many = [Instance(row, f"s{row}", (f"h{row}" * 300,), ("a", "b", "c")) for row in range(600)]
    teacher.chunk = 600
    with pytest.raises(LabelStoreError, match="full"):
        collect_labels(teacher, many, store, Budget(600), show_progress=False)
    assert teacher.asked == []
