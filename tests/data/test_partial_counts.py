"""Counts of parts: the table of their sum is the table of all sessions in memory, bit for bit, however they
are cut and ordered.
"""

from __future__ import annotations

import gzip
import lzma
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alkd import AlkdError
from recbole_alkd.cli import main
from recbole_alkd.data.click_blocks import ClickColumns
from recbole_alkd.data.count_sessions import count_file, count_sessions
from recbole_alkd.data.partial_counts import CountSettings, PartialCounts
from recbole_alkd.data.sum_counts import Sum, files_of_counts
from recbole_alkd.model.cut_table import cut_table
from recbole_alkd.model.grid_tables import Counting, Tables
from recbole_alkd.model.neighbours import cut
from recbole_alkd.serving import Recommender

COLUMNS = ClickColumns("session_id", "item_id", "timestamp", None)
HEAD = "session_id:token\titem_id:token\ttimestamp:float"

some_sessions = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=9), min_size=1, max_size=14)
hows = st.builds(
    Counting,
    st.sampled_from([0.0, 8.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 0.6, 0.9, 1.0]),
    st.just(0.5),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.2]),
)


def name_of(item):
    return ["zebra", "a", "B", "é", "10", "9", "x y", "ü", "mid"][
        item
    ]  # ids whose order is none of the numbers'


def in_memory(sessions, last_items, longest, how, neighbors):
    """The table of all sessions at once, of items in the order of their ids; None where no session is long
    enough.
    """
    kept = [session[-last_items:] if last_items else session for session in sessions if len(session) > 1]
    ids = sorted({name_of(item) for session in sessions for item in session})
    flat = np.array([ids.index(name_of(item)) + 1 for session in kept for item in session], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, kept)])
    tables = Tables(flat, offsets, len(ids) + 1, [how.gap_decay])
    return ids, tables.counts, cut(tables(how), neighbors)


def write_clicks(file, sessions, keys, seed=0):
    """Clicks in any order of sessions, each session's in the order of its times."""
    rows = [
        (f"{key}\t{name_of(item)}\t{1000 + place}", place)
        for key, one in zip(keys, sessions, strict=True)
        for place, item in enumerate(one)
    ]
    random.Random(seed).shuffle(rows)
    text = "\n".join([HEAD, *(row for row, _ in rows)]) + "\n"
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(Path(file).suffix, open)
    with opener(file, "wt", encoding="utf-8") as stream:
        stream.write(text)
    return Path(file)


def same(table, expected):
    """Bit for bit: the tables without and with the padding."""
    assert np.array_equal(table.indptr, expected.indptr[1:])
    assert np.array_equal(table.indices, expected.indices - 1)
    assert table.data.tobytes() == expected.data.tobytes()


@given(
    some_sessions,
    hows,
    st.integers(1, 4),
    st.sampled_from([None, 3, 20]),
    st.sampled_from([None, 2]),
    st.randoms(),
)
@settings(deadline=None, max_examples=60)
def test_the_table_of_parts_is_that_of_all_sessions(
    tmp_path_factory, sessions, how, n_parts, last_items, neighbors, rnd
):
    folder = tmp_path_factory.mktemp("parts")
    longest = 100 if last_items is None else last_items - 1
    counted = CountSettings(last_items, longest)
    part_of = [rnd.randrange(n_parts) for _ in sessions]
    keys = [f"s{k}" for k in range(len(sessions))]
    files = []
    for part in range(n_parts):
        mine = [k for k in range(len(sessions)) if part_of[k] == part]
        if not any(len(sessions[k]) > 1 for k in mine):
            continue
        file = write_clicks(
            folder / f"p{part}.inter", [sessions[k] for k in mine], [keys[k] for k in mine], part
        )
        spill, at_once = rnd.choice(
            [(1 << 22, 1 << 24), (3, 5)]
        )  # in memory; or in shards and in sorted runs of a few
        files.append(count_file(file, folder / "counts", COLUMNS, counted, spill, at_once))
    if not files:
        return
    rnd.shuffle(files)
    total = Sum([PartialCounts.read(file) for file in files])
    written = PartialCounts.read(
        total.write(folder / "all.counts.safetensors", at_once=rnd.choice([3, 1 << 24]))
    )
    # items that are only in sessions of one click are counted nowhere, and known all the same where their
    # part is
    seen = {part_of[k] for k in range(len(sessions)) if len(sessions[k]) > 1}
    sessions = [one for k, one in enumerate(sessions) if part_of[k] in seen]
    ids, times, expected = in_memory(sessions, last_items, longest, how, neighbors)
    assert written.ids == ids and written.sessions.tolist() == times[1:].tolist()
    same(cut_table(written, how, neighbors, folder, at_once=rnd.choice([3, 1 << 24])), expected)
    flat = np.array([ids.index(name_of(item)) for one in sessions for item in one], dtype=np.int64)
    kept = [key for k, key in enumerate(keys) if part_of[k] in seen]
    whole = count_sessions(flat, np.cumsum([0, *map(len, sessions)]), ids, kept, counted, "all")
    for name in ("start", "target", "gap", "count"):
        assert np.array_equal(getattr(whole.pairs, name), getattr(written.pairs, name))


def toy(count=60, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(9) for _ in range(rng.randrange(2, 8))] for _ in range(count)], [
        f"s{seed}-{k}" for k in range(count)
    ]


def counted_toy(folder, seed=0, ending=".inter", **how):
    file = write_clicks(folder / f"toy{seed}{ending}", *toy(seed=seed))
    return count_file(file, folder / "counts", COLUMNS, CountSettings(**how))


@pytest.mark.parametrize("ending", [".inter.gz", ".inter.xz", ".csv", ".parquet", "/"])
def test_every_kind_of_file_gives_the_same_counts(tmp_path, ending):
    plain = counted_toy(tmp_path)
    sessions, keys = toy()
    other = tmp_path / f"other{ending}"
    rows = [
        (key, name_of(item), 1000 + place)
        for key, one in zip(keys, sessions, strict=True)
        for place, item in enumerate(one)
    ]
    if ending == ".csv":
        other.write_text("session_id,item_id,timestamp\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    elif ending in (".parquet", "/"):
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = dict(
            zip(("session_id", "item_id", "timestamp"), map(list, zip(*rows, strict=True)), strict=True)
        )
        if ending == "/":
            (other / "day=1").mkdir(parents=True)
            times = pa.array(columns["timestamp"], pa.timestamp("s"))
            table = pa.table(
                {**columns, "item_id": pa.array(columns["item_id"]).dictionary_encode(), "timestamp": times}
            )
            parquet.write_table(table.slice(0, 100), other / "one.parquet")
            parquet.write_table(table.slice(100), other / "day=1" / "two.parquet")
        else:
            parquet.write_table(pa.table(columns), other, row_group_size=7)
    else:
        write_clicks(other, sessions, keys, seed=5)
    again = count_file(other, tmp_path / "again", COLUMNS, CountSettings())
    a, b = PartialCounts.read(plain), PartialCounts.read(again)
    assert a.parts[0].fingerprint == b.parts[0].fingerprint and a.ids == b.ids
    for x, y in zip(a.pairs, b.pairs, strict=True):
        assert np.array_equal(x, y)


def test_windows_of_a_user_are_sessions(tmp_path):
    file = tmp_path / "days.inter"
    day = 86400
    clicks = [
        ("u", "a", 10),
        ("u", "b", 20),
        ("u", "c", day + 1),
        ("u", "a", day + 2),
        ("v", "b", 5),
        ("v", "a", 6),
    ]
    file.write_text(
        "\n".join(
            ["user_id:token\titem_id:token\ttimestamp:float", *(f"{u}\t{i}\t{t}" for u, i, t in clicks)]
        )
        + "\n"
    )
    counts = PartialCounts.read(
        count_file(file, tmp_path / "counts", ClickColumns(), CountSettings(window=day))
    )
    assert counts.parts[0].sessions == 3 and counts.sessions.tolist() == [3, 2, 1]
    assert list(zip(counts.pairs.source().tolist(), counts.pairs.target.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (2, 0),
    ]


# -- what is refused


def test_the_same_part_is_added_once(tmp_path):
    first, second = counted_toy(tmp_path), counted_toy(tmp_path, seed=1)
    with pytest.raises(AlkdError, match="counted already"):
        counted_toy(tmp_path)  # the same sessions, of whatever file
    read = [PartialCounts.read(file) for file in (first, second)]
    both = Sum(read).counts()
    with pytest.raises(AlkdError, match=r"toy1\.inter are in .* already"):
        Sum([both, read[1]])
    with pytest.raises(AlkdError, match="already"):
        Sum([read[0], read[0]])


def test_parts_of_different_settings_are_refused(tmp_path):
    first = PartialCounts.read(counted_toy(tmp_path))
    second = PartialCounts.read(counted_toy(tmp_path, seed=1, last_items=5, longest=4))
    with pytest.raises(AlkdError, match=r"last_items 5, and .* with 20"):
        Sum([first, second])


def test_foreign_and_damaged_files_are_refused_by_name(tmp_path):
    file = counted_toy(tmp_path)
    content = file.read_bytes()
    PartialCounts.read(file)
    rng = random.Random(0)
    for at in {0, 9, 60, len(content) - 1, *(rng.randrange(len(content)) for _ in range(150))}:
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(changed))
        try:
            read = PartialCounts.read(file)
        except AlkdError as error:
            assert str(file) in str(error)
        else:  # a space of the header's padding
            assert [
                np.array_equal(x, y) for x, y in zip(read.pairs, PartialCounts.read(file).pairs, strict=True)
            ]
            assert at < 8 + int.from_bytes(content[:8], "little")
    for size in (0, 5, 100, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(AlkdError, match="damaged"):
            PartialCounts.read(file)
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(3)}, file)
    with pytest.raises(AlkdError, match=r"damaged|none of counts"):
        PartialCounts.read(file)
    with pytest.raises(AlkdError, match="no such file"):
        PartialCounts.read(tmp_path / "nothing")
    with pytest.raises(AlkdError, match=r"no \*\.counts\.safetensors in it"):
        files_of_counts([tmp_path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s1\ta\n", "line 2: 3 columns expected, found 2"),
        ("s1\ta\tnoon\ns1\tb\t2\n", "line 2: timestamp 'noon' is not a number"),
        ("s1\ta\t1\ns2\tb\t2\n", "no session of 2 clicks"),
        ("s1\t" + "x" * 1200 + "\t1\n", "line 2: an id of 1,200 characters"),
        ("", "no session of 2 clicks"),
    ],
    ids=["columns", "time", "short", "long id", "empty"],
)
def test_clicks_that_cannot_be_counted_are_one_line(tmp_path, text, message):
    file = tmp_path / "bad.inter"
    file.write_text(HEAD + "\n" + text)
    with pytest.raises(AlkdError, match=message):
        count_file(file, tmp_path / "counts", COLUMNS, CountSettings())
    assert not list((tmp_path / "counts").iterdir())


def test_parquet_of_other_types_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, table, message in (
        (
            "ids",
            pa.table({"session_id": [1, 1], "item_id": [1.0, 2.5], "timestamp": [1, 2]}),
            "item_id is of type double",
        ),
        (
            "times",
            pa.table({"session_id": [1, 1], "item_id": [1, 2], "timestamp": [1, None]}),
            "a click without a time",
        ),
        (
            "columns",
            pa.table({"session": [1], "item_id": [1], "timestamp": [1]}),
            "no column 'session_id'; it has session,",
        ),
    ):
        parquet.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(AlkdError, match=message):
            count_file(tmp_path / f"{name}.parquet", tmp_path / "counts", COLUMNS, CountSettings())
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(AlkdError, match="cannot be read as Parquet"):
        count_file(tmp_path / "broken.parquet", tmp_path / "counts", COLUMNS, CountSettings())


def test_rows_without_an_id_are_left_out(tmp_path):
    file = tmp_path / "blank.inter"
    file.write_text(HEAD + "\ns1\ta\t1\ns1\t\t2\n\tb\t3\ns1\tb\t4\n")
    counts = PartialCounts.read(count_file(file, tmp_path / "counts", COLUMNS, CountSettings()))
    assert counts.parts[0].clicks == 2 and counts.ids == ["a", "b"]


# -- from the command line


def run(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    out = capsys.readouterr()
    return ended.value.code or 0, out.out, out.err


def test_count_merge_table_recommend(tmp_path, capsys):
    for seed in (0, 1):
        write_clicks(tmp_path / f"toy{seed}.inter", *toy(seed=seed))
        words = [
            "count",
            "--inter",
            str(tmp_path / f"toy{seed}.inter"),
            "--out",
            str(tmp_path / "counts"),
            "--session-field",
            "session_id",
        ]
        code, out, _ = run(words, capsys)
        assert code == 0 and "in 60 sessions, 9 items" in out
    code, out, err = run(words, capsys)
    assert code == 2 and "counted already" in err
    code, out, _ = run(["merge", str(tmp_path / "counts"), "--out", str(tmp_path / "all")], capsys)
    assert code == 0 and "in 120 sessions" in out
    merged = tmp_path / "all.counts.safetensors"
    code, _, err = run(
        ["table", "--counts", str(tmp_path / "counts"), "--out", str(tmp_path / "bundle")], capsys
    )
    assert code == 2 and "2 files of counts" in err
    titles = tmp_path / "toy.item"
    titles.write_text("item_id:token\ttitle:token_seq\nzebra\tThe zebra\n")
    how = ["--gap-decay", "0.8", "--backward", "0.2", "--neighbors", "3", "--titles", str(titles)]
    code, out, _ = run(["table", "--counts", str(merged), "--out", str(tmp_path / "bundle"), *how], capsys)
    assert code == 0
    served = Recommender.load(tmp_path / "bundle", verify=True)
    sessions = toy(seed=0)[0] + toy(seed=1)[0]
    _, _, expected = in_memory(sessions, 20, 19, Counting(gap_decay=0.8, backward=0.2), 3)
    assert served.student.weights.tobytes() == expected.data.astype(np.float16).tobytes()
    assert served.student.neighbours.tolist() == expected.indices.tolist()
    code, out, _ = run(
        ["recommend", "--bundle", str(tmp_path / "bundle"), "--history", "a B", "-k", "2"], capsys
    )
    assert code == 0 and len(served.recommend(["a", "B"], k=2)) == 2
    code, out, _ = run(
        [
            "table",
            "--counts",
            str(merged),
            "--out",
            str(tmp_path / "same"),
            "--neighbors",
            "3",
            "--like",
            str(tmp_path / "bundle"),
        ],
        capsys,
    )
    assert (
        code == 0
        and (tmp_path / "same" / "student.safetensors").read_bytes()
        == (tmp_path / "bundle" / "student.safetensors").read_bytes()
    )
    for words, message in (
        (
            ["table", "--counts", str(merged), "--out", str(tmp_path / "x"), "--gap-decay", "2"],
            "--gap-decay: 2 is not allowed",
        ),
        (["table", "--counts", str(merged), "--out", str(tmp_path / "bundle")], "is there already"),
        (["merge", str(merged), "--out", str(merged)], "is there already"),
        (
            ["count", "--inter", str(tmp_path / "none"), "--out", str(tmp_path / "c")],
            "no such file or folder",
        ),
        (
            [
                "count",
                "--inter",
                str(tmp_path / "toy0.inter"),
                "--out",
                str(tmp_path / "c"),
                "--last-items",
                "1",
            ],
            "--last-items: 1",
        ),
    ):
        code, _, err = run(words, capsys)
        assert code == 2 and message in err and err.count("\n") == 1, err


KILLED = """
import sys, time
from recbole_alkd.cli import main
from recbole_alkd.data import count_sessions
before = count_sessions.PairCounter.add
def slow(self, *a):
    print("counting", flush=True)
    before(self, *a)
    time.sleep({seconds})
count_sessions.PairCounter.add = slow
main(["count", "--inter", sys.argv[1], "--out", sys.argv[2], "--session-field", "session_id"])
"""


def test_a_kill_leaves_whole_files(tmp_path):
    """Killed while it counts, nothing of it is there; the next start counts anew."""
    file = write_clicks(tmp_path / "toy0.inter", *toy())
    out = tmp_path / "counts"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(seconds=60), str(file), str(out)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"counting"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not [one for one in out.iterdir() if not one.name.startswith(".")]
    assert PartialCounts.read(count_file(file, out, COLUMNS, CountSettings())).parts[0].sessions == 60


def test_a_missing_time_that_is_the_smallest_number_is_refused_where_it_has_a_unit(tmp_path):
    """-2^63, which pandas has for NaT, is its own absolute value to numpy, and times a unit it is 0."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = ClickColumns(session="session_id", window=None, time_unit="s")
    rows = {"session_id": [1, 1], "item_id": [1, 2], "timestamp": [5, -(2**63)]}
    parquet.write_table(pa.table(rows), tmp_path / "clicks.parquet")
    (tmp_path / "clicks.csv").write_text(pd.DataFrame(rows).to_csv(index=False))
    for name in ("clicks.parquet", "clicks.csv"):
        with pytest.raises(AlkdError, match=r"-9223372036854775808.* is out of range"):
            count_file(tmp_path / name, tmp_path / "counts", columns, CountSettings())


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "clicks.parquet").write_bytes(b"PAR1")
    with pytest.raises(AlkdError, match=r"pip install 'recbole-alkd\[scale\]'"):
        count_file(tmp_path / "clicks.parquet", tmp_path / "counts", COLUMNS, CountSettings())
