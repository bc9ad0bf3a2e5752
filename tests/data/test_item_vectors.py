"""Vectors of a user's own: what is read, and every mistake in one line."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_alkd import AlkdError
from recbole_alkd.data.item_vectors import read_item_vectors
from recbole_alkd.model.edges import unit_rows

ITEMS = ["a", "b", "85123A"]


def write(folder, vectors, ids):
    if isinstance(vectors, np.ndarray):
        np.save(folder / "own.npy", vectors, allow_pickle=True)
    elif vectors is not None:
        (folder / "own.npy").write_bytes(vectors)
    if ids is not None:
        (folder / "own.ids").write_bytes(
            ids if isinstance(ids, bytes) else "".join(f"{one}\n" for one in ids).encode()
        )
    return str(folder / "own.npy")


@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "i8", "u1"])
def test_rows_go_by_their_ids(tmp_path, kind):
    vectors = np.arange(8).reshape(4, 2).astype(kind)
    read = read_item_vectors(write(tmp_path, vectors, ["85123A", "elsewhere", "a", "b"]), ITEMS)
    np.testing.assert_array_equal(read, [[4, 5], [6, 7], [0, 1]])
    assert read.dtype == np.float32


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_directions_are_kept_where_float32_has_no_squares_of_the_numbers(tmp_path, scale):
    vectors = np.array([[1, 2], [3, -4], [-5, 6]])
    read = unit_rows(read_item_vectors(write(tmp_path, vectors * scale, ITEMS), ITEMS))
    np.testing.assert_allclose(read, unit_rows(vectors.astype(np.float32)), atol=1e-6)


def test_ids_may_begin_with_the_mark_of_a_spreadsheet(tmp_path):
    file = write(tmp_path, np.arange(1, 7).reshape(3, 2), "\n".join(ITEMS).encode("utf-8-sig"))
    assert read_item_vectors(file, ITEMS).all()


HUGE = np.lib.format.magic(1, 0) + b"v\0"
HUGE += b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 8), }".ljust(117) + b"\n"


def test_missing_and_unknown_ids_are_counted(tmp_path, caplog):
    read = read_item_vectors(write(tmp_path, np.ones((2, 3)), ["b", "x"]), ITEMS)
    assert read.any(1).tolist() == [False, True, False]
    assert (
        "2 of 3 items have no vector" in caplog.text
        and "1 vectors are of no item" in caplog.text
        and "'a'" in caplog.text
    )


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


NAN, FAR = np.ones((3, 2)), np.ones((3, 2))
NAN[1, 1], FAR[2, 0] = np.nan, 1e300


@pytest.mark.parametrize(
    ("vectors", "ids", "words"),
    [
        (None, ITEMS, r"own\.npy: no such file"),
        (np.ones((3, 2)), None, r"own\.ids: no such file; it has the id of each row"),
        (np.ones((3, 2)), ITEMS[:2], "has 2 ids, and .* has 3 rows"),
        (np.ones((3, 2)), ["a", "b", "a"], r"own\.ids, line 3: 'a' stands in line 1 as well"),
        (np.ones((3, 2)), ["a", "", "b"], r"own\.ids, line 2: no id"),
        (np.ones((3, 2)), b"\xff\xfe\n", "cannot be read as lines of UTF-8"),
        (NAN, ITEMS, r"row 2 \('b'\) holds a value that is no finite number"),
        (FAR, ITEMS, r"row 3 \('85123A'\) holds a value that is no finite number"),
        (np.ones(3), ITEMS, r"holds float64 \(3,\); allowed: numbers with one row an item"),
        (np.ones((3, 0)), ITEMS, r"holds float64 \(3, 0\)"),
        (np.ones((3, 2), dtype=complex), ITEMS, "holds complex128"),
        (np.array([["1", "2"]] * 3), ITEMS, r"holds <U1"),
        (np.array([[Trap()], [1], [2]], dtype=object), ITEMS, "cannot be read as an array of numbers"),
        (b"no array", ITEMS, "cannot be read as an array of numbers"),
        (b"", ITEMS, "cannot be read as an array of numbers"),
        (HUGE, ITEMS, "cannot be read as an array of numbers"),
        (np.ones((2, 2)), ["x", "y"], "has a vector for none of the 3 items of the clicks, whose ids are"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, vectors, ids, words):
    with pytest.raises(AlkdError, match=words):
        read_item_vectors(write(tmp_path, vectors, ids), ITEMS)


def test_several_arrays_in_a_file_are_none(tmp_path):
    np.savez(tmp_path / "own.npz", one=np.ones((3, 2)))
    (tmp_path / "own.npz").rename(tmp_path / "own.npy")
    (tmp_path / "own.ids").write_text("a\nb\n85123A\n")
    with pytest.raises(AlkdError, match="holds several arrays"):
        read_item_vectors(str(tmp_path / "own.npy"), ITEMS)
