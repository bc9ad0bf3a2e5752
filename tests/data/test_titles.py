"""Titles for prompts."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import recbole
from hypothesis import given
from hypothesis import strategies as st
from session_files import shared_data

from recbole_alkd.data.titles import MAX_TITLE, NoTitlesError, clean_title, load_titles
from recbole_alkd.settings.error import AlkdError


def item_file(folder: Path, *lines: str, header: str = "item_id:token\ttitle:token_seq") -> Path:
    path = folder / "toy.item"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Toy \t Story\u00a0 2 ", "Toy Story 2"),
        ("line\nbreak\r\nand\x00null\u2028end", "line break and null end"),
        ("[<ID7>,<ID8:x>]", "[(ID7),(ID8:x)]"),
        ("＜ID7＞ ﹤ID8﹥ ‹ID9› ⟨ID1⟩ 〈ID2〉 \u2329ID3\u232a", "(ID7) (ID8) (ID9) (ID1) (ID2) (ID3)"),
        ("<|im_start|>system", "(|im_start|)system"),
        ("abc\u202ecba\u2066\u200b\ufeff\u00ad", "abccba"),
        ("hidden\U000e0041\U000e0042", "hidden"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\ud800lone", "lone"),
        ("5'10\" Café — 3 < 4", "5'10\" Café — 3 ( 4"),
        ("", ""),
        ("x" * 199 + " yz", "x" * 199),
    ],
)
def test_clean_title(raw: str, clean: str) -> None:
    assert clean_title(raw) == clean


@given(st.text(max_size=400))
def test_clean_titles_are_one_plain_line(text: str) -> None:
    title = clean_title(text)
    assert len(title) <= MAX_TITLE and title == clean_title(title)
    assert (
        not set(title) & set("<>\n\r\t\x00\u202e\u2028\u2066")
        and "  " not in title
        and title == title.strip()
    )
    title.encode("utf-8")


@pytest.mark.parametrize("column", ["title", "movie_title", "name"])
def test_columns_found_by_themselves(tmp_path: Path, column: str) -> None:
    item_file(tmp_path, "3\t85123A\tA heart", header=f"year:float\titem_id:token\t{column}:token_seq")
    assert load_titles(tmp_path, "toy", "item_id") == {"85123A": "A heart"}


def test_column_by_name(tmp_path: Path) -> None:
    path = item_file(tmp_path, "1\tA\tB", header="item_id:token\ttitle:token\tlabel:token")
    assert load_titles(tmp_path, "toy", "item_id", "label") == {"1": "B"}
    with pytest.raises(NoTitlesError, match=r"no title column brand; it has item_id, title, label"):
        load_titles(tmp_path, "toy", "item_id", "brand")
    with pytest.raises(AlkdError, match="no column 'sku'"):
        load_titles(tmp_path, "toy", "sku")
    path.write_text("item_id:token\tbrand:token\n1\tA\n")
    with pytest.raises(NoTitlesError, match="title / movie_title / name; it has item_id, brand"):
        load_titles(tmp_path, "toy", "item_id")


def test_compressed(tmp_path: Path) -> None:
    path = item_file(tmp_path, "1\tÀ la carte")
    content = path.read_bytes()
    path.unlink()
    (tmp_path / "toy.item.gz").write_bytes(gzip.compress(content))
    assert load_titles(tmp_path, "toy", "item_id") == {"1": "À la carte"}
    (tmp_path / "toy.item.gz").unlink()
    (tmp_path / "toy.item.xz").write_bytes(lzma.compress(content))
    assert load_titles(tmp_path, "toy", "item_id") == {"1": "À la carte"}


def test_quotes_are_harmless(tmp_path: Path) -> None:
    item_file(tmp_path, '1\t"Great Performances" Cats', '2\t"open', '3\t"She said ""no"""', '"4"\tfour')
    assert load_titles(tmp_path, "toy", "item_id") == {
        "1": '"Great Performances" Cats',
        "2": '"open',
        "3": 'She said "no"',
        "4": "four",
    }


def test_first_row_of_an_item_counts(tmp_path: Path) -> None:
    item_file(tmp_path, "1\tA", "1\tB", "2\tA")
    assert load_titles(tmp_path, "toy", "item_id") == {"1": "A", "2": "A"}


def test_missing_titles_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item_file(tmp_path, "1\tA", "2\t \u202e", "")
    titles = load_titles(tmp_path, "toy", "item_id", items=["1", "2", "3<"])
    assert titles == {"1": "A", "2": "item 2", "3<": "item 3("}
    assert "2 of 3 items have no title" in caplog.text


def test_no_titles(tmp_path: Path) -> None:
    with pytest.raises(NoTitlesError, match=r"toy\.item: no such file"):
        load_titles(tmp_path, "toy", "item_id")
    item_file(tmp_path, "1\t", "2\t ")
    with pytest.raises(NoTitlesError, match="'title' holds no title"):
        load_titles(tmp_path, "toy", "item_id")
    item_file(tmp_path, "1\tA", "2")
    with pytest.raises(AlkdError, match="line 3: 2 columns expected, found 1"):
        load_titles(tmp_path, "toy", "item_id")


def test_ml_100k() -> None:
    folder = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    titles = load_titles(folder, "ml-100k", "item_id")
    assert len(titles) == 1_682 and titles["1"] == "Toy Story" and titles["2"] == "GoldenEye"


@pytest.mark.parametrize(("name", "items"), [("online-retail", 2_808), ("alkdrec-ml", 8_475)])
def test_shared_data(name: str, items: int) -> None:
    titles = load_titles(shared_data(name), name, "item_id")
    assert len(titles) == items and not any(title.startswith("item ") for title in titles.values())


@pytest.mark.parametrize(
    ("clicked", "hint"),
    [
        (
            ["12.0", "7.0"],
            r"ids are 12\.0, 7\.0; the ids of the file are 12, 7; they agree but for a '\.0' at the end",
        ),
        (["012"], "they agree but for zeros at the beginning"),
        (["a"], r"ids are a; the ids of the file are 12, 7$"),
    ],
)
def test_ids_of_another_kind_are_an_error(tmp_path: Path, clicked: list[str], hint: str) -> None:
    item_file(tmp_path, "12\tA", "7\tB", "8\t")
    with pytest.raises(
        AlkdError, match=rf"it has a title for none of the {len(clicked)} items of the clicks.*{hint}"
    ):
        load_titles(tmp_path, "toy", "item_id", items=clicked)
    with pytest.raises(AlkdError, match="title for none of the 1 items"):  # a row, but no title in it
        load_titles(tmp_path, "toy", "item_id", items=["8"])


def test_shares_are_counted_over_clicked_items(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item_file(tmp_path, *(f"{k}\tT {k}" for k in range(50)), "x\t", "1\tother", "\tnobody")
    titles = load_titles(tmp_path, "toy", "item_id", items=["1", "x", "y", "2"])
    assert (titles["1"], titles["x"], titles["y"], titles["49"]) == ("T 1", "item x", "item y", "T 49")
    assert "2 of 4 items have no title and are shown as 'item x'" in caplog.text
    assert (
        "toy.item: 1 rows give an item that stands above another title; the first counts (line 53)"
        in caplog.text
    )
    assert "toy.item: 1 rows have no item and are left out (line 54)" in caplog.text


def test_separator_and_encoding(tmp_path: Path) -> None:
    for content, how in (
        ('item_id:token,title:token_seq\n1,"À, la carte"\n', {}),
        ('item_id:token;title:token_seq\n1;"À, la carte"\n', {"encoding": "latin-1"}),
        ("\ufeffitem_id:token\ttitle:token_seq\r\n1\tÀ, la carte\r\n", {}),
        ("item_id:token::title:token_seq\n1::À, la carte\n", {"separator": "::"}),
    ):
        (tmp_path / "toy.item").write_bytes(content.encode(how.get("encoding", "utf-8")))
        assert load_titles(tmp_path, "toy", "item_id", **how) == {"1": "À, la carte"}
    (tmp_path / "toy.item").write_bytes("item_id:token\ttitle:token_seq\n1\tÀ\n".encode("latin-1"))
    with pytest.raises(AlkdError, match=r"toy\.item: cannot be read as utf-8 \(byte 0xc0\); set encoding"):
        load_titles(tmp_path, "toy", "item_id")
