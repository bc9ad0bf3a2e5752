"""make_sessions: raw clicks to session files."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from session_files import read_rows, shared_data, write_inter

from recbole_alkd.data.sessions import make_sessions
from recbole_alkd.data.tables import MISSING
from recbole_alkd.settings.error import AlkdError

PARTS = ("train", "valid", "test")
DAY = 86400
# 2010-12-01; float32 has steps of 128 s here
START = 1_291_191_960 // DAY * DAY


def five_days(path: Path) -> Path:
    """Users 0..4, one session of 6 items each, one second apart, newest click first in the file."""
    return write_inter(
        path, [(u, f"i{u}{k}", START + u * DAY + k) for u in range(5) for k in reversed(range(6))]
    )


def test_golden_prefix(tmp_path: Path) -> None:
    counts = make_sessions(five_days(tmp_path / "raw.inter"), tmp_path / "toy", min_length=6, order="time")
    day = START // DAY
    assert read_rows(tmp_path / "toy", "train")[:6] == [
        (f"0@{day}", ["i00"], "i01"),
        (f"0@{day}", ["i00", "i01"], "i02"),
        (f"0@{day}", ["i00", "i01", "i02"], "i03"),
        (f"0@{day}", ["i00", "i01", "i02", "i03"], "i04"),
        (f"0@{day}", ["i00", "i01", "i02", "i03", "i04"], "i05"),
        (f"1@{day + 1}", ["i10"], "i11"),
    ]
    assert read_rows(tmp_path / "toy", "valid") == [
        (f"3@{day + 3}", ["i30", "i31", "i32", "i33", "i34"], "i35")
    ]
    assert read_rows(tmp_path / "toy", "test") == [
        (f"4@{day + 4}", ["i40", "i41", "i42", "i43", "i44"], "i45")
    ]
    assert counts == {
        "rows": 30,
        "rows_without_id": 0,
        "sessions_found": 5,
        "sessions_too_short": 0,
        "sessions": 5,
        "interactions": 30,
        "items": 30,
        "train_sessions": 3,
        "valid_sessions": 1,
        "test_sessions": 1,
        "train_rows": 15,
        "valid_rows": 1,
        "test_rows": 1,
    }
    header = (tmp_path / "toy" / "toy.train.inter").read_text().splitlines()[0]
    assert header == "session_id:token\titem_id_list:token_seq\titem_id:token"


def test_golden_last_keeps_the_last_items(tmp_path: Path) -> None:
    make_sessions(
        five_days(tmp_path / "raw.inter"), tmp_path / "toy", order="time", augmentation="last", max_length=2
    )
    rows = [row for part in PARTS for row in read_rows(tmp_path / "toy", part)]
    assert [(history, target) for _, history, target in rows] == [
        ([f"i{u}3", f"i{u}4"], f"i{u}5") for u in range(5)
    ]


def test_record(tmp_path: Path) -> None:
    counts = make_sessions(five_days(tmp_path / "raw.inter"), tmp_path / "toy", seed=7)
    text = (tmp_path / "toy" / "toy.sessions.json").read_text()
    record = json.loads(text)
    assert record["counts"] == counts and record["input"] == "raw.inter" and record["settings"]["seed"] == 7
    assert str(tmp_path) not in text


def test_seed_decides_the_random_split(tmp_path: Path) -> None:
    raw = write_inter(tmp_path / "raw.inter", [(u, k, START + k) for u in range(40) for k in range(5)])
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_sessions(raw, tmp_path / name, seed=seed)
    train = {name: [row[0] for row in read_rows(tmp_path / name, "train")] for name in "abc"}
    assert train["a"] == train["b"] and set(train["a"]) != set(train["c"])


def test_windows_are_utc_days_and_half_open(tmp_path: Path) -> None:
    clicks = [("u", k, START + t) for k, t in enumerate((-2, -1, 0, DAY - 1, DAY, DAY + 1))]
    make_sessions(write_inter(tmp_path / "raw.inter", clicks), tmp_path / "toy", min_length=2, order="time")
    day = START // DAY
    assert [read_rows(tmp_path / "toy", part) for part in PARTS] == [
        [(f"u@{day - 1}", ["0"], "1")],
        [(f"u@{day}", ["2"], "3")],
        [(f"u@{day + 1}", ["4"], "5")],
    ]


def test_session_tokens_do_not_clash(tmp_path: Path) -> None:
    clicks = [
        (user, k, START + w * DAY + k) for user in ("a", "a@1", "a@14944") for w in (0, 1) for k in range(2)
    ]
    counts = make_sessions(write_inter(tmp_path / "raw.inter", clicks), tmp_path / "toy", min_length=2)
    tokens = [row[0] for part in PARTS for row in read_rows(tmp_path / "toy", part)]
    assert counts["sessions"] == 6 and len(set(tokens)) == 6


def test_session_field_and_window_none(tmp_path: Path) -> None:
    clicks = [(f"s{s}", "u", k, START + s * 10 * DAY + k * DAY) for s in range(3) for k in range(3)]
    raw = write_inter(
        tmp_path / "raw.inter", clicks, "visit:token\tuser_id:token\titem_id:token\ttimestamp:float"
    )
    make_sessions(raw, tmp_path / "by_field", session_field="visit", min_length=3, order="time")
    make_sessions(raw, tmp_path / "by_user", user_field="visit", window=None, min_length=3, order="time")
    for part, session in zip(PARTS, ("s0", "s1", "s2"), strict=True):
        assert {row[0] for row in read_rows(tmp_path / "by_field", part)} == {session}
        assert read_rows(tmp_path / "by_field", part) == read_rows(tmp_path / "by_user", part)


def test_ties_keep_file_order(tmp_path: Path) -> None:
    clicks = [(u, item, START) for item in "dbca" for u in range(3)]
    make_sessions(
        write_inter(tmp_path / "raw.inter", clicks), tmp_path / "toy", min_length=4, augmentation="last"
    )
    assert all(
        row[1:] == (["d", "b", "c"], "a") for part in PARTS for row in read_rows(tmp_path / "toy", part)
    )


def test_plain_gz_and_xz_are_the_same(tmp_path: Path) -> None:
    plain = five_days(tmp_path / "raw.inter")
    (tmp_path / "raw.item").write_text("item_id:token\ttitle:token_seq\ni00\tA\n")
    for folder, opener, ending in (("gz", gzip.open, ".gz"), ("xz", lzma.open, ".xz")):
        (tmp_path / folder).mkdir()
        for name in ("raw.inter", "raw.item"):
            with opener(tmp_path / folder / (name + ending), "wb") as stream:
                stream.write((tmp_path / name).read_bytes())
    make_sessions(plain, tmp_path / "p" / "toy")
    make_sessions(tmp_path / "gz" / "raw.inter.gz", tmp_path / "g" / "toy")
    make_sessions(tmp_path / "xz" / "raw.inter.xz", tmp_path / "x" / "toy")
    for name in ("toy.train.inter", "toy.valid.inter", "toy.test.inter", "toy.item"):
        written = [(tmp_path / folder / "toy" / name).read_bytes() for folder in "pgx"]
        assert written[0] == written[1] == written[2]


def test_written_beside_its_input_again_and_again(tmp_path: Path) -> None:
    raw = five_days(tmp_path / "toy" / "toy.inter")
    (tmp_path / "toy" / "toy.item").write_text("item_id:token\ttitle:token_seq\n")
    first = make_sessions(raw, tmp_path / "toy")
    assert make_sessions(raw, tmp_path / "toy") == first
    assert (tmp_path / "toy" / "toy.item").read_text() == "item_id:token\ttitle:token_seq\n"


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("{}.0", None),
        ("{}e0", None),
        ("{}000", "ms"),
        ("{}.000001", "s"),
        ("{}000000.25", "us"),
        ("{}000000000", "ns"),
    ],
)
def test_timestamps_are_exact(tmp_path: Path, written: str, unit: str | None) -> None:
    clicks = [(u, f"{k}", written.format(START + k)) for u in range(3) for k in (2, 0, 1)]
    make_sessions(
        write_inter(tmp_path / "raw.inter", clicks),
        tmp_path / "toy",
        min_length=3,
        augmentation="last",
        time_unit=unit,
    )
    rows = [row for part in PARTS for row in read_rows(tmp_path / "toy", part)]
    assert [row[1:] for row in rows] == [(["0", "1"], "2")] * 3
    assert {row[0].split("@")[1] for row in rows} == {str(START // DAY)}


def test_order_below_a_second(tmp_path: Path) -> None:
    clicks = [(u, k, f"{START}.{k:09d}") for u in range(3) for k in (3, 1, 2)]
    make_sessions(
        write_inter(tmp_path / "raw.inter", clicks),
        tmp_path / "toy",
        min_length=3,
        time_unit="s",
        augmentation="last",
    )
    assert all(row[1:] == (["1", "2"], "3") for part in PARTS for row in read_rows(tmp_path / "toy", part))


def test_rows_without_id_and_blank_lines(tmp_path: Path) -> None:
    raw = five_days(tmp_path / "raw.inter")
    raw.write_text(raw.read_text() + f"\n\t\t\nNA\ti00\t{START}\n0\t\t{START}\n0\tnull\t{START}\n")
    counts = make_sessions(raw, tmp_path / "toy")
    assert (counts["rows"], counts["rows_without_id"], counts["interactions"]) == (34, 4, 30)


def test_quotes_are_read_as_recbole_reads_them(tmp_path: Path) -> None:
    clicks = [(u, item, START + k) for u in range(3) for k, item in enumerate(('"""a"', 'b"c', "d"))]
    make_sessions(
        write_inter(tmp_path / "raw.inter", clicks),
        tmp_path / "toy",
        min_length=3,
        order="time",
        augmentation="last",
    )
    line = (tmp_path / "toy" / "toy.test.inter").read_text().splitlines()[1]
    assert line == f'2@{START // DAY}\t"""a b""c"\td'


def refused(
    tmp_path: Path,
    message: str,
    *rows: str,
    header: str = "user_id:token\titem_id:token\ttimestamp:float",
    **settings,
) -> None:
    """make_sessions on these rows fails with ``message``, the path left out (it holds the test's name),
    and writes nothing."""
    raw = tmp_path / "raw.inter"
    raw.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    with pytest.raises(AlkdError) as caught:
        make_sessions(raw, tmp_path / "toy", **settings)
    text = str(caught.value).replace(str(raw), "FILE")
    assert re.search(message, text) and "\n" not in text and str(tmp_path) not in text
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["u\ti\t5.5"], r"line 2: timestamp '5\.5' is not an integer.*time_unit"),
        (["u\ti\t5", "u\ti\tsoon"], "line 3: timestamp 'soon' is not a number"),
        (["u\ti\t"], "line 2: timestamp '' is not a number"),
        (["u\ti\tnan"], "FILE, line 2: timestamp 'nan' is out of range"),
        (["u\ti\t1e999999999"], "line 2: timestamp '1e999999999' is not a number that can be kept exactly"),
        (["u\ti\t1e-999999999"], "line 2: timestamp '1e-999999999' is not a number that can be kept exactly"),
        (["u\ti\t99999999999999999999"], "out of range"),
        (["u\ti\t1291191960000"], "year 5138.*time_unit"),
        # what others write for a missing time; its absolute value is no int64
        (["u\ti\t5", f"u\ti\t{-(2**63)}"], "timestamp -9223372036854775808: no second before the year 5138"),
        (["u\ti\t" + "9" * 5000], r"line 2: timestamp '9{60}'\.\.\. \(5,000 characters\) is not a number"),
        (["u\ti\t5", "u\ti"], "line 3: 3 columns expected, found 2"),
        (['u\t"i\t5', 'u\ti"\t5'], "line 3: 3 columns expected, found a quote that stays open"),
        (['"u', 'u"\ti\t5'], "line 3: 3 columns expected, found a quote that stays open"),
        (["u\ti\t5"], "none of 1 sessions has 5 records"),
        ([], "none of 0 sessions"),
        ([f"u\ta b\t{k}" for k in range(5)], "'a b' holds a space"),
        ([f"u\ta\t{k}" for k in range(5)], "1 sessions are too few"),
    ],
)
def test_bad_rows(tmp_path: Path, rows: list[str], message: str) -> None:
    refused(tmp_path, message, *rows)


def test_finer_than_a_nanosecond(tmp_path: Path) -> None:
    refused(tmp_path, r"FILE, line 2: timestamp '5\.1' \(ns\) is finer", "u\ti\t5.1", time_unit="ns")
    # 32 digits: a float, and a rounded decimal, would call this an integer
    refused(
        tmp_path,
        r"01' \(s\) is finer than a nanosecond",
        "u\ti\t1.0000000000000000000000000000001",
        time_unit="s",
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("user_id\titem_id\ttimestamp", "is not a header"),
        ("user_id:token\titem_id:token", "no column 'timestamp'.*user_id, item_id"),
        ("user:token\titem_id:token\ttimestamp:float", "no column 'user_id'.*user, item_id, timestamp"),
        ("user_id:token\titem:token\ttimestamp:float", "no column 'item_id'"),
        ("", "is not a header"),
    ],
)
def test_bad_headers(tmp_path: Path, header: str, message: str) -> None:
    refused(tmp_path, message, header=header)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"split": (0.6, 0.2, 0.3)}, "split: .*sum to 1"),
        ({"split": (1.2, -0.1, -0.1)}, "split"),
        ({"split": (0.8, 0.2)}, "three"),
        ({"split": (0.8, 0.2, 0)}, "positive"),
        ({"split": 3}, "split"),
        ({"order": "RO"}, r"order: 'RO'.*random \| time"),
        ({"augmentation": "all"}, r"augmentation: 'all'.*prefix \| last"),
        ({"window": 0}, "window: 0"),
        ({"window": 1.5}, "window: 1.5"),
        ({"min_length": 1}, "min_length: 1"),
        ({"max_length": 0}, "max_length"),
        ({"seed": -1}, "seed"),
        ({"time_unit": "h"}, "time_unit"),
        ({"session_field": "visit"}, "no column 'visit'"),
    ],
)
def test_bad_settings(tmp_path: Path, setting: dict, message: str) -> None:
    with pytest.raises(AlkdError, match=message):
        make_sessions(five_days(tmp_path / "raw.inter"), tmp_path / "toy", **setting)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(AlkdError, match="no such file"):
        make_sessions(tmp_path / "none.inter", tmp_path / "toy")
    (tmp_path / "raw.inter.gz").write_bytes(b"not compressed")
    with pytest.raises(AlkdError, match="cannot be read"):
        make_sessions(tmp_path / "raw.inter.gz", tmp_path / "toy")
    whole = gzip.compress(five_days(tmp_path / "raw.inter").read_bytes())
    (tmp_path / "raw.inter.gz").write_bytes(whole[:-20])
    with pytest.raises(AlkdError, match="cannot be read"):
        make_sessions(tmp_path / "raw.inter.gz", tmp_path / "toy")
    (tmp_path / "raw.inter").write_bytes(
        "user_id:token\titem_id:token\ttimestamp:float\nü\ti\t5\n".encode("latin-1")
    )
    with pytest.raises(AlkdError, match="cannot be read"):
        make_sessions(tmp_path / "raw.inter", tmp_path / "toy")
    (tmp_path / "file").write_text("")
    with pytest.raises(AlkdError, match="cannot be written"):
        make_sessions(five_days(tmp_path / "raw.inter"), tmp_path / "file")


def test_all_files_or_none(tmp_path: Path) -> None:
    raw = five_days(tmp_path / "raw.inter")
    (tmp_path / "raw.item").write_bytes(b"item_id:token\ttitle:token_seq\ni00\t\xff\n")
    with pytest.raises(AlkdError, match=r"raw\.item"):
        make_sessions(raw, tmp_path / "toy")
    assert list((tmp_path / "toy").iterdir()) == []


@pytest.mark.parametrize("first", [0, 1])
def test_positions_are_no_clock(tmp_path: Path, first: int) -> None:
    clicks = [(s, k, k + first) for s in range(6) for k in range(5 + s)]
    raw = write_inter(tmp_path / "raw.inter", clicks)
    with pytest.raises(AlkdError, match=r"timestamp: .*positions.*order='random'"):
        make_sessions(raw, tmp_path / "toy", order="time")
    assert make_sessions(raw, tmp_path / "toy")["sessions"] == 6


def test_counters_that_go_on_are_a_clock(tmp_path: Path) -> None:
    clicks = [(s, k, s * 5 + k) for s in range(5) for k in range(5)]
    make_sessions(write_inter(tmp_path / "raw.inter", clicks), tmp_path / "toy", order="time")
    assert [row[0] for row in read_rows(tmp_path / "toy", "test")] == ["4@0"]


def clicks_strategy() -> st.SearchStrategy[list[tuple[int, int, int]]]:
    click = st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(-2 * DAY, 4 * DAY))
    return st.lists(click, min_size=20, max_size=80)


def oracle(clicks: list[tuple[int, int, int]], min_length: int) -> dict[str, list[str]]:
    """Session token -> items, with a loop."""
    sessions: dict[str, list[tuple[int, int, int]]] = {}
    for place, (user, item, time) in enumerate(clicks):
        sessions.setdefault(f"{user}@{time // DAY}", []).append((time, place, item))
    return {
        token: [str(c[2]) for c in sorted(own_clicks)]
        for token, own_clicks in sessions.items()
        if len(own_clicks) >= min_length
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clicks=clicks_strategy(),
    min_length=st.integers(2, 4),
    max_length=st.integers(1, 6),
    order=st.sampled_from(["random", "time"]),
    augmentation=st.sampled_from(["prefix", "last"]),
    seed=st.integers(0, 2**32),
)
def test_against_a_loop(tmp_path, clicks, min_length, max_length, order, augmentation, seed) -> None:
    wanted = oracle(clicks, min_length)
    chosen = {
        "min_length": min_length,
        "max_length": max_length,
        "order": order,
        "augmentation": augmentation,
        "seed": seed,
    }
    raw = write_inter(tmp_path / "raw.inter", clicks)
    if len(wanted) < 3:
        with pytest.raises(AlkdError):
            make_sessions(raw, tmp_path / "toy", **chosen)
        return
    counts = make_sessions(raw, tmp_path / "toy", **chosen)
    parts = {part: read_rows(tmp_path / "toy", part) for part in PARTS}
    sessions = {part: list(dict.fromkeys(row[0] for row in rows)) for part, rows in parts.items()}

    together = [token for tokens in sessions.values() for token in tokens]
    assert sorted(together) == sorted(wanted)  # each session once: none in two parts, none lost
    assert counts["sessions"] == len(wanted) and all(
        counts[f"{part}_rows"] == len(parts[part]) for part in PARTS
    )
    for part, rows in parts.items():
        expected = []
        for token in sessions[part]:
            items = wanted[token]
            first = 1 if part == "train" and augmentation == "prefix" else len(items) - 1
            expected += [
                (token, items[max(0, k - max_length) : k], items[k]) for k in range(first, len(items))
            ]
        assert rows == expected
    if order == "time":
        ended = {f"{user}@{time // DAY}": 0 for user, _, time in clicks}
        for token in ended:
            ended[token] = max(time for user, _, time in clicks if f"{user}@{time // DAY}" == token)
        times = [ended[token] for token in together]
        assert times == sorted(times)


def test_diginetica_has_positions_only(tmp_path: Path) -> None:
    raw = shared_data("diginetica") / "diginetica.inter.xz"
    with pytest.raises(AlkdError, match="positions"):
        make_sessions(raw, tmp_path / "diginetica", session_field="session_id", order="time")


def test_online_retail_counts(tmp_path: Path) -> None:
    raw = shared_data("online-retail") / "online-retail.inter"
    counts = make_sessions(
        raw, tmp_path / "online-retail", session_field="session_id", min_length=2, order="time"
    )
    assert (counts["rows"], counts["sessions"], counts["items"]) == (129_935, 7_685, 2_808)
    assert (counts["train_sessions"], counts["valid_sessions"], counts["test_sessions"]) == (
        4_611,
        1_537,
        1_537,
    )
    # the first invoice of the file, line by line: its clicks are one second apart
    with raw.open() as stream:
        next(stream)
        lines = [line.split("\t") for line in stream]
    invoice = [item for session, item, _ in lines if session == lines[0][0]]
    last = [row for row in read_rows(tmp_path / "online-retail", "train") if row[0] == lines[0][0]][-1]
    assert [*last[1], last[2]] == invoice
    assert (tmp_path / "online-retail" / "online-retail.item").read_bytes() == raw.with_suffix(
        ".item"
    ).read_bytes()


def test_missing_values_are_those_of_recbole(tmp_path: Path) -> None:
    # RecBole reads atomic files with pandas; a word that pandas takes for a missing value is no id
    words = sorted(MISSING | {"none", "Null", "NAN", "na", "0", "-", "nil", "<na>"})
    (tmp_path / "words.tsv").write_text("\n".join(["a\tb", *(f"{word}\tx" for word in words)]) + "\n")
    read = pd.read_csv(tmp_path / "words.tsv", sep="\t", dtype=str, engine="python")
    assert {word for word, missing in zip(words, read["a"].isnull(), strict=True) if missing} == MISSING
