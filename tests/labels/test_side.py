"""Answers that cannot be stored: kept beside the store, and taken in by the next start."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from disks import fill, make_larger, make_readonly, small_disk

from recbole_alkd.labels import Label, LabelStore, LabelStoreError
from recbole_alkd.labels import file as file_module
from recbole_alkd.labels.hints import Hints, get_hints
from recbole_alkd.labels.side import SideFile, store_hints, take_in

LABELS = [
    Label(f"k{number}", ("a",), ("a", "b"), raw="half a pair \ud83d, NUL \0, line\u2028end\n", usd=0.1)
    for number in range(5)
]
HINTS = Hints("h", ("one rule",), "1. one rule", 9, 3, 0.5, 0.01, "t", 1e9)


def side_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if ".answers-" in file.name)


def test_what_is_kept_is_taken_in_once(tmp_path: Path) -> None:
    path = tmp_path / "a[b]*?.sqlite"
    with SideFile(path) as side:
        side.keep(LABELS[:3])
        side.keep(LABELS[3:], [HINTS])
        assert (
            side.kept == 6
            and side.told().startswith("6 answers are kept in ")
            and side.told().endswith("the next start takes them in")
        )
        with LabelStore(path) as store:
            assert take_in(store) == 0  # its owner lives
    assert len(side_files(tmp_path)) == 1
    with LabelStore(path) as store:
        store.put(Label("k0", ("b",)))  # the first one stays
        assert take_in(store) == 5
        assert (
            store.get("k0").ranking == ("b",) and [store.get(label.key) for label in LABELS[1:]] == LABELS[1:]
        )
        assert get_hints(store, "h") == HINTS
        assert take_in(store) == 0
    assert side_files(tmp_path) == []


def test_unused_room_is_given_back(tmp_path: Path) -> None:
    with SideFile(tmp_path / "s") as side:
        assert (tmp_path / side_files(tmp_path)[0]).stat().st_size >= 1 << 16
        assert side.told() == "every answer that came is stored"
    assert side_files(tmp_path) == []


def _keep_and_die(path: Path) -> None:
    SideFile(path)
    SideFile(path).keep(LABELS)
    os._exit(1)


def test_what_a_killed_process_kept_is_taken_in(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_keep_and_die, args=(tmp_path / "s",))
    worker.start()
    worker.join(30)
    assert len(side_files(tmp_path)) == 2
    with LabelStore(tmp_path / "s") as store:
        assert take_in(store) == 5
        assert list(store) == LABELS
    assert side_files(tmp_path) == []  # nor is the unused one left


def test_lines_that_cannot_be_read_are_left(tmp_path: Path) -> None:
    with SideFile(tmp_path / "s") as side:
        side.keep(LABELS)
    file = tmp_path / side_files(tmp_path)[0]
    with file.open("ab") as stream:
        stream.write(b'{"key": "half\n[]\n{"hints": 3}\n{"key": 3, "ranking": []}\n')
    with LabelStore(tmp_path / "s") as store:
        assert take_in(store) == 5
        assert take_in(store) == 0
    assert side_files(tmp_path) == [file.with_suffix(".unreadable").name]


def test_a_store_that_is_still_busy_leaves_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "LOCKED_SECONDS", 0.2)
    with LabelStore(tmp_path / "s") as store, LabelStore(tmp_path / "s") as other:
        with other.transaction():
            with pytest.raises(
                LabelStoreError, match=r"another process holds it .* 1 answers are kept in .*the next start"
            ):
                store_hints(store, HINTS)
            with pytest.raises(LabelStoreError, match="another process holds it"):
                take_in(store)
        assert take_in(store) == 1 and get_hints(store, "h") == HINTS


def test_room_is_there_on_a_disk_that_fills_up(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 320) as disk:
        with SideFile(disk / "s") as side:
            filling = fill(disk)
            side.keep(LABELS)
            assert (side.kept, side.lost) == (5, 0)
        filling.unlink()
        with LabelStore(disk / "s") as store:
            assert take_in(store) == 5


def test_what_finds_no_room_on_that_disk_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    long = [Label(f"k{number}", ("a",), raw=f"{number}" * 30_000) for number in range(10)]
    with small_disk(tmp_path / "disk", 320) as disk:
        with SideFile(disk / "s") as side:
            filling = fill(disk)
            side.keep(long)
            assert (side.kept, side.lost) == (10, 0)
            assert str(tmp_path / "tmp") in side.told()
        filling.unlink()
        make_larger(disk, 4096)
        with LabelStore(tmp_path / "another") as store:
            assert take_in(store) == 0
        with LabelStore(disk / "s") as store:
            assert take_in(store) == 10 and list(store) == long
        assert not any(file.is_file() for file in (tmp_path / "tmp").rglob("*"))


def test_what_others_can_write_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = tmp_path / f"recbole_alkd-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    with LabelStore(tmp_path / "x" / "s") as store:
        assert take_in(store) == 0
    shared.rmdir()
    (tmp_path / "theirs").mkdir()
    shared.symlink_to(tmp_path / "theirs")
    with LabelStore(tmp_path / "x" / "s") as store:
        assert take_in(store) == 0


def test_nothing_is_asked_where_there_is_no_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 48) as disk,
        pytest.raises(LabelStoreError, match=r"has no room for answers .* nothing is asked"),
    ):
        SideFile(disk / "s")
    with pytest.raises(LabelStoreError, match="no file can be made beside"):
        SideFile(tmp_path / "none" / "s")


def test_a_readonly_store_takes_nothing_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        LabelStore(disk / "s").close()
        with SideFile(disk / "s") as side:
            side.keep(LABELS)
        make_readonly(disk)
        with LabelStore(disk / "s") as store:
            assert take_in(store) == 0
        assert "5 answers stand in" in caplog.text


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    with SideFile(folder / "s") as side:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        side.keep(LABELS)
    with LabelStore(folder / "s") as store:
        assert take_in(store) == 5


def _take_in(path: Path, start: float, counts: "multiprocessing.Queue[int]") -> None:
    time.sleep(max(0.0, start - time.time()))
    with LabelStore(path) as store:
        counts.put(take_in(store))


def test_of_two_starts_one_takes_it_in(tmp_path: Path) -> None:
    with SideFile(tmp_path / "s") as side:
        side.keep(LABELS)
    context = multiprocessing.get_context("fork")
    counts: multiprocessing.Queue[int] = context.Queue()
    workers = [
        context.Process(target=_take_in, args=(tmp_path / "s", time.time() + 0.3, counts)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    assert sorted(counts.get(timeout=30) for _ in workers) == [0, 0, 0, 5]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
