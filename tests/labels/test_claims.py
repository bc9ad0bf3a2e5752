"""Claims: one owner a key, given back by the living, void when the owner is dead or silent."""

import multiprocessing
import os
import time
from pathlib import Path

from recbole_alkd.labels import Label, LabelStore
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
