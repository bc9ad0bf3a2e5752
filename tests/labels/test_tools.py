"""Store tools and ``recbole-alkd store``: what goes out comes back in; damage is found;
two stores become one."""

import json
import sqlite3
from pathlib import Path

import pytest

from recbole_alkd.labels import Label, LabelStore, tools
from recbole_alkd.labels.cli import main
from recbole_alkd.settings.error import AlkdError

LABELS = [
    Label(
        "k1",
        ("85123A", "22423"),
        ("22423", "85123A"),
        "[1]",
        {"duplicate": 1},
        100,
        20,
        1.5,
        0.25,
        "ok",
        "api|x",
        1000.0,
    ),
    Label("k2", (), ("22423",), "I cannot \ud83d \u0000", {}, 100, 5, 0.5, 0.05, "failed", "api|x", 2000.0),
    Label("k3", ("é",), (), "", {}, teacher="null"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "labels.sqlite"
    with LabelStore(path) as store:
        store.put_many(LABELS)
    return path


def test_list(path: Path) -> None:
    with LabelStore(path) as store:
        assert [line.key for line in tools.list_labels(store)] == ["k1", "k2", "k3"]
        assert [line.key for line in tools.list_labels(store, status="ok")] == ["k1", "k3"]
        assert [line.key for line in tools.list_labels(store, teacher="api")] == ["k1", "k2"]
        first = next(tools.list_labels(store))
        assert first == tools.Line("k1", "ok", "api|x", 100, 20, 1.5, 0.25, 1000.0)


def test_stats_know_what_replaced_labels_took(path: Path) -> None:
    with LabelStore(path) as store:
        before = tools.stats(store)
        assert before == [
            tools.TeacherStats("api|x", 1, 1, 0, 200, 25, 2.0, pytest.approx(0.3), 1000.0, 2000.0),
            tools.TeacherStats("null", 1, 0, 0, 0, 0, 0.0, None, None, None),
        ]
        store.put(Label("k2", ("22423",), ("22423",), usd=0.07, teacher="api|x", time=3000.0))
        after = tools.stats(store)[0]
        assert (after.ok, after.failed, after.replaced, after.usd, after.last) == (
            2,
            0,
            1,
            pytest.approx(0.37),
            3000.0,
        )


def test_json_lines_there_and_back(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "labels.jsonl"
    with LabelStore(path) as store, LabelStore(tmp_path / "other.sqlite") as other:
        assert tools.export_labels(store, file) == 3
        assert json.loads(file.read_text().splitlines()[0])["ranking"] == ["85123A", "22423"]
        assert tools.import_labels(other, file) == (3, 3)
        assert list(other) == LABELS
        assert tools.import_labels(other, file) == (3, 0)
        assert tools.export_labels(store, file, status="ok") == 2
    assert [p.name for p in file.parent.iterdir()] == ["labels.jsonl"]  # no half file is left


def test_parquet_there_and_back(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    file = tmp_path / "labels.parquet"
    with LabelStore(path) as store, LabelStore(tmp_path / "other.sqlite") as other:
        assert tools.export_labels(store, file) == 3
        assert tools.import_labels(other, file) == (3, 3)
        read_back = list(other)
        assert [read_back[0], read_back[2]] == [LABELS[0], LABELS[2]]
        assert read_back[1].raw == "I cannot ? \0"
        (tmp_path / "bad.parquet").write_text("no Parquet")
        with pytest.raises(AlkdError, match=r"bad\.parquet' cannot be read"):
            tools.import_labels(other, tmp_path / "bad.parquet")


def test_parquet_without_pyarrow_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with LabelStore(path) as store, pytest.raises(AlkdError, match="pip install pyarrow"):
        tools.export_labels(store, tmp_path / "labels.parquet")
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not readable as JSON"),
        ("[]", "line 2: no label; needed are key and ranking"),
        ('{"key": "a"}', "line 2: no label"),
        (
            '{"key": "a", "ranking": [], "colour": 1}',
            "line 2: no label; needed are key and ranking, allowed: key, ranking",
        ),
        ('{"key": "a", "ranking": "abc"}', "line 2: a value is of the wrong type"),
        ('{"key": "a", "ranking": [1]}', "line 2: label a: the item token 1 is not text"),
        ('{"key": "a", "ranking": [], "raw": 1}', "line 2: a value is of the wrong type"),
        ('{"key": "\\ud83d", "ranking": []}', "line 2: label '\\ud83d': a value cannot be stored"),
        ('{"key": "a", "ranking": [], "status": "fine"}', "line 2: status of label a: 'fine' is not allowed"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_stored(path: Path, tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"key": "new", "ranking": ["1"]}\n' + line + "\n")
    with LabelStore(path) as store:
        with pytest.raises(AlkdError) as error:
            tools.import_labels(store, file)
        assert words in str(error.value) and "bad.jsonl" in str(error.value)
        assert len(store) == 3


def test_other_suffixes_and_missing_files(path: Path, tmp_path: Path) -> None:
    with LabelStore(path) as store:
        with pytest.raises(AlkdError, match=r"ends with '\.csv'; allowed: \.jsonl \| \.parquet"):
            tools.export_labels(store, tmp_path / "a.csv")
        with pytest.raises(AlkdError, match="cannot be read"):
            tools.import_labels(store, tmp_path / "none.jsonl")
    with pytest.raises(AlkdError, match="there is no file"):
        tools.open_existing(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_verify_finds_damage(path: Path) -> None:
    with LabelStore(path) as store:
        assert tools.verify(store) == []
        with store.transaction() as db:
            db.execute('UPDATE answers SET ranking = \'["a", "a"]\' WHERE id = 1')
            db.execute("UPDATE answers SET candidates = '{' WHERE id = 2")
            db.execute("UPDATE labels SET status = 'good' WHERE id = 3")
            db.execute("INSERT INTO answers VALUES (9, '[]', '[]', '{}', '')")
            db.execute("INSERT INTO labels VALUES (8, 'lost', 'ok', 77, 0, 0, 0, NULL, NULL)")
        assert tools.verify(store) == [
            "label without an answer: lost",
            "label without a teacher: lost",
            "answer without a label: 9",
            "label k1: an item is ranked twice",
            "label k2: not readable as JSON",
            "label k3: status 'good' is not allowed; allowed: ok | failed",
        ]


def test_verify_finds_a_damaged_file(path: Path, tmp_path: Path) -> None:
    with LabelStore(path) as store:
        store.put_many(Label(f"x{i}", (str(i),), raw="y" * 500) for i in range(500))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(path.read_bytes())
    for page in range(20, 40):
        damaged[page * 4096 + 100 : page * 4096 + 2000] = b"\xff" * 1900
    path.write_bytes(damaged)
    with LabelStore(path) as store:
        problems = tools.verify(store)
    assert problems[0].startswith("file: ")
    assert any(problem.startswith("label without an answer: x") for problem in problems)  # rows are named


def test_merge(path: Path, tmp_path: Path) -> None:
    with LabelStore(path) as store, LabelStore(tmp_path / "other.sqlite") as other:
        other.put_many(
            [
                Label("k1", ("other",)),  # the first one stays
                Label("k2", ("22423",), teacher="api|x", time=3000.0),  # an ok label for one that failed here
                Label("k4", (), status="failed", raw="\ud83d", usd=0.5, teacher="old"),
            ]
        )
        other.put(Label("k4", ("z",), teacher="old"))
        assert tools.merge(store, other) == (3, 2)
        assert [store.get(key).ranking for key in ("k1", "k2", "k4")] == [
            ("85123A", "22423"),
            ("22423",),
            ("z",),
        ]
        spent = {stats.teacher: (stats.replaced, stats.usd) for stats in tools.stats(store)}
        assert spent["old"] == (1, 0.5) and spent["api|x"] == (1, pytest.approx(0.3))
        assert tools.merge(store, other) == (3, 0)
        assert {stats.teacher: (stats.replaced, stats.usd) for stats in tools.stats(store)} == spent
        assert tools.verify(store) == []


def test_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    store = ["--store", str(path)]
    out = str(tmp_path / "out.jsonl")

    def run(*argv: str) -> str:
        assert main(argv) == 0
        return capsys.readouterr().out

    assert run("list", *store).splitlines() == [
        "k1  1970-01-01 00:16  ok           100+20    0.250000  api|x",
        "k2  1970-01-01 00:33  failed        100+5    0.050000  api|x",
        "k3  ----------------  ok              0+0           -  null",
    ]
    assert len(run("list", "--limit", "1", "--status", "ok", *store).splitlines()) == 1
    told = run("stats", *store)
    assert (
        "2 ok, 1 failed" in told
        and "200 prompt + 25 completion tokens, 0.3000 USD, 2.0 s" in told
        and "no price" in told
    )
    assert run("export", out, *store) == f"3 labels written to {out}\n"
    other = str(tmp_path / "new" / "store.sqlite")
    assert run("import", out, "--store", other) == f"3 of 3 labels of {out} are new in {other}\n"
    assert run("merge", other, *store) == f"0 of 3 labels of {other} are new in {path}\n"
    assert run("verify", *store) == f"{path}: 3 labels, all is well\n"
    with LabelStore(path) as opened, opened.transaction() as db:
        db.execute("UPDATE labels SET status = 'good' WHERE id = 3")
    assert main(["verify", *store]) == 1
    assert "label k3: status 'good'" in capsys.readouterr().out
    for argv in (["list", "--store", str(tmp_path / "none")], ["merge", str(path), *store]):
        with pytest.raises(AlkdError):
            main(argv)


def test_import_keeps_rankings_whose_numbers_are_none(tmp_path: Path) -> None:
    odd = [10**30, 12.5, -1, True, "many", None, float("nan"), [1], {}]
    lines = [
        {"key": f"k{n}", "ranking": ["a"], "prompt_tokens": value, "usd": value, "time": value}
        for n, value in enumerate(odd)
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text(
        "".join(
            json.dumps(line) + "\n"
            for line in [*lines, {"key": "good", "ranking": ["a"], "prompt_tokens": 12.0}]
        )
    )
    with LabelStore(tmp_path / "s") as store:
        assert tools.import_labels(store, file) == (10, 10)
        assert [store.get(f"k{n}").ranking for n in range(9)] == [("a",)] * 9
        assert [store.get(f"k{n}").prompt_tokens for n in range(9)] == [0] * 9
        assert store.get("good").prompt_tokens == 12
        assert tools.verify(store) == []


def test_import_of_conflicting_keys_keeps_the_first(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    lines = [("new", ["a"]), ("new", ["b"]), ("k1", ["z"]), ("k2", ["z"])]
    file.write_text("".join(json.dumps({"key": key, "ranking": ranking}) + "\n" for key, ranking in lines))
    with LabelStore(path) as store:
        assert tools.import_labels(store, file) == (4, 2)
        assert [store.get(key).ranking for key in ("new", "k1", "k2")] == [
            ("a",),
            ("85123A", "22423"),
            ("z",),
        ]


def test_odd_numbers_in_a_store_are_shown_all_the_same(path: Path, capsys: pytest.CaptureFixture) -> None:
    with LabelStore(path) as store, store.transaction() as db:
        db.execute("UPDATE labels SET time = 1e300, usd = 'free', prompt_tokens = -3 WHERE id = 1")
        db.execute("UPDATE labels SET time = 'yesterday' WHERE id = 2")
    for command in ("list", "stats"):
        assert main([command, "--store", str(path)]) == 0
    assert "----------------  ok" in capsys.readouterr().out
    assert main(["verify", "--store", str(path)]) == 1
    assert "label k1: tokens, seconds, USD or time are no numbers" in capsys.readouterr().out


def test_show_prints_one_label(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "s"
    with LabelStore(path) as store:
        store.put(
            Label(
                "ab12",
                ("7", "3"),
                ("3", "7", "9"),
                raw="[7,\x1b[31m 3]\ud83d\nend",
                repairs={"unknown": 2},
                teacher="api|m",
            )
        )
        store.put(Label("ab34", ("3",)))
    main(["show", "ab1", "--store", str(path)])
    shown = capsys.readouterr().out
    assert (
        "key         ab12" in shown
        and "candidates  3 7 9" in shown
        and "ranking     7 3" in shown
        and "unknown 2" in shown
    )
    assert "[7,\\x1b[31m 3]\\ud83d\nend" in shown and "\x1b" not in shown  # no command to the terminal
    for key, words in [("ab", "2 labels begin so, such as ab12 and ab34"), ("x", "no label begins so")]:
        with pytest.raises(AlkdError, match=words):
            main(["show", key, "--store", str(path)])
