"""SIGKILL at random moments: nothing that was acknowledged is lost, no key is there twice,
the file stays whole."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from recbole_alkd.labels import Label, LabelStore
from recbole_alkd.labels.claims import Claims

WORKERS = 4


def _work(path: str, acknowledged: str, seed: int) -> None:
    """Put labels of a shared key space, now and then many at once; note every key whose put has returned."""
    rng = random.Random(seed)
    note = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with LabelStore(path) as store, Claims(store) as claims:
        while True:
            keys = claims.take([f"k{rng.randrange(10**9)}", f"shared{rng.randrange(300)}"], 2)
            labels = [
                Label(key, ("a", "b"), raw="x" * rng.randrange(5000), teacher=str(os.getpid()))
                for key in keys
            ]
            if rng.random() < 0.5:
                assert store.put_many(labels) <= len(labels)
            else:
                for label in labels:
                    store.put(label)
            os.write(note, "".join(f"{key}\n" for key in keys).encode())


def _kill_and_check(folder: Path, moments: int, seed: int) -> None:
    rng = random.Random(seed)
    context = multiprocessing.get_context("fork")
    path = folder / "labels.sqlite"
    notes: list[Path] = []
    for moment in range(moments):
        files = [folder / f"acknowledged-{moment}-{i}" for i in range(WORKERS)]
        notes += files
        workers = [context.Process(target=_work, args=(str(path), str(f), rng.random())) for f in files]
        for worker in workers:
            worker.start()
        time.sleep(rng.uniform(0.0, 0.25))
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.join(30)
            assert worker.exitcode == -signal.SIGKILL
    expected = {line for note in notes if note.exists() for line in note.read_text().splitlines()}
    with LabelStore(path) as store:
        keys = [label.key for label in store]
        with store.transaction() as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        # what dead processes had claimed can be claimed at once
        with store.transaction() as db:
            claimed = [key for (key,) in db.execute("SELECT key FROM claims")]
        with Claims(store) as claims:
            assert claims.take(claimed, len(claimed)) == claimed
    assert len(keys) == len(set(keys))
    assert expected <= set(keys)
    assert len(expected) > 10, "the workers were killed before they did anything"


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, moments=4, seed=1)


@pytest.mark.slow
def test_killed_writers_lose_nothing_at_twenty_moments(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, moments=20, seed=2)
