"""Claims: one owner a key, given back by the living, void when the owner is dead or silent."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process import environment

from recbole_alkd.labels import Label, LabelStore
from recbole_alkd.labels import owner as owners
from recbole_alkd.labels.claims import Claims


def test_a_key_has_one_owner(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store) as one:
        store.put(Label("done", ("a",)))
        store.put(Label("bad", (), status="failed"))
        with Claims(store) as two:
            assert one.take(["a", "b", "done", "bad"], 1) == ["a"]
            assert two.take(["a", "b", "done", "bad", "c"], 9) == ["b", "c"]
            assert one.take(["b", "c"], 9) == []
            one.release(["a", "b"])  # b is not one's to give back
            assert two.take(["a"], 9) == ["a"]
            store.put(Label("b", ("x",)))
            assert one.take(["b"], 9) == []
        assert one.take(["a", "b", "c"], 9) == ["a", "c"]


def test_failed_labels_are_claimed_only_to_retry(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store, retry_failed=True) as claims:
        store.put(Label("done", ("a",)))
        store.put(Label("bad", (), status="failed"))
        assert claims.take(["done", "bad"], 9) == ["bad"]


def test_a_silent_owner_loses_its_claims_and_a_living_one_keeps_them(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store, seconds=0.4) as alive:
        alive.take(["renewed"], 1)
        with store.transaction() as db:
            db.execute("INSERT INTO claims VALUES ('elsewhere', 'another-host/1/x', ?)", [time.time() + 0.3])
        with Claims(store) as other:
            assert other.take(["renewed", "elsewhere"], 9) == []
            time.sleep(0.9)
            assert other.take(["renewed", "elsewhere"], 9) == ["elsewhere"]


def _claim_and_die(path: str) -> None:
    Claims(LabelStore(path)).take(["k"], 1)
    os._exit(0)


def test_a_dead_process_loses_its_claims_at_once(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_claim_and_die, args=(str(tmp_path / "s"),))
    worker.start()
    worker.join(30)
    with LabelStore(tmp_path / "s") as store, Claims(store) as claims:
        assert claims.take(["k"], 1) == ["k"]


def _claim_and_wait(path: str, ready: "multiprocessing.Queue[int]") -> None:
    claims = Claims(LabelStore(path), seconds=0.4)
    claims.take(["k"], 1)
    ready.put(os.getpid())
    time.sleep(60)


@contextmanager
def stopped_owner(path: Path) -> Iterator[int]:
    """A process that claimed "k", whose claim has lapsed, and which is stopped."""
    context = multiprocessing.get_context("fork")
    ready: multiprocessing.Queue[int] = context.Queue()
    worker = context.Process(target=_claim_and_wait, args=(str(path), ready))
    worker.start()
    pid = ready.get(timeout=30)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.6)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        worker.join(30)


def test_a_stopped_process_keeps_its_claim_and_a_killed_one_does_not(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store, seconds=0.4) as claims:
        with stopped_owner(tmp_path / "s") as pid:
            assert claims.take(["k"], 1) == []
            assert claims.others(["k"]) == [f"another process ({pid})"]
        assert claims.take(["k"], 1) == ["k"]


def test_a_killed_process_that_its_parent_has_not_noticed_is_dead(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store) as claims:
        worker = multiprocessing.get_context("fork").Process(
            target=_claim_and_die, args=(str(tmp_path / "s"),)
        )
        worker.start()
        deadline = time.monotonic() + 30
        while claims.take(["k"], 1) != ["k"]:  # nobody waits for the child: it stays a zombie
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker.join(30)


def claimed(store: LabelStore, owner: str, until: float) -> None:
    with store.transaction() as db:
        db.execute("INSERT OR REPLACE INTO claims VALUES ('k', ?, ?)", [owner, until])


def test_a_process_number_that_was_used_again_is_another_process(tmp_path: Path) -> None:
    place, number, start = owners.this_process().rsplit("/", 2)
    with LabelStore(tmp_path / "s") as store, Claims(store) as claims:
        claimed(store, f"{place}/{os.getppid()}/1.x", time.time() + 50)  # the parent did not begin at tick 1
        assert claims.take(["k"], 1) == ["k"]
        # this process, which knows nothing of it
        claimed(store, f"{place}/{number}/{start}.x", time.time() + 50)
        assert claims.take(["k"], 1) == ["k"]


@pytest.mark.parametrize("owner", ["boot:another:pid:[1]/1/1.x", f"{socket.gethostname()}/1/x", "nonsense"])
def test_a_claim_from_the_future_is_none(tmp_path: Path, owner: str) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store) as claims:
        claimed(store, owner, time.time() + 30)
        assert claims.take(["k"], 1) == []
        claimed(store, owner, time.time() + 3600)  # the clock was set back by an hour
        assert claims.take(["k"], 1) == ["k"]
        for damaged in ("soon", float("inf"), None if owner == "nonsense" else "x"):
            claimed(store, owner, damaged if damaged is not None else -1.0)
            assert claims.take(["k"], 1) == ["k"]


def test_an_owner_looks_at_its_claim_again_before_it_sends(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, Claims(store) as mine:
        assert mine.take(["taken", "answered", "lapsed"], 9) == ["taken", "answered", "lapsed"]
        with store.transaction() as db:  # as after a stop of some minutes, in a container of its own
            db.execute("UPDATE claims SET until = ? WHERE key != 'taken'", [time.time() - 100])
            db.execute(
                "UPDATE claims SET owner = 'another-host/1/x', until = ? WHERE key = 'taken'",
                [time.time() + 50],
            )
        store.put(Label("answered", ("a",)))
        assert [mine.hold(key) for key in ("taken", "answered", "lapsed")] == [False, False, True]
        with Claims(store) as other:
            assert other.take(["lapsed"], 1) == []


CONTAINER = textwrap.dedent(
    """
    import sys, time
    from recbole_alkd.labels import LabelStore
    from recbole_alkd.labels.claims import Claims
    with LabelStore(sys.argv[1]) as store, Claims(store, seconds=float(sys.argv[2])) as claims:
        print(claims.take(["k"], 1), flush=True)
        sys.stdin.readline()
        print(claims.hold("k"), flush=True)
    """
)


def test_containers_do_not_take_each_others_process_numbers_for_their_own(tmp_path: Path) -> None:
    """Process 1 of one container is no process 1 of another; a stopped owner loses its claim,
    and notices before it sends."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a PID namespace")

    def container() -> "subprocess.Popen[str]":
        words = [*command, sys.executable, "-c", CONTAINER, str(tmp_path / "s"), "2"]
        return subprocess.Popen(
            words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def child(parent: int) -> int:
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])

    with container() as one:
        assert one.stdout.readline() == "['k']\n"
        with container() as two:  # both are process 1
            assert two.stdout.readline() == "[]\n"
            two.communicate("\n", timeout=30)
        os.kill(child(one.pid), signal.SIGSTOP)
        with LabelStore(tmp_path / "s") as store, Claims(store) as claims:
            deadline = time.monotonic() + 30
            while not claims.take(["k"], 1):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            os.kill(child(one.pid), signal.SIGCONT)
            assert one.communicate("\n", timeout=30)[0] == "False\n"
