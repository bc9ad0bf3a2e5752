"""Bytes flipped in a store: nothing ends in a traceback, verify names the rows,
repair saves what can be read."""

import random
import shutil
from pathlib import Path

import pytest

from recbole_alkd.labels import Label, LabelStore, LabelStoreError, tools
from recbole_alkd.labels import file as file_module
from recbole_alkd.labels.claims import Claims
from recbole_alkd.labels.cli import main
from recbole_alkd.labels.hints import Hints, all_hints, put_hints
from recbole_alkd.settings.error import AlkdError

LABELS = [
    Label(
        f"{number * 0x9E3779B97F4A7C15 % 2**256:064x}", ("85123A", "22423"), ("22423", "85123A", "POST"),
        "[85123A, 22423]" * 9,
        {}, 100, 20, 1.5, 0.25, teacher="api|x" if number % 2 else "local|y", time=1000.0 + number,
    )
    for number in range(300)
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "labels.sqlite"
    with LabelStore(path) as store:
        store.put_many(LABELS)
        store.put(Label("failed", (), ("a",), "nonsense", usd=0.5, status="failed", teacher="api|x"))
        store.put(Label("failed", ("a",), ("a",), usd=0.1, teacher="api|x"))
        put_hints(store, Hints("h", ("one rule",), "1. one rule", 9, 3, 0.5, 0.01, "api|x", 1e9))
    return path


def flipped(whole: Path, folder: Path, seed: int, count: int, width: int = 1) -> Path:
    rng = random.Random(seed)
    content = bytearray(whole.read_bytes())
    for _ in range(count):
        place = rng.randrange(len(content))
        for k in range(place, min(place + width, len(content))):
            content[k] ^= 1 << rng.randrange(8) if width == 1 else 0xFF
    path = folder / "labels.sqlite"
    path.write_bytes(content)
    file_module._checked.clear()
    return path


def readable(path: Path) -> list[Label] | None:
    """Every label of the store, found by its key as a run finds it; None where one cannot be read."""
    try:
        with LabelStore(path) as store:
            labels = list(store)
            stored = store.get_many([label.key for label in LABELS])
            return labels if len(stored) == len(LABELS) and len(labels) == len(LABELS) + 1 else None
    except LabelStoreError as error:
        assert "\n" not in str(error)
        return None


@pytest.mark.parametrize(("count", "width"), [(1, 1), (30, 1), (3, 300), (1, 20_000)])
@pytest.mark.parametrize("seed", range(10))
def test_flipped_bytes(whole: Path, tmp_path: Path, seed: int, count: int, width: int) -> None:
    path = flipped(whole, tmp_path, seed, count, width)
    before = path.read_bytes()
    try:
        with LabelStore(path) as store:
            problems = tools.verify(store)
            structure = any(problem.startswith("file: ") for problem in problems)
            assert all("\n" not in problem for problem in problems)
            if structure:
                with pytest.raises(LabelStoreError):
                    store.put(Label("new", ("a",)))
    except LabelStoreError as error:
        problems, structure = [str(error)], True
    if structure:
        assert path.read_bytes() == before, "a damaged store was written to"
    labels = readable(path)
    assert problems or labels is not None, "verify called a store well that cannot be read"
    if not problems:
        return
    done = tools.repair(path)
    assert done.damaged is not None and done.damaged.read_bytes() == before
    with LabelStore(path) as store:
        assert tools.verify(store) == []
        saved = {label.key: label for label in store}
        assert len(saved) == done.labels
        assert store.put(Label("new", ("a",)))
        if count == 1 and width == 1:  # a page at most
            assert len(saved) >= 301 - 40 and len(done.lost) <= 45
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.sqlite", "labels.sqlite.damaged"]


@pytest.mark.parametrize(
    ("start", "end"), [(0, 16), (0, 100), (16, 24), (60, 72), (100, 112), (100, 400), (3000, 4096), (0, 4096)]
)
def test_a_damaged_first_page_is_no_loss(whole: Path, tmp_path: Path, start: int, end: int) -> None:
    """It holds no labels, only where they are."""
    path = tmp_path / "labels.sqlite"
    content = bytearray(whole.read_bytes())
    content[start:end] = bytes(byte ^ 0xFF for byte in content[start:end])
    path.write_bytes(content)
    file_module._checked.clear()
    with pytest.raises(LabelStoreError) as error, LabelStore(path) as store:
        store.put(Label("new", ("a",)))
    assert "\n" not in str(error.value) and path.read_bytes() == content
    done = tools.repair(path)
    with LabelStore(path) as store:
        assert [store.get(label.key) for label in LABELS] == LABELS
        assert [hints.key for hints in all_hints(store)] == ["h"]
        assert sum(stats.usd or 0 for stats in tools.stats(store)) == pytest.approx(300 * 0.25 + 0.6 + 0.01)
    assert done.labels == 301


def test_repair_keeps_the_bill(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copyfile(whole, path)
    with LabelStore(path) as store, store.transaction() as db:
        db.execute("UPDATE answers SET ranking = '[' WHERE id = 5")
        db.execute("DELETE FROM answers WHERE id = 6")
        db.execute("UPDATE labels SET prompt_tokens = 'many', time = 1e300 WHERE id = 7")
    done = tools.repair(path)
    assert done.lost == [
        f"label {LABELS[4].key}: not readable as JSON",
        f"label {LABELS[5].key}: its answer cannot be read",
    ]
    with LabelStore(path) as store:
        assert len(store) == 299 and store.get(LABELS[4].key) is None
        assert store.get(LABELS[6].key).ranking == LABELS[6].ranking and store.get(LABELS[6].key).time is None
        assert sum(stats.usd or 0 for stats in tools.stats(store)) == pytest.approx(300 * 0.25 + 0.6 + 0.01)


def test_labels_that_stand_in_the_log_alone_are_saved(whole: Path, tmp_path: Path) -> None:
    shutil.copyfile(whole, tmp_path / "live")
    with LabelStore(tmp_path / "live") as store:
        store.put(Label("newest", ("a",)))
        (tmp_path / "x").mkdir()
        content = bytearray((tmp_path / "live").read_bytes())
        content[20 * 4096 + 100 : 21 * 4096] = b"\xff" * 3996
        (tmp_path / "x" / "s").write_bytes(content)
        shutil.copyfile(tmp_path / "live-wal", tmp_path / "x" / "s-wal")
    tools.repair(tmp_path / "x" / "s")
    with LabelStore(tmp_path / "x" / "s") as store:
        assert store.get("newest").ranking == ("a",) and len(store) > 250


def test_repair_leaves_alone_what_it_must(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copyfile(whole, path)
    assert tools.repair(path).damaged is None and len(LabelStore(path)) == 301
    with LabelStore(path) as store, Claims(store) as claims:
        claims.take(["k"], 1)
        with store.transaction() as db:
            db.execute("UPDATE answers SET ranking = '[' WHERE id = 5")
        with pytest.raises(AlkdError, match="is used by process"):
            tools.repair(path)
    (tmp_path / "notes").write_text("no store at all")
    for name, words in (
        ("notes", "nothing can be read"),
        ("none", "there is no file"),
        ("", "there is no file"),
    ):
        with pytest.raises(AlkdError, match=words):
            tools.repair(tmp_path / name)
    assert (tmp_path / "notes").read_text() == "no store at all"


def test_command(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "s"
    shutil.copyfile(whole, path)
    assert main(["repair", "--store", str(path)]) == 0
    assert "all is well, nothing to repair" in capsys.readouterr().out
    with LabelStore(path) as store, store.transaction() as db:
        db.execute("UPDATE answers SET ranking = '[' WHERE id = 5")
    assert main(["verify", "--store", str(path)]) == 1
    assert main(["repair", "--store", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"lost: label {LABELS[4].key}: not readable as JSON" in out
    assert f"300 labels and 1 hints saved, 1 rows lost; the damaged file is {path}.damaged" in out
    assert main(["verify", "--store", str(path)]) == 0
