"""What was paid, what is stored, what was paid twice, and whether the budget held:
the figures of docs/reliability.md.

``pytest tests/teacher/test_reliability.py -m slow -s`` prints its two tables.
The provider's side is counted by the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import label_worker
import pytest
from fault_server import (
    BROKEN,
    EMPTY_ANSWERS,
    ENDING,
    FAULTS,
    GOOD_ANSWERS,
    PAID,
    FaultServer,
    for_some_prompts,
    question_of,
)
from process import environment

from recbole_alkd.labels import LabelStore
from recbole_alkd.llm import chat_client

pytest.importorskip("openai", reason="needs the extra `api`")
pytestmark = pytest.mark.slow
SMALL = Path(__file__).parents[1] / "labels"


class Row:
    """One line of a table."""

    def __init__(
        self,
        what: str,
        server: FaultServer,
        store: Path,
        counted: int | None,
        limit: int | None,
        ended: str = "",
    ) -> None:
        with LabelStore(store) as opened:
            self.counts = opened.counts()
        self.what = what
        first = {question_of(body) for body in server.requests if len(body["messages"]) <= 2}
        self.paid, self.questions = server.paid_requests, len(first & server.paid.keys())
        self.twice, self.tokens, self.counted, self.limit = (
            server.paid_twice,
            server.paid_tokens,
            counted,
            limit,
        )

    @property
    def stored(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        limit = "-" if self.limit is None else f"{self.limit:,}"
        counted = "-" if self.counted is None else f"{self.counted:,}"
        kinds = f"{self.counts['ok']} + {self.counts['failed']}"
        return (
            f"| {self.what} | {self.paid} | {self.questions} | {kinds} | {self.twice} | {self.tokens:,} | "
            f"{counted} | {limit} |"
        )


HEAD = """
| what | paid requests | paid questions | stored, ok + failed | paid twice | tokens on the bill | \
tokens counted | budget |
|---|---|---|---|---|---|---|---|"""


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + HEAD + "\n" + "\n".join(lines))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(chat_client, "LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(chat_client, "PATIENCE", 3.0)


COUNT, LIMIT = 18, 200_000
UNKNOWN = {*BROKEN, "html"}  # a web page in an answer's place is no answer of a model's: it is asked again


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault(tmp_path: Path, table: list[str], fault: str) -> None:
    """A third of the questions meet the fault each time they are asked; a second start finds the
    server well."""
    store, ledger = tmp_path / "labels.sqlite", str(tmp_path / "spending.jsonl")
    with FaultServer(for_some_prompts([fault], 0.34)) as server:
        first = label_worker.label(
            server.url, str(store), COUNT, LIMIT, ledger, llm_timeout=2.0 if fault in BROKEN else 60.0
        )
        assert "\n" not in (first["ended"] or "")
        row = Row(fault, server, store, first["spent"], LIMIT)
        table.append(str(row))
        assert server.faults[fault]
        assert row.tokens <= first["spent"] <= LIMIT
        if fault in EMPTY_ANSWERS and fault not in UNKNOWN:  # asked for once more, and then a failed label
            assert row.paid <= 2 * COUNT
        elif fault not in UNKNOWN:  # nobody but the provider knows whether those were charged
            assert row.twice == 0
        if fault not in UNKNOWN:
            assert row.stored >= row.questions
        if fault in PAID - UNKNOWN - ENDING.keys() and first["ended"] is None:
            assert row.stored == COUNT
        server.plan = lambda number, body: None
        second = label_worker.label(
            server.url, str(store), COUNT, LIMIT, ledger, llm_timeout=2.0 if fault in BROKEN else 60.0
        )
        after = Row(fault, server, store, second["spent"], LIMIT)
        assert after.stored == COUNT and second["ended"] is None
        assert after.tokens <= second["spent"] <= LIMIT
        if fault not in UNKNOWN:
            assert after.twice == row.twice
        if fault in GOOD_ANSWERS:
            assert after.counts["failed"] == 0
        if fault in EMPTY_ANSWERS.keys() - UNKNOWN and first["ended"] is None:
            assert after.counts["failed"] == row.counts["failed"] > 0  # paid for, and not asked again


def start(*before: str, **values: Any) -> subprocess.Popen[str]:
    words = [*before, sys.executable, str(Path(label_worker.__file__)), json.dumps(values)]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(worker: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = worker.communicate(timeout=300)
    assert worker.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


MANY, AT_ONCE = 120, 4


def values_for(server: FaultServer, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "url": server.url,
        "store": str(folder / "labels.sqlite"),
        "count": MANY,
        "concurrency": AT_ONCE,
        **more,
    }


def test_killed_and_started_again(tmp_path: Path, table: list[str]) -> None:
    limit, kills = 45_000, 5
    with FaultServer(delay=0.05) as server:
        values = values_for(server, tmp_path, tokens=limit, ledger=str(tmp_path / "spending.jsonl"))
        kill_after(server, values, [12, 7, 17, 9, 14])
        last = finish(start(**values))
        row = Row(
            f"killed {kills} times and started again",
            server,
            tmp_path / "labels.sqlite",
            last["spent"],
            limit,
        )
    table.append(str(row))
    assert row.tokens <= last["spent"] <= limit
    assert row.questions - row.stored <= kills * AT_ONCE and row.twice <= kills * AT_ONCE
    assert row.stored > MANY // 3


def kill_after(server: FaultServer, values: dict[str, Any], requests: list[int]) -> None:
    """Start it, and kill it when so many requests have come."""
    for number in requests:
        goal = len(server.requests) + number
        with start(**values) as worker:
            wait_for(
                lambda goal=goal, worker=worker: len(server.requests) >= goal or worker.poll() is not None
            )
            worker.kill()


def test_killed_and_started_again_without_a_limit(tmp_path: Path, table: list[str]) -> None:
    kills = 10
    with FaultServer(delay=0.05) as server:
        values = values_for(server, tmp_path, ledger=str(tmp_path / "spending.jsonl"))
        kill_after(server, values, [3, 8, 5, 11, 4, 9, 6, 10, 7, 12])
        last = finish(start(**values))
        row = Row(f"killed {kills} times, no limit", server, tmp_path / "labels.sqlite", last["spent"], None)
    table.append(str(row))
    assert row.stored == MANY and row.twice <= kills * AT_ONCE and row.tokens <= last["spent"]


def test_two_processes(tmp_path: Path, table: list[str]) -> None:
    with FaultServer(delay=0.02) as server:
        workers = [start(**values_for(server, tmp_path)) for _ in range(2)]
        spent = [finish(worker)["spent"] for worker in workers]
        row = Row("two processes, one store", server, tmp_path / "labels.sqlite", sum(spent), None)
    table.append(str(row))
    assert (row.stored, row.twice) == (MANY, 0) and row.tokens == row.counted


def child_of(parent: int) -> int:
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


@pytest.mark.parametrize("container", [False, True])
def test_one_of_two_processes_is_stopped(tmp_path: Path, table: list[str], container: bool) -> None:
    """For longer than a claim lasts. In one PID namespace the other waits for it;
    in another it takes its questions over."""
    before = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if container else []
    if container and subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a PID namespace")
    with FaultServer(delay=0.05) as server:
        values = values_for(server, tmp_path, claim_seconds=3.0)
        one = start(*before, **values)
        wait_for(lambda: len(server.requests) >= 10)
        pid = child_of(one.pid) if container else one.pid
        os.kill(pid, signal.SIGSTOP)
        two = start(*before, **values)
        time.sleep(12)
        os.kill(pid, signal.SIGCONT)
        spent = [finish(worker)["spent"] for worker in (one, two)]
        what = "one of two processes stopped for four times its claim" + (
            ", in containers of their own" if container else ""
        )
        row = Row(what, server, tmp_path / "labels.sqlite", sum(spent), None)
    table.append(str(row))
    # what it had sent when it was stopped, nobody else can know of
    assert row.stored == MANY and row.twice <= (AT_ONCE if container else 0)


@pytest.mark.parametrize("seconds", [65])
def test_the_store_is_locked(tmp_path: Path, table: list[str], seconds: int) -> None:
    with FaultServer(delay=0.02) as server:
        workers = [start(**values_for(server, tmp_path)) for _ in range(2)]
        wait_for(lambda: len(server.requests) >= 30)
        with contextlib.closing(
            sqlite3.connect(tmp_path / "labels.sqlite", timeout=30, isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(3)
            asked = len(server.requests)
            time.sleep(seconds - 3)
            assert len(server.requests) == asked, "asking went on while a write waited"
            other.execute("ROLLBACK")
        spent = [finish(worker)["spent"] for worker in workers]
        row = Row(
            f"store locked for {seconds} s, two processes",
            server,
            tmp_path / "labels.sqlite",
            sum(spent),
            None,
        )
    table.append(str(row))
    assert (row.stored, row.twice) == (MANY, 0)


def test_the_disk_is_full(tmp_path: Path, table: list[str]) -> None:
    sys.path.append(str(SMALL))
    from disks import make_larger, small_disk

    with small_disk(tmp_path / "disk", 320) as disk, FaultServer(delay=0.02) as server:
        values = values_for(server, disk)
        first = finish(start(**values))
        assert "full" in (first["ended"] or "") and "\n" not in first["ended"]
        paid = server.paid_requests
        make_larger(disk, 8192)
        last = finish(start(**values))
        assert last["ended"] is None
        row = Row(
            f"disk of 320 KiB full after {paid} answers, then larger",
            server,
            disk / "labels.sqlite",
            first["spent"] + last["spent"],
            None,
        )
    table.append(str(row))
    assert (row.stored, row.twice) == (MANY, 0)


def test_the_store_is_deleted(tmp_path: Path, table: list[str]) -> None:
    with FaultServer(delay=0.05) as server:
        values = values_for(server, tmp_path)
        worker = start(**values)
        wait_for(lambda: len(server.requests) >= 30)
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"labels.sqlite{suffix}").unlink()
        first = finish(worker)
        assert "was deleted or moved" in first["ended"]
        last = finish(start(**values))
        row = Row(
            "store deleted in the middle",
            server,
            tmp_path / "labels.sqlite",
            first["spent"] + last["spent"],
            None,
        )
    table.append(str(row))
    assert (row.stored, row.twice) == (MANY, 0)


def test_ctrl_c(tmp_path: Path, table: list[str]) -> None:
    with FaultServer(delay=0.2) as server:
        values = values_for(server, tmp_path)
        worker = start(**values)
        wait_for(lambda: len(server.requests) >= 20)
        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=60)
        finish(start(**values))
        row = Row("Ctrl-C once, then started again", server, tmp_path / "labels.sqlite", None, None)
    table.append(str(row))
    assert (row.stored, row.twice) == (MANY, 0)
