"""The label store: what comes back, who wins, what is refused, many threads and processes."""

import multiprocessing
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_alkd.labels import Label, LabelStore, LabelStoreError, label_key
from recbole_alkd.labels import store as store_module
from recbole_alkd.settings.error import AlkdError

FULL = Label(
    key="k",
    ranking=("85123A", "22423"),
    candidates=("22423", "85123A", "POST"),
    raw='[<ID85123A>,\n"22423"]',
    repairs={"duplicate": 2},
    prompt_tokens=812,
    completion_tokens=202,
    seconds=1.25,
    usd=0.0125,
    status="ok",
    teacher="api gpt-x",
    time=1.5e9,
)


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "new" / "folder" / "labels.sqlite") as store:
        assert store.get("k") is None
        assert store.put(FULL)
        assert store.get("k") == FULL
    with LabelStore(tmp_path / "new" / "folder" / "labels.sqlite") as store:
        assert list(store) == [FULL]
        assert store.counts() == {"ok": 1, "failed": 0}
        assert len(store) == 1 and "k" in store and "x" not in store and list(store.keys()) == ["k"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    label=st.builds(
        Label,
        key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        ranking=st.lists(st.text(), unique=True),
        candidates=st.lists(st.text(), unique=True),
        raw=st.text(st.characters()),  # half surrogate pairs and NUL included
        repairs=st.dictionaries(st.text(), st.integers(0, 9)),
        prompt_tokens=st.integers(0, 10**9),
        seconds=st.floats(0, 1e6),
        usd=st.none() | st.floats(0, 1e3),
        status=st.sampled_from(["ok", "failed"]),
        time=st.none() | st.floats(0, 4e9),
    )
)
def test_any_label_comes_back_as_it_was(tmp_path: Path, label: Label) -> None:
    path = tmp_path / "labels.sqlite"
    path.unlink(missing_ok=True)
    with LabelStore(path) as store:
        assert store.put(label)
        assert store.get(label.key) == label
        assert list(store) == [label]


def test_first_wins(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        assert store.put(Label("k", ("a",)))
        assert not store.put(Label("k", ("b",)))
        assert not store.put(Label("k", (), status="failed"))
        assert store.get("k").ranking == ("a",)


def test_an_ok_label_replaces_a_failed_one_whose_cost_is_kept(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        assert store.put(Label("k", (), raw="nonsense", usd=0.5, status="failed"))
        assert not store.put(Label("k", (), raw="more nonsense", status="failed"))
        assert store.put(Label("k", ("a",)))
        assert store.counts() == {"ok": 1, "failed": 0}
        with store.transaction() as db:
            assert db.execute("SELECT key, usd, raw FROM failures").fetchall() == [("k", 0.5, "nonsense")]


def test_put_many_is_one_transaction(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        assert store.put_many(Label(str(i), ("a",)) for i in range(1200)) == 1200
        assert store.put_many([Label("0", ("b",)), Label("new", ("b",))]) == 1
        # the order of storing, over several pages
        assert [label.key for label in store] == [*map(str, range(1200)), "new"]
        assert list(store.keys()) == sorted([*map(str, range(1200)), "new"])
        assert set(store.get_many([str(i) for i in range(0, 3000, 2)])) == {str(i) for i in range(0, 1200, 2)}
        with pytest.raises(RuntimeError, match="stop"), store.transaction() as db:
            db.execute("DELETE FROM labels")
            raise RuntimeError("stop")
        assert len(store) == 1201


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"key": ""}, "label key: '' is not allowed"),
        ({"key": 3}, "label key: 3 is not allowed"),
        ({"status": "good"}, "'good' is not allowed; allowed: ok | failed"),
        ({"ranking": (3,)}, "the item token 3 is not text"),
    ],
)
def test_bad_labels_are_refused(values: dict, message: str) -> None:
    with pytest.raises(AlkdError) as error:
        Label(**{"key": "k", "ranking": (), **values})
    assert message in str(error.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, and they are long enough to be no database header at all\n" * 100)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (a)")
    newer = tmp_path / "newer.sqlite"
    LabelStore(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    for path, words in [
        (text, "is not a label store"),
        (other, "not a label store"),
        (newer, "schema version 99"),
        (tmp_path, "is a folder; give the name of a file"),
        (text / "labels.sqlite", "cannot be opened"),
    ]:
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(LabelStoreError, match=words) as error:
            LabelStore(path)
        assert str(path) in str(error.value)
        assert not path.is_file() or path.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "s").touch()  # what a kill between the creation of the file and the schema leaves
    with LabelStore(tmp_path / "s") as store:
        assert store.put(FULL)


def test_an_older_store_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabelStore(tmp_path / "s") as store:
        store.put(FULL)
    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, ("CREATE TABLE later (a)",)))
    with LabelStore(tmp_path / "s") as store:
        assert store.get("k") == FULL
        with store.transaction() as db:
            assert db.execute("SELECT count(*) FROM later").fetchone() == (0,)
            assert db.execute("PRAGMA user_version").fetchone() == (len(store_module.MIGRATIONS),)


def test_durable_settings(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store, store.transaction() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_threads_share_one_store(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "s") as store:
        won: list[str] = []

        def work() -> None:
            won.extend(f"k{i}" for i in range(50) if store.put(Label(f"k{i}", ("a",))))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == sorted(f"k{i}" for i in range(50))
        assert len(store) == 50


def _open_and_put(path: str, start: multiprocessing.Barrier, wins: multiprocessing.Queue) -> None:
    start.wait()
    with LabelStore(path) as store:
        wins.put([i for i in range(40) if store.put(Label(f"k{i}", (str(os.getpid()),)))])


def test_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, wins = context.Barrier(4), context.Queue()
    path = str(tmp_path / "labels.sqlite")
    workers = [context.Process(target=_open_and_put, args=(path, start, wins)) for _ in range(4)]
    for worker in workers:
        worker.start()
    won = [i for _ in workers for i in wins.get(timeout=60)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(won) == list(range(40))
    with LabelStore(path) as store:
        assert len(store) == 40


def test_label_key_tells_questions_apart() -> None:
    key = label_key(["1", "2"], ["3"], "p", "t")
    assert len(key) == 64 and int(key, 16) >= 0
    assert key == label_key(("1", "2"), ("3",), "p", "t")
    others = [
        label_key(["12"], ["3"], "p", "t"),
        label_key(["2", "1"], ["3"], "p", "t"),
        label_key(["1"], ["2", "3"], "p", "t"),
        label_key(["1", "2"], ["3"], "pt", ""),
        label_key(["1", "2"], ["3"], "p", "u"),
        label_key(["1", "2\x1f"], ["3"], "p", "t"),
        label_key(["1", '2"'], ["3"], "p\ud800", "t"),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_label_key_stays_the_same_between_releases() -> None:
    # labels are found by this: changing it means paying for every label again
    assert label_key(["85123A"], ["22423", "POST"], "Rank.", "api gpt") == (
        "a70f56ced72e728ee2fbacf8b83c308d834219e5b26e8081935dbf3956588539"
    )
