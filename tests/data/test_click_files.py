"""Files of others: blank ids, forms of lists, encodings, separators.
A run and make_sessions see the same clicks."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from session_files import BENCHMARK, read_rows, token_rows, write_inter

from recbole_alkd.data.dataset import ALKDRecDataset
from recbole_alkd.data.sessions import make_sessions
from recbole_alkd.data.tables import clean_id, open_table
from recbole_alkd.settings.error import AlkdError

PARTS = ("train", "valid", "test")
START = 1_291_161_600  # a day begins
HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def some_clicks(seed: int, rows: int = 120) -> list[list[str]]:
    rng = random.Random(seed)
    return [
        [f"u{rng.randrange(8)}", f"i{rng.randrange(9)}", str(START + rng.randrange(3000))]
        for _ in range(rows)
    ]


def both(folder: Path, config_of, build, **settings: object) -> list[list[tuple[str, list[str], str]]]:
    """The rows of a run on ``toy``, which are those that make_sessions writes."""
    parts = [token_rows(part) for part in build(config_of("toy", session_min_length=2, **settings))]
    make_sessions(folder / "toy" / "toy.inter", folder / "made", min_length=2)
    assert parts == [read_rows(folder / "made", part) for part in PARTS]
    return parts


# ids


@pytest.mark.parametrize("blank", ["", " ", "nan", "NA", "None", "[PAD]"])
@pytest.mark.parametrize(
    "places", [[(3, 0), (40, 1)], [(40, 1), (3, 0)], [(118, 0), (119, 1)], [(0, 0), (0, 1), (1, 1), (60, 0)]]
)
def test_rows_without_an_id_are_left_out_alike(
    tmp_path, config_of, build, caplog, blank: str, places: list
) -> None:
    clicks = some_clicks(1)
    for row, column in places:
        clicks[row][column] = blank
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    parts = both(tmp_path, config_of, build)
    good = [click for row, click in enumerate(clicks) if row not in {row for row, _ in places}]
    write_inter(tmp_path / "toy" / "toy.inter", good)
    assert parts == both(tmp_path, config_of, build)
    count = len({row for row, _ in places})
    lines = ", ".join(str(row + 2) for row in sorted({row for row, _ in places}))
    said = f"toy.inter: {count} of 120 rows have no user or no item and are left out (line {lines})"
    assert caplog.messages.count(said) == 2  # by the run and by make_sessions


def test_ids_are_the_text_as_it_stands(tmp_path, config_of, build) -> None:
    ids = ["007", "7", "1e5", "100000", "12.0", "12", "é", "e\u0301", "x" * 900, "-5", "inf", "True"]
    clicks = [(user, token, START + k) for user in range(5) for k, token in enumerate(ids)]
    write_inter(tmp_path / "toy" / "toy.inter", clicks, "user_id:float\titem_id:float\ttimestamp:float")
    parts = both(tmp_path, config_of, build)
    assert {item for part in parts for _, history, target in part for item in [*history, target]} == set(ids)


def test_spaces_around_ids_do_not_count(tmp_path, config_of, build) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(2))
    plain = both(tmp_path, config_of, build)
    spaced = [[f" {user}", f"{item} ", time] for user, item, time in some_clicks(2)]
    write_inter(tmp_path / "toy" / "toy.inter", spaced)
    assert both(tmp_path, config_of, build) == plain
    assert [clean_id(text) for text in (" a ", "\u00a0", "NA", "na", "[PAD]")] == ["a", "", "", "na", ""]


# forms of a file


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\t", ",").encode(),
        lambda text: text.replace("\t", ";").encode("utf-8-sig"),
        lambda text: (text + "\n\n \n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("timestamp:float", "timestamp:token").encode(),
        lambda text: text.replace(str(START)[:4], f"  {str(START)[:4]}").encode(),
    ],
)
def test_forms_that_are_read(tmp_path, config_of, build, change) -> None:
    path = write_inter(tmp_path / "toy" / "toy.inter", some_clicks(3))
    plain = both(tmp_path, config_of, build)
    path.write_bytes(change(path.read_text()))
    assert both(tmp_path, config_of, build) == plain


def test_compressed_clicks(tmp_path, config_of, build) -> None:
    path = write_inter(tmp_path / "toy" / "toy.inter", some_clicks(4))
    plain = both(tmp_path, config_of, build)
    (tmp_path / "toy" / "toy.inter.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert [token_rows(part) for part in build(config_of("toy", session_min_length=2))] == plain


def test_separator_and_encoding_of_the_user(tmp_path, config_of, build) -> None:
    path = write_inter(
        tmp_path / "toy" / "toy.inter", [[user, f"ü{item}", time] for user, item, time in some_clicks(5)]
    )
    plain = both(tmp_path, config_of, build)
    path.write_bytes(path.read_text().replace("\t", "::").encode("latin-1"))
    parts = build(config_of("toy", session_min_length=2, field_separator="::", encoding="latin-1"))
    assert [token_rows(part) for part in parts] == plain


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"{HEADER}\nü\ti\t5\n".encode("latin-1"),
            r"read as utf-8 \(byte 0xfc\); set encoding to the file's own",
        ),
        (
            f"{HEADER}\nu\ti\t2011-31-12\n".encode(),
            r"line 2: timestamp '2011-31-12' is not a number .* nor a date such as",
        ),
        (f"{HEADER}\nu\ti\t5\nu\ti\n".encode(), "line 3: 3 columns expected, found 2"),
        (f"{HEADER}\nu\ti\t5\t6\n".encode(), "line 2: 3 columns expected, found 4"),
        (f"{HEADER}\nu\ti\x00\t5\n".encode(), "line 2: a NUL character"),
        (f"{HEADER}\n".encode(), r"no clicks \(0 rows"),
        (f"{HEADER}\n\ti\t5\n".encode(), r"no clicks \(1 rows, 1 of them without user or item\)"),
        (b"", "is not a header"),
        (
            b"user_id:token\titem_id:token\titem_id:token\ttimestamp:float\n",
            "line 1: column 'item_id' stands there twice",
        ),
        (
            b"user_id:token\titem_id:string\ttimestamp:float\n",
            "column 'item_id' has the type 'string'; allowed: token, token_seq",
        ),
        (b"user_id:token\titem_id:token\n", "no column 'timestamp'"),
        (f"{HEADER}\nu\t{'x' * 1001}\t5\n".encode(), "line 2: an id of 1,001 characters"),
        (f'{HEADER}\nu\ti\t5\nu\t"i\t6\nu\ti\t7\n'.encode(), "found 2"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, config_of, content: bytes, message: str) -> None:
    path = tmp_path / "toy" / "toy.inter"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AlkdError, match=message) as run:
        ALKDRecDataset(config_of("toy"))
    with pytest.raises(AlkdError) as made:
        make_sessions(path, tmp_path / "made")
    assert "\n" not in str(run.value) + str(made.value) and not (tmp_path / "made").exists()


def test_dates_are_times(tmp_path, config_of, build) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(6))
    plain = both(tmp_path, config_of, build)

    def minute(time):
        seconds = int(time) - START
        return f"2010-12-01 0{seconds // 3600}:{seconds // 60 % 60:02d}:{int(time) % 60:02d}"

    write_inter(
        tmp_path / "toy" / "toy.inter", [[user, item, minute(time)] for user, item, time in some_clicks(6)]
    )
    assert both(tmp_path, config_of, build) == plain


@pytest.mark.parametrize(
    "times", [[-3, -1, -2, -10], ["5e0", "1e0", "3", "2.0"], [2**53 + 3, 2**53 + 1, 2**53 + 2, 2**53]]
)
def test_times_of_every_size(tmp_path, config_of, build, times: list) -> None:
    clicks = [(f"u{user}", f"i{at}", time) for user in range(5) for at, time in enumerate(times)]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    unit = "ns" if isinstance(times[0], int) and times[0] > 0 else None
    parts = build(config_of("toy", session_min_length=2, session_time_unit=unit, session_augmentation="last"))
    order = [
        f"i{at}" for at in sorted(range(4), key=lambda at: float(times[at]) if unit is None else times[at])
    ]
    assert all(
        (history, target) == (order[:-1], order[-1])
        for part in parts
        for _, history, target in token_rows(part)
    )


# columns


@pytest.mark.parametrize("columns", [None, {}, {"item": ["item_id"]}, {"inter": "*"}, {"inter": ["rating"]}])
def test_what_a_session_needs_is_read_whatever_load_col_says(tmp_path, config_of, build, columns) -> None:
    write_inter(
        tmp_path / "toy" / "toy.inter", [[*click, "3"] for click in some_clicks(7)], f"{HEADER}\trating:float"
    )
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\tT {k}\n" for k in range(9))
    )
    both(tmp_path, config_of, build, load_col=columns)


def test_columns_of_the_wrong_shape(tmp_path, config_of) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(8))
    for setting, message in (
        ({"load_col": ["user_id"]}, r"load_col: \['user_id'\].* is not allowed"),
        ({"load_col": {"inter": 5}}, "load_col: .* is not allowed"),
        ({"unload_col": {"inter": ["x"]}}, "unload_col: not allowed beside load_col"),
        ({"MAX_ITEM_LIST_LENGTH": 0}, "MAX_ITEM_LIST_LENGTH: 0 is not allowed"),
    ):
        with pytest.raises(AlkdError, match=message):
            ALKDRecDataset(config_of("toy", **setting))


def test_numbers_that_are_none(tmp_path, config_of) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", [["u", "i", "5", "good"]], f"{HEADER}\trating:float")
    with pytest.raises(
        AlkdError, match="line 2: rating 'good' is not a number, and the header says rating:float"
    ):
        ALKDRecDataset(config_of("toy", load_col={"inter": ["user_id", "item_id", "rating"]}))


@pytest.mark.parametrize(
    "settings",
    [
        {"item_inter_num_interval": "[1000,inf)"},
        {"user_inter_num_interval": "[1000,inf)"},
        {"val_interval": {"timestamp": "[1,2]"}},
    ],
)
def test_everything_filtered_away(tmp_path, config_of, settings) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(9))
    with pytest.raises(AlkdError, match="no click is left after the filters"):
        ALKDRecDataset(config_of("toy", **settings))


def test_clicks_that_the_item_file_drops_are_counted(tmp_path, config_of, build, caplog) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(10))
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\tT {k}\n" for k in range(8))
    )
    lost = sum(item == "i8" for _, item, _ in some_clicks(10))
    build(
        config_of("toy", session_min_length=2, load_col={"inter": ["user_id"], "item": ["item_id", "title"]})
    )
    assert f"toy: {lost} of 120 clicks are left out, their items have no row in toy.item" in caplog.text


# benchmark files


def benchmark(
    folder: Path, lists: list[str], kind: str = "token_seq", target: str = "t", **items: str
) -> None:
    (folder / "b").mkdir()
    for part in PARTS:
        rows = [
            f"{part}{k}\t{text}\t{items.get(part, target)}"
            for k, text in enumerate(lists if part == "train" else ["1 2 3"])
        ]
        text = "\n".join([f"session_id:token\titem_id_list:{kind}\titem_id:token", *rows]) + "\n"
        (folder / "b" / f"b.{part}.inter").write_text(text)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            ["1 2", "8,9,11"],
            "line 3: item_id_list '8,9,11' is not read as a list; allowed: ids with a space between them",
        ),
        (["[8, 9, 11]"], r"line 2: item_id_list '\[8, 9, 11\]' is not read as a list"),
        (["[8 9 11]"], r"line 2: item_id_list '\[8 9 11\]' is not read as a list"),
        (["(8 9)"], "is not read as a list"),
        (["8|9"], "is not read as a list"),
        (["'8' '9'"], "is not read as a list"),
        (
            ["0 0 8 9", "0 1 2 3"],
            r"line 2: item_id_list '0 0 8 9' is padded with 0, which is no target anywhere \(2 lists",
        ),
        (["8 9 0 0", "1 2 3 0"], "'8 9 0 0' is padded with 0"),
        (["0 0 0", "0 8 9"], "'0 0 0' is padded with 0"),
        (["0 8 9", "7 8 9"], "line 2: item_id_list '0 8 9' is padded with 0"),
        (["-1 -1 9"], "is padded with -1"),
        (["8 9 <pad>", "1 2 3"], "is padded with <pad>"),
        (["8 nan 9"], "line 2: item_id_list '8 nan 9' has a place without item"),
        (["8 [PAD]"], r"'8 \[PAD\]' has a place without item"),
        ([], "train.inter: no rows; train, valid and test need at least one each"),
    ],
)
def test_lists_in_another_form(tmp_path, config_of, lists: list[str], message: str) -> None:
    benchmark(tmp_path, lists)
    with pytest.raises(AlkdError, match=message) as caught:
        ALKDRecDataset(config_of("b", **BENCHMARK))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_no_list(tmp_path, config_of) -> None:
    benchmark(tmp_path, ["8 9"], kind="token")
    with pytest.raises(
        AlkdError, match="item_id_list:token is no column of lists; allowed: item_id_list:token_seq, ids"
    ):
        ALKDRecDataset(config_of("b", **BENCHMARK))


def test_items_that_look_like_padding_or_markup(tmp_path, config_of, build) -> None:
    """An item 0 that is clicked between others, or is a target, is an item;
    so is an id with a comma that is a target."""
    for name, lists, target in (
        ("a", ["0 8 0 9", "0 0 8"], "t"),
        ("b", ["0 0 8", "0 8"], "0"),
        ("c", ["a,b 8", "8 a,b"], "a,b"),
    ):
        (tmp_path / name).mkdir()
        benchmark(tmp_path / name, lists, target=target)
        train, _, _ = build(
            config_of("b", **BENCHMARK, data_path=str(tmp_path / name), session_augmentation="last")
        )
        assert [history for _, history, _ in token_rows(train)] == [text.split() for text in lists]
    # nothing but the list of items tells
    (tmp_path / "d").mkdir()
    benchmark(tmp_path / "d", ["0 8 9", "8 a,b 9"])
    (tmp_path / "d" / "b" / "b.item").write_text("item_id:token\ttitle:token_seq\n0\tZero\na,b\tBoth\n")
    train, _, _ = build(
        config_of("b", **BENCHMARK, data_path=str(tmp_path / "d"), session_augmentation="last")
    )
    assert [history for _, history, _ in token_rows(train)] == [["0", "8", "9"], ["8", "a,b", "9"]]


def test_lists_with_another_separator(tmp_path, config_of, build) -> None:
    benchmark(tmp_path, ["8,9,11", "8, 9"])
    for part in ("valid", "test"):
        path = tmp_path / "b" / f"b.{part}.inter"
        path.write_text(path.read_text().replace("1 2 3", "1,2,3"))
    train, _, _ = build(config_of("b", **BENCHMARK, seq_separator=",", session_augmentation="last"))
    assert [history for _, history, _ in token_rows(train)] == [["8", "9", "11"], ["8", "9"]]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_rows(tmp_path, config_of, part: str) -> None:
    benchmark(tmp_path, ["8 9"])
    path = tmp_path / "b" / f"b.{part}.inter"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(AlkdError, match=rf"b\.{part}\.inter: no rows"):
        ALKDRecDataset(config_of("b", **BENCHMARK))


def test_blank_cells_of_benchmark_files(tmp_path, config_of) -> None:
    benchmark(tmp_path, ["8 9", ""], target="t", valid="NA")
    with pytest.raises(
        AlkdError,
        match=r"b\.train\.inter: rows without session, history or item \(line 3; 1 empty histories\)",
    ):
        ALKDRecDataset(config_of("b", **BENCHMARK))


# tables


def test_csv_is_taken_apart_by_its_header(tmp_path) -> None:
    path = tmp_path / "x.csv"
    for text, columns, rows in (
        ('a;b\n"1;2";3\n', ["a", "b"], [["1;2", "3"]]),
        ('"a","b"\n1,"two\nlines"\n', ["a", "b"], [["1", "two\nlines"]]),
        ('a,b\n1,"say ""x"""\n', ["a", "b"], [["1", 'say "x"']]),
        ("a|b\n1|2,3\n", ["a", "b"], [["1", "2,3"]]),
        ("\ufeffa\tb\r\n1\t2\r\n", ["a", "b"], [["1", "2"]]),
    ):
        path.write_bytes(text.encode())
        with open_table(path) as table:
            assert (table.columns, [row for _, row in table.rows]) == (columns, rows)
    path.write_text('a,b\n1,"open\n2,3\n')
    with (
        pytest.raises(AlkdError, match=r"x\.csv, line 3: the quotes are not those of CSV"),
        open_table(path) as table,
    ):
        list(table.rows)
    with (
        pytest.raises(AlkdError, match="encoding: 'latin-99' is no encoding"),
        open_table(path, encoding="latin-99"),
    ):
        pass


@pytest.mark.parametrize("sign", ["_", "-", "/", "+", "."])
def test_lists_joined_by_another_sign(tmp_path, config_of, sign: str) -> None:
    benchmark(tmp_path, [sign.join("123"), sign.join("31"), "2"], target="1", valid="2", test="3")
    with pytest.raises(AlkdError, match=r"line 2: item_id_list '1.2.3' is not read as a list"):
        ALKDRecDataset(config_of("b", **BENCHMARK))


@pytest.mark.parametrize("pad", ["<padding>", "0.0", "i0", "none_item"])
@pytest.mark.parametrize("left", [True, False])
def test_padding_of_any_name(tmp_path, config_of, pad: str, left: bool) -> None:
    lists = [[pad, pad, "8"] if left else ["8", pad, pad], [pad, "7", "8"] if left else ["7", "8", pad]] * 5
    benchmark(tmp_path, [" ".join(items) for items in lists])
    with pytest.raises(AlkdError, match=f"is padded with {pad}, which is no target anywhere"):
        ALKDRecDataset(config_of("b", **BENCHMARK))


def test_an_item_that_is_clicked_twice_and_never_last_is_no_padding(tmp_path, config_of, build) -> None:
    lists = ["5 5 8", "7 8 9", "5 7 9", "8 9 8", "1-2 8 9", "7 8 7", "9 8 7"]
    benchmark(tmp_path, lists, target="1", valid="2", test="3")
    train, _, _ = build(config_of("b", **BENCHMARK, session_augmentation="last"))
    assert [" ".join(history) for _, history, _ in token_rows(train)] == lists
