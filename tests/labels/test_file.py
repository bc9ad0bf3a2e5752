"""A store that cannot be written, or not now: what is waited for, what is read all the same, what is said."""

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import fill, make_readonly, small_disk

from recbole_alkd.checks import check_names
from recbole_alkd.labels import Label, LabelStore, LabelStoreError
from recbole_alkd.labels import file as file_module
from recbole_alkd.labels.hints import Hints, all_hints, get_hints, put_hints
from recbole_alkd.labels.store import MIGRATIONS, check_label_store
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings

LABELS = [Label(f"k{number}", ("a", "b"), ("b", "a"), raw="[b, a]", teacher="t") for number in range(20)]


@contextlib.contextmanager
def locked(path: Path, seconds: float = 600.0) -> Iterator[None]:
    """Another connection holds the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, other.rollback)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if other.in_transaction:
                other.rollback()


def test_a_write_waits_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_module, "TOLD_AFTER", 0.1)
    with LabelStore(tmp_path / "s") as store, locked(tmp_path / "s", seconds=1.5):
        assert store.put_many(LABELS) == 20
        assert "another process holds it" in caplog.text and "nothing is asked meanwhile" in caplog.text


def test_a_write_that_is_given_up_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "LOCKED_SECONDS", 0.5)
    with LabelStore(tmp_path / "s") as store:
        with locked(tmp_path / "s"):
            for write in (
                lambda: store.put(LABELS[0]),
                lambda: store.transaction().__enter__(),
                lambda: put_hints(store, Hints("h", ())),
            ):
                with pytest.raises(LabelStoreError, match="another process holds it") as error:
                    write()
                assert "\n" not in str(error.value) and str(store.path) in str(error.value)
            assert store.get("k0") is None  # reading goes on
        assert store.put(LABELS[0])  # and so does writing, afterwards


def test_a_transaction_waits_for_the_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "_STEP", 0.05)
    with LabelStore(tmp_path / "s") as store, locked(tmp_path / "s", seconds=0.5):
        with store.transaction() as db:
            db.execute("INSERT INTO teachers (name) VALUES ('late')")
        assert store.query("SELECT name FROM teachers") == [("late",)]


KINDS = [
    "database is locked", "database table is locked: labels", "database schema is locked: main", "locking "
                                                                                                 "protocol",
    "disk I/O error", "database or disk is full", "unable to open database file", "attempt to write a "
                                                                                  "readonly database",
]  # fmt: skip


class Faulty:
    """A connection whose statements fail ``times`` times."""

    def __init__(self, db: sqlite3.Connection, message: str, times: float) -> None:
        self.db, self.message, self.times = db, message, times

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self.times > 0 and "ROLLBACK" not in sql:
            self.times -= 1
            raise sqlite3.OperationalError(self.message)
        return self.db.execute(sql, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self.db, name)


@pytest.mark.parametrize("message", KINDS)
def test_every_kind_of_fault_is_tried_again_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr(file_module, "LOCKED_SECONDS", 0.3)
    monkeypatch.setattr(file_module, "FAULT_SECONDS", 0.3)
    with LabelStore(tmp_path / "s") as store:
        real = store._file.db
        store._file.db = Faulty(real, message, 3)
        assert store.put(LABELS[0])
        store._file.db = Faulty(real, message, float("inf"))
        for work in (lambda: store.put(LABELS[1]), lambda: store.get("k0"), store.counts):
            with pytest.raises(LabelStoreError) as error:
                work()
            assert message in str(error.value) and "\n" not in str(error.value)
        store._file.db = real


def test_a_full_disk_is_one_line_and_loses_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "FAULT_SECONDS", 0.3)
    with small_disk(tmp_path / "disk", 512) as disk:
        with LabelStore(disk / "s") as store:
            store.put_many(LABELS)
            filling = fill(disk)
            with pytest.raises(LabelStoreError, match="full"):
                for number in range(1000):
                    store.put(Label(f"more{number}", ("a",), raw="x" * 2000))
            kept = sum(1 for label in store if label.key.startswith("more"))
        # closing folds the log into the file, for which there may be no room: nothing is lost by that
        with LabelStore(disk / "s") as store:
            assert len(store) == 20 + kept
            filling.unlink()
            assert store.put(Label("last", ("a",)))


@pytest.mark.parametrize("left", [0, 16, 40])  # KiB
def test_a_disk_without_room_for_the_files_beside_a_store_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(file_module, "FAULT_SECONDS", 0.1)
    with small_disk(tmp_path / "disk", 400) as disk:
        with LabelStore(disk / "s") as store:
            store.put_many(LABELS)
        filling = fill(disk)
        os.truncate(filling, filling.stat().st_size - 1024 * left)
        monkeypatch.setattr(file_module, "_checked", set())

        def asked() -> None:
            with LabelStore(disk / "s") as store:
                store.check_writable()
                store.put(Label("new", ("a",), raw="x" * 100_000))

        with pytest.raises(LabelStoreError, match=r"disk has \d+ KiB left|disk is full") as error:
            asked()
        assert "damaged" not in str(error.value)
        filling.unlink()
        asked()
        with LabelStore(disk / "s") as store:
            assert len(store) == 21


def copy_with_log(path: Path, to: Path) -> None:
    """Copy a store as a kill leaves it: the newest labels in the write-ahead log alone."""
    to.mkdir()
    for name in ("s", "s-wal"):
        shutil.copyfile(path.with_name(name), to / name)


@pytest.mark.parametrize("with_log", [False, True])
def test_a_store_on_a_readonly_disk_is_read(tmp_path: Path, with_log: bool) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        with LabelStore(tmp_path / "s") as store:
            store.put_many(LABELS)
            put_hints(store, Hints("h", ("rule",)))
            if with_log:
                copy_with_log(tmp_path / "s", disk / "x")
        if not with_log:
            (disk / "x").mkdir()
            shutil.copyfile(tmp_path / "s", disk / "x" / "s")
        make_readonly(disk)
        with LabelStore(disk / "x" / "s") as store:
            assert store.readonly
            assert list(store) == LABELS and get_hints(store, "h") == Hints("h", ("rule",))
            with store.reader() as db:
                assert db.execute("SELECT count(*) FROM labels").fetchone() == (20,)
            with pytest.raises(
                LabelStoreError, match=r"cannot be written \(the file, its folder or its disk is read-only\)"
            ):
                store.put(LABELS[0])
        with pytest.raises(LabelStoreError, match="cannot be opened"):
            LabelStore(disk / "x" / "another")


def test_a_store_of_the_first_release_on_a_readonly_disk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        with monkeypatch.context() as patch:
            patch.setattr("recbole_alkd.labels.store.MIGRATIONS", MIGRATIONS[:1])
            with LabelStore(disk / "s") as store:
                store.put_many(LABELS)
        make_readonly(disk)
        with LabelStore(disk / "s") as store:
            assert list(store) == LABELS and get_hints(store, "h") is None and list(all_hints(store)) == []


def test_a_store_that_was_deleted_is_noticed(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        store.put(LABELS[0])
        os.rename(tmp_path / "s", tmp_path / "elsewhere")
        with pytest.raises(LabelStoreError, match="was deleted or moved while it was used"):
            store.put(LABELS[1])
        LabelStore(tmp_path / "s").close()  # another one in its place
        with pytest.raises(LabelStoreError, match="was deleted or moved while it was used"):
            store.put(LABELS[1])


def test_what_can_be_no_store_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("these are notes, and they are no database\n" * 100)
    with small_disk(tmp_path / "disk", 2048) as disk:
        with LabelStore(disk / "s") as store:
            store.put_many(LABELS)
        make_readonly(disk)
        for path, words in (
            (tmp_path, "is a folder"),
            (tmp_path / "notes", "is not a label store"),
            (tmp_path / "notes" / "s", "'.*notes' is no folder"),
            (disk / "new" / "s", "disk' cannot be written"),
        ):
            with pytest.raises(LabelStoreError, match=words) as error:
                check_label_store(path)
            assert "\n" not in str(error.value)
        check_label_store(disk / "s")
    check_label_store(tmp_path / "new" / "folder" / "s")
    assert not (tmp_path / "new").exists()
    damaged = tmp_path / "damaged"
    with LabelStore(damaged) as store:
        store.put_many(Label(f"x{number}", ("a",), raw="y" * 500) for number in range(500))
    flip(damaged, 20 * 4096, 40 * 4096)
    file_module._checked.clear()
    with pytest.raises(LabelStoreError, match="store repair"):
        check_label_store(damaged)


def test_a_run_with_such_a_store_ends_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(AlkdError, match=r"label_store: .* is a folder"):
        check_names(read_settings({"label_store": str(tmp_path)}))


def flip(path: Path, start: int, end: int) -> None:
    content = bytearray(path.read_bytes())
    content[start:end] = bytes(byte ^ 0xFF for byte in content[start:end])
    path.write_bytes(content)


def test_a_damaged_store_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with LabelStore(path) as store:
        store.put_many(Label(f"x{number}", ("a",), raw="y" * 500) for number in range(500))
    flip(path, 20 * 4096, 40 * 4096)
    file_module._checked.clear()  # as in another process
    before = path.read_bytes()
    with LabelStore(path) as store:
        for write in (
            lambda: store.put(LABELS[0]),
            lambda: put_hints(store, Hints("h", ())),
            store.check_writable,
        ):
            with pytest.raises(
                LabelStoreError, match=r"is damaged .* not written to any more; `recbole-alkd store repair"
            ) as error:
                write()
            assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_label_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        store.put_many(LABELS)
        for damage in (
            "ranking = '[\"a\"'",
            "ranking = '3'",
            "candidates = CAST(x'5bff5d' AS TEXT)",
            "raw = CAST(x'ff80' AS TEXT)",
        ):
            with store.transaction() as db:
                db.execute(f"UPDATE answers SET {damage} WHERE id = 3")
            for read in (lambda: store.get("k2"), lambda: store.get_many(["k0", "k2"]), lambda: list(store)):
                with pytest.raises(LabelStoreError, match=r"k2.*cannot be read.*store verify") as error:
                    read()
                assert "\n" not in str(error.value)
            assert store.get("k1") == LABELS[1]
            with store.transaction() as db:
                db.execute(
                    'UPDATE answers SET ranking = \'["a", "b"]\', candidates = \'["b", "a"]\', raw = \'[b, '
                    "a]' WHERE id = 3"
                )
        assert store.get("k2") == LABELS[2]


def test_waiting_can_be_interrupted(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, locked(tmp_path / "s"):
        began = time.monotonic()
        threading.Timer(0.3, lambda: os.kill(os.getpid(), 2)).start()
        with pytest.raises(KeyboardInterrupt):
            store.put(LABELS[0])
        assert time.monotonic() - began < 30
