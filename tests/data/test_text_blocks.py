"""Rows of a table in blocks are those that are read line by line, with the same faults."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_alkd.data import click_blocks, reading, row_blocks, tables
from recbole_alkd.data.click_blocks import ClickColumns, Items
from recbole_alkd.data.plain_text import plain_columns
from recbole_alkd.data.reading import read_clicks
from recbole_alkd.data.tables import open_table
from recbole_alkd.settings.error import AlkdError

HEAD = "session_id:token\titem_id:token\ttimestamp:float\n"


def by_line(file):
    with open_table(file) as table:
        return list(table.rows)


def by_block(file):
    with open_table(file) as table:
        return [
            (line, list(row))
            for rows in table.blocks
            for line, *row in zip(rows.lines, *rows.columns, strict=True)
        ]


def told(read, file):
    try:
        return read(file)
    except AlkdError as error:
        return str(error)


fields = st.sampled_from(
    ["a", "12", "", " ", "é", "\u2028", "\x0b", "x" * 30, '"', '"b"', '"c\nd"', "e\rf", "\0"]
)
plain = st.sampled_from(["a", "12", "", " ", "é", "\u2028", "\x0b", "x" * 30])
ends = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n", ""])


@st.composite
def texts(draw):
    lines = []
    for _ in range(draw(st.integers(0, 12))):
        usual = draw(st.integers(0, 9)) > 0
        width = 3 if usual else draw(st.integers(1, 4))
        end = "\n" if usual else draw(ends)
        kind = plain if draw(st.integers(0, 9)) else fields
        lines.append("\t".join(draw(kind) for _ in range(width)) + end)
    return "".join(lines)


@given(texts(), st.sampled_from([1, 5, 40, 1 << 20]), st.sampled_from([".inter", ".tsv"]))
@settings(max_examples=300, deadline=None)
@example('a\tb\t"c\nd"\te\n', 40, ".inter")
@example("a\tb\nc\td\te\tf\n", 1 << 20, ".tsv")
@example("a\tb\tc\r\nd\te\tf\r\n", 1 << 20, ".tsv")
@example("a\tb\tc\n\n \nd\te\tf", 1, ".tsv")
@example('a\ta\t"\n', 1, ".inter")  # a quote that stays open in the first row
def test_blocks_are_the_rows_of_every_text(tmp_path_factory, text, letters, ending):
    file = tmp_path_factory.getbasetemp() / f"blocks{ending}"
    head = HEAD if ending == ".inter" else HEAD.replace(":token", "").replace(":float", "")
    file.write_bytes((head + text).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_LETTERS", letters)
        assert told(by_block, file) == told(by_line, file)


def test_plain_text_is_split_and_nothing_else():
    assert plain_columns("a\tb\nc\td", "\t", 2) == [["a", "c"], ["b", "d"]]
    assert plain_columns("a\tb\r\nc\t\r\n", "\t", 2) == [["a", "c"], ["b", ""]]
    for text in ("a\n", "a\tb\tc\n", "a\tb\n\n", 'a\t"b"\n', "a\tb\rc\td\n", "a\tb\0\n", "a\nb\tc\td\n"):
        assert plain_columns(text, "\t", 2) is None, text
    assert plain_columns("a::b\n", "::", 2) is None and plain_columns("a\n", "\t", 1) is None


def test_a_line_that_is_not_plain_ends_blocks_of_plain_text_only_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LETTERS", 30)
    file = tmp_path / "some.inter"
    lines = [f"s{k}\ti{k % 3}\t{k}\n" for k in range(20)]
    lines[12] = 's12\t"i0"\t12\n'
    file.write_text(HEAD + "".join(lines))
    with open_table(file) as table:
        blocks = list(table.blocks)
    assert len(blocks) > 2 and sum(len(rows.lines) for rows in blocks) == 20
    assert [line for rows in blocks for line in rows.lines] == list(range(2, 22))
    assert blocks[-1].columns[1][-8] == "i0"


@pytest.mark.parametrize("compressed", [False, True])
def test_clicks_do_not_depend_on_the_blocks(tmp_path, monkeypatch, compressed):
    rng = np.random.default_rng(0)
    text = HEAD + "".join(f"s{a}\ti{b}\t{c}\n" for a, b, c in rng.integers(0, 40, size=(500, 3)))
    file = tmp_path / ("clicks.inter.gz" if compressed else "clicks.inter")
    file.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    seen = []
    for letters in (7, 100, 1 << 22):
        monkeypatch.setattr(tables, "_LETTERS", letters)
        items = Items()
        blocks = list(click_blocks.click_blocks(file, ClickColumns(session="session_id", window=None), items))
        seen.append([np.concatenate(one).tolist() for one in zip(*blocks, strict=True)] + [list(items.codes)])
    assert seen[0] == seen[1] == seen[2] and len(seen[0][0]) == 500


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s1\ti1\tsoon\n", r"clicks\.inter, line 302: timestamp 'soon'"),
        ("s1\ti1\n", r"clicks\.inter, line 302: 3 columns expected, found 2"),
        ("s1\t" + "i" * 1001 + "\t5\n", r"clicks\.inter, line 302: an id of 1,001 characters"),
        ("s1\ti\0\t5\n", r"clicks\.inter, line 302: a NUL character"),
    ],
)
def test_a_bad_line_behind_plain_blocks_is_named(tmp_path, monkeypatch, line, message):
    monkeypatch.setattr(tables, "_LETTERS", 200)
    file = tmp_path / "clicks.inter"
    good = [f"s{k}\ti{k}\t{k}\n" for k in range(400)]
    file.write_text(HEAD + "".join([*good[:300], line, *good[300:]]))
    with pytest.raises(AlkdError, match=message):
        list(click_blocks.click_blocks(file, ClickColumns(session="session_id", window=None), Items()))


usual_ids = st.sampled_from(["a", "a ", " b", "b", "7", "007"])
odd_ids = st.sampled_from(["", "NaN", "[PAD]", "x" * 1001, '"q"', "a\0"])
usual_times = st.integers(-5, 5).map(str)
odd_times = st.sampled_from(
    ["5.0", "2011-12-09 12:50:00", "soon", "", "9" * 25, str(2**62), "-9223372036854775808", "1_0"]
)


@st.composite
def clicks_as_text(draw):
    """Clicks as others write them, with a fault here and there, and one fault behind the other."""
    odd = draw(st.sampled_from([0, 1, 4]))  # of ten
    lines = []
    for _ in range(draw(st.integers(0, 15))):
        kinds = [draw(st.integers(0, 9)) < odd for _ in range(4)]
        user, item = (draw(odd_ids if kind else usual_ids) for kind in kinds[:2])
        time = draw(odd_times if kinds[2] else usual_times)
        row = [user, item, time, draw(st.sampled_from(["u", "v w", ""]))]
        lines.append("\t".join(row[:3] if kinds[3] and draw(st.booleans()) else row) + "\n")
    return "".join(lines)


def clicks_of(file, unit):
    try:
        clicks = read_clicks(file, "session_id", "item_id", "timestamp", unit, others=None)
    except AlkdError as error:
        return str(error)
    columns = (clicks.user, clicks.item, clicks.time, clicks.line)
    said = (clicks.rows, clicks.blank, clicks.users, clicks.items, clicks.kinds, clicks.others)
    return [one.tolist() for one in columns], said


@given(clicks_as_text(), st.sampled_from([30, 1 << 20]), st.sampled_from([None, "s", "ns"]))
@settings(max_examples=400, deadline=None)
@example("s\ta\t1\tu\ns\ta\tsoon\tu\ns\ta\t1\n", 1 << 20, None)  # the first fault is told
@example("s\t\tsoon\tu\n\ta\t1\tu\ns\tb\t1\tu\n", 1 << 20, None)  # of rows that count
@example(f's\ta\t{2**62}\tu\n"s"\ta\t1\tu\n', 1 << 20, "s")
def test_clicks_are_those_that_are_read_row_by_row(tmp_path_factory, text, letters, unit):
    file = tmp_path_factory.getbasetemp() / "clicks.inter"
    file.write_text(HEAD.replace("\n", "\tmore:token\n") + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_LETTERS", letters)
        blocks = clicks_of(file, unit)
        patch.setattr(reading._Read, "block", lambda self, rows: False)
        patch.setattr(row_blocks, "ROWS", 1)
        patch.setattr(tables, "plain_columns", lambda *given: None)
        assert blocks == clicks_of(file, unit)


def test_plain_clicks_are_taken_in_blocks(tmp_path, monkeypatch):
    """And dates row by row, with the same sessions."""
    taken = []
    before = reading._Read.block
    monkeypatch.setattr(
        reading._Read, "block", lambda self, rows: taken.append(before(self, rows)) or taken[-1]
    )
    file = tmp_path / "clicks.inter"
    seen = []
    for time in ("{}", "1970-01-01 00:00:{:02}"):
        file.write_text(HEAD + "".join(f"s{k % 7}\ti{k % 5}\t{time.format(k)}\n" for k in range(50)))
        seen.append(clicks_of(file, None))
    assert taken == [True, False] and seen[0] == seen[1] and len(seen[0][0][0]) == 50
