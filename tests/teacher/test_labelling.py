"""collect_labels: what is asked, reused, stored, spent, and what is kept when it is cut short."""

import logging
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recbole_alkd.labelling.bill import Bill
from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, Label, LabelStore, label_key
from recbole_alkd.labels.cost import Cost
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, TeacherContext


def instances(number: int, first: int = 0) -> list[Instance]:
    return [Instance(row, f"s{row}", (f"h{row}",), ("a", "b", "c")) for row in range(first, first + number)]


class Scripted(LLMTeacher):
    """Answers c, a; sessions in ``script`` are answered as it says."""

    def __init__(self, script: dict[str, Answer | BaseException] | None = None) -> None:
        super().__init__(TeacherContext(read_settings({}), "tiny", Path(), {}, Path()))
        self.script = script or {}
        self.prepared = 0
        self.asked: list[str] = []
        self.chunks: list[int] = []

    @property
    def identity(self) -> str:
        return "scripted"

    def prompt(self, instance: Instance) -> str:
        return "rank"

    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        return 100, 0.01

    def prepare(self) -> None:
        self.prepared += 1

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        assert self.prepared == 1
        self.chunks.append(len(instances))
        for instance in reversed(instances):  # in any order
            self.asked.append(instance.session)
            answer = self.script.get(instance.session, Answer(("c", "a"), "[c, a]", {}, 60, 20, 0.5, 0.004))
            if isinstance(answer, BaseException):
                raise answer
            yield instance, answer


def key_of(instance: Instance) -> str:
    return label_key(instance.history, instance.candidates, "rank", "scripted")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


def test_the_second_run_asks_nothing(store: LabelStore) -> None:
    teacher = Scripted()
    first = collect_labels(teacher, instances(5), store, Budget(5), show_progress=False)
    assert list(first.labels) == [0, 1, 2, 3, 4]
    assert teacher.prepared == 1
    assert (first.bill.asked, first.bill.reused, first.bill.failed) == (5, 0, 0)
    assert (first.bill.prompt_tokens, first.bill.completion_tokens, first.bill.usd) == (
        300,
        100,
        pytest.approx(0.02),
    )
    label = first.labels[3]
    assert label == store.get(key_of(instances(5)[3]))
    assert (label.ranking, label.candidates, label.raw, label.teacher) == (
        ("c", "a"),
        ("a", "b", "c"),
        "[c, a]",
        "scripted",
    )
    assert label.time == pytest.approx(time.time(), abs=60)

    again = Scripted()
    budget = Budget(5, tokens=1, usd=0.001)  # reused labels cost nothing
    second = collect_labels(again, instances(5), store, budget, show_progress=False)
    assert second.labels == first.labels
    assert again.prepared == 0 and again.asked == []
    assert second.bill == Bill(asked=0, reused=5) and second.bill.usd == 0.0
    assert budget.left.labels == 0


def test_only_what_is_missing_is_asked(store: LabelStore) -> None:
    collect_labels(Scripted(), instances(3), store, Budget(9), show_progress=False)
    teacher = Scripted()
    collected = collect_labels(teacher, instances(6), store, Budget(9), show_progress=True)
    assert sorted(teacher.asked) == ["s3", "s4", "s5"]
    assert list(collected.labels) == [0, 1, 2, 3, 4, 5]
    assert (collected.bill.asked, collected.bill.reused) == (3, 3)


def test_the_same_question_is_asked_once(store: LabelStore) -> None:
    twins = [Instance(row, "s", ("h",), ("a", "b", "c")) for row in (7, 8)]
    teacher, budget = Scripted(), Budget(2)
    collected = collect_labels(teacher, twins, store, budget, show_progress=False)
    assert teacher.asked == ["s"]
    assert collected.labels[7] == collected.labels[8]
    assert budget.left.labels == 0 and len(store) == 1


def test_failed_answers_are_kept_and_not_asked_again(store: LabelStore) -> None:
    bad = Answer((), "I cannot", {"unknown": 2}, 50, 5, 0.1, 0.003, "failed")
    empty = Answer((), "", {}, 50, 1, 0.1, 0.002)  # "ok" without a ranking is no ranking
    lost = Answer((), status="unanswered")
    budget = Budget(9, tokens=10_000, usd=1)
    script = {"s1": bad, "s2": empty, "s3": lost}
    collected = collect_labels(Scripted(script), instances(5), store, budget, show_progress=False)
    assert list(collected.labels) == [0, 4]
    assert collected.missing == (3,)
    assert (collected.bill.asked, collected.bill.failed, collected.bill.usd) == (5, 3, pytest.approx(0.013))
    assert collected.repairs == {"unknown": 2}
    assert budget.spent.labels == 4 and budget.spent.tokens == 2 * 80 + 55 + 51  # what was paid for counts
    assert store.counts() == {"ok": 2, "failed": 2}
    assert store.get(key_of(instances(5)[1])).raw == "I cannot"
    again = Scripted()
    second = collect_labels(again, instances(5), store, Budget(9), show_progress=False)
    assert again.asked == ["s3"]  # it never got an answer
    assert (second.bill.asked, second.bill.reused, second.bill.failed) == (1, 2, 2)
    third = collect_labels(Scripted(), instances(5), store, Budget(9), show_progress=False, retry_failed=True)
    assert sorted(third.labels) == [0, 1, 2, 3, 4]
    assert store.counts() == {"ok": 5, "failed": 0}


def test_repaired_answers_are_counted(store: LabelStore) -> None:
    mended = Answer(("b",), repairs={"duplicate": 3, "unknown": 1})
    collected = collect_labels(
        Scripted({"s0": mended, "s2": mended}), instances(3), store, Budget(3), show_progress=False
    )
    assert collected.bill.repaired == 2 and collected.repairs == {"duplicate": 6, "unknown": 2}
    assert collected.labels[0].repairs == {"duplicate": 3, "unknown": 1}


def test_no_price_is_not_zero_dollars(store: LabelStore) -> None:
    free = {f"s{i}": Answer(("a",)) for i in range(3)}
    assert (
        collect_labels(Scripted(free), instances(2), store, Budget(9), show_progress=False).bill.usd is None
    )
    assert (Bill(asked=1) + Bill(asked=1, cost=Cost(usd=0.5))).usd == 0.5
    assert (Bill(asked=1) + Bill(reused=1)).usd is None
    assert (Bill(reused=1) + Bill(reused=1)).usd == 0.0


@pytest.mark.parametrize(
    ("limits", "asked", "words"),
    [
        ({"labels": 4}, 4, "budget_labels"),
        # after three (240) a fourth fits
        ({"labels": 99, "tokens": 350}, 4, "budget_tokens: 320 of 350 spent, 30 left"),
        ({"labels": 99, "usd": 0.03}, 6, "budget_usd: 0.024 of 0.03 spent"),
        (
            {"labels": 99, "tokens": 50},
            0,
            "budget_tokens: 0 of 50 spent, 50 left, the next request may take 100",
        ),
    ],
)
def test_the_budget_ends_it(
    store: LabelStore, caplog: pytest.LogCaptureFixture, limits: dict, asked: int, words: str
) -> None:
    teacher, budget = Scripted(), Budget(**limits)
    with caplog.at_level(logging.INFO):
        collected = collect_labels(teacher, instances(10), store, budget, show_progress=False)
    assert list(collected.labels) == list(range(asked))
    assert len(store) == asked
    assert words in collected.ended
    assert collected.missing == tuple(range(asked, 10))
    assert f"{10 - asked} instances are without a label" in caplog.text
    assert teacher.prepared == (asked > 0)  # nothing is loaded for a budget that is too small
    rest = collect_labels(Scripted(), instances(10), store, Budget(99), show_progress=False)
    assert (rest.bill.asked, rest.bill.reused, rest.ended, rest.missing) == (10 - asked, asked, None, ())


def test_an_interrupt_keeps_what_came(store: LabelStore, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(9, tokens=1000)
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        collect_labels(
            Scripted({"s2": KeyboardInterrupt()}), instances(5), store, budget, show_progress=False
        )
    assert len(store) == 2
    assert f"2 rankings are kept in {store.path}, 2 of them new" in caplog.text
    assert budget.left.tokens == 1000 - 160  # the reservations of the others are given back
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    teacher = Scripted()
    assert len(collect_labels(teacher, instances(5), store, Budget(9), show_progress=False).labels) == 5
    assert sorted(teacher.asked) == ["s0", "s1", "s2"]


@pytest.mark.parametrize("ranking", [("a", "a"), ("z",)])
def test_a_teacher_that_ranks_what_was_not_offered_is_named(store: LabelStore, ranking: tuple) -> None:
    with pytest.raises(AlkdError, match=r"'scripted' answered session 's1' .* kept as a failed label"):
        collect_labels(
            Scripted({"s1": Answer(ranking, "raw")}), instances(3), store, Budget(9), show_progress=False
        )
    assert store.get(key_of(instances(3)[1])).raw == "raw"


def test_large_jobs_are_asked_in_chunks(store: LabelStore) -> None:
    teacher = Scripted()
    teacher.chunk = 4
    collect_labels(teacher, instances(10), store, Budget(10), show_progress=False)
    assert teacher.chunks == [4, 4, 2]


def test_what_another_process_asks_is_waited_for(store: LabelStore, caplog: pytest.LogCaptureFixture) -> None:
    with store.transaction() as db:
        db.execute(
            "INSERT INTO claims VALUES (?, 'another-host/1/x', ?)", [key_of(instances(3)[1]), time.time() + 1]
        )
        # the other one answers in time for row 2 only
        db.execute(
            "INSERT INTO claims VALUES (?, 'another-host/1/x', ?)",
            [key_of(instances(3)[2]), time.time() + 50],
        )

    class Answering(Scripted):
        def ask(self, wanted: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
            yield from super().ask(wanted)
            store.put(Label(key_of(instances(3)[2]), ("b",), ("a", "b", "c")))

    teacher = Answering()
    with caplog.at_level(logging.INFO):
        collected = collect_labels(teacher, instances(3), store, Budget(3), show_progress=False)
    assert teacher.asked == ["s0", "s1"]  # s1 after its owner fell silent
    assert collected.labels[2].ranking == ("b",)
    assert (collected.bill.asked, collected.bill.reused) == (2, 1)
    assert "another process (in another container or on another machine) is asking for 2" in caplog.text


class Slow(Scripted):
    """Notes every question in a file before it answers, as a server's own bill would."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.chunk = 5

    def ask(self, wanted: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance, answer in super().ask(wanted):
            os.write(self.log, f"{instance.session}\n".encode())
            time.sleep(0.002)
            yield instance, answer
            os.write(self.log, f"{instance.session} stored\n".encode())


def _label(path: str, log: str, number: int) -> None:
    with LabelStore(path) as store:
        collect_labels(Slow(log), instances(number), store, Budget(number), show_progress=False)


def test_four_processes_pay_for_every_label_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path, log = str(tmp_path / "labels.sqlite"), str(tmp_path / "log")
    workers = [context.Process(target=_label, args=(path, log, 60)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    asked = [line for line in Path(log).read_text().splitlines() if "stored" not in line]
    assert sorted(asked) == sorted(f"s{row}" for row in range(60))


def _kill_while_labelling(folder: Path, moments: int, number: int) -> None:
    rng = random.Random(5)
    context = multiprocessing.get_context("fork")
    path, log = str(folder / "labels.sqlite"), folder / "log"
    for _ in range(moments):
        workers = [context.Process(target=_label, args=(path, str(log), number)) for _ in range(4)]
        for worker in workers:
            worker.start()
        time.sleep(rng.uniform(0.02, 0.2))
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.join(30)
    lines = log.read_text().splitlines() if log.exists() else []
    stored = {line.split()[0] for line in lines if line.endswith("stored")}
    with LabelStore(path) as store:
        keys = [label.key for label in store]
        assert len(keys) == len(set(keys))
        assert {key_of(instances(1, int(session[1:]))[0]) for session in stored} <= set(keys)
    assert stored
    # at each kill, a worker can have lost the one answer that had not reached put;
    # nothing else was paid for twice
    asked = [line for line in lines if not line.endswith("stored")]
    assert len(asked) - len(set(asked)) <= 4 * moments
    _label(path, str(log), number)
    with LabelStore(path) as store:
        assert len(store) == number


def test_killed_labelling_loses_nothing(tmp_path: Path) -> None:
    _kill_while_labelling(tmp_path, moments=4, number=200)


@pytest.mark.slow
def test_killed_labelling_loses_nothing_at_twenty_moments(tmp_path: Path) -> None:
    _kill_while_labelling(tmp_path, moments=20, number=1000)


def test_the_bar_begins_when_the_asking_does(
    store: LabelStore, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_alkd import bars as drawing

    bars: list = []
    ready: list[float] = []

    class Bar(drawing.tqdm):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            bars.append(self)

    class Loading(Scripted):
        def prepare(self) -> None:
            super().prepare()
            time.sleep(0.05)
            assert "Labelling" not in capsys.readouterr().err
            ready.append(time.time())

    monkeypatch.setattr(drawing, "tqdm", Bar)
    monkeypatch.setattr(drawing, "on_terminal", lambda: True)
    collect_labels(Loading(), instances(2), store, Budget(labels=2), show_progress=True)
    assert bars[0].start_t >= ready[0]
    assert "2/2" in capsys.readouterr().err
