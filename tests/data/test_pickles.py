"""Frames and lists come out of a pickle; nothing that is in it runs."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.core.internals.managers import BlockManager

from recbole_alkd.data.pickles import read_pickle
from recbole_alkd.settings.error import AlkdError

FRAME = pd.DataFrame({"s": [1, 2], "l": [[1, 2], [3]], "x": [0.5, 1.0], "t": ["a", "ü"]}, index=[5, 7])


def read(tmp_path: Path, content: bytes) -> Any:
    file = tmp_path / "x.pkl"
    file.write_bytes(content)
    return read_pickle(file)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_frames_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    assert read(tmp_path, pickle.dumps(FRAME, protocol)).equals(FRAME)
    plain = [{"a": (1, 2.5, None, True, "x", b"y", {3}, frozenset([4]))}, slice(1, 2), bytearray(b"z")]
    assert read(tmp_path, pickle.dumps(plain, protocol)) == plain
    array = np.array([[1, 2], [3, 4]])
    assert (read(tmp_path, pickle.dumps([array, array[0, 0]], protocol))[0] == array).all()
    assert read(tmp_path, pickle.dumps(FRAME["x"], protocol)).equals(FRAME["x"])


class _AsPandasDidBefore(pickle.Pickler):
    """Writes a frame's blocks in the form that pandas had up to release 1.2."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BlockManager):
            return NotImplemented
        axes = list(obj.axes)
        blocks = [{"values": block.values, "mgr_locs": block.mgr_locs.indexer} for block in obj.blocks]
        items = [axes[0][block["mgr_locs"]] for block in blocks]
        state = (
            axes,
            [block["values"] for block in blocks],
            items,
            {"0.14.1": {"axes": axes, "blocks": blocks}},
        )
        return copyreg.__newobj__, (BlockManager,), state  # type: ignore[attr-defined]


def test_frames_of_old_releases_come_back(tmp_path: Path) -> None:
    out = io.BytesIO()
    _AsPandasDidBefore(out, protocol=3).dump(FRAME)
    content = out.getvalue().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert b"numpy.core" in content
    assert read(tmp_path, content).equals(FRAME)


class Calls:
    def __init__(self, function: Any, *args: Any) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch evil",), r"(posix|nt)\.system"),
        (eval, ("open('evil', 'w')",), "eval"),
        (getattr, (1, "real"), "getattr"),
        (open, ("evil", "w"), "open"),
        (pd.read_pickle, ("evil",), "read_pickle"),
        (np.save, ("evil", [1]), "save"),
        (Path, ("evil",), "Path"),
        (pd.DataFrame.to_pickle, (FRAME, "evil"), "(getattr|to_pickle)"),
    ],
)
def test_a_call_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, function: Any, args: tuple, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps([FRAME["s"].tolist(), Calls(function, *args)], protocol)
    with pytest.raises(
        AlkdError, match=rf"this pickle wants \S*{name}\b|this pickle wants copy_reg._reconstructor"
    ):
        read(tmp_path, content)
    assert not list(tmp_path.glob("evil*"))


def test_shared_classes_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(AlkdError, match="wants a state for"):
        read(tmp_path, b'cpandas.core.frame\nDataFrame\n(N}S"zap"\nI1\nstb.')
    assert not hasattr(pd.DataFrame, "zap")


def test_only_latin1_is_encoded(tmp_path: Path) -> None:
    assert read(tmp_path, b"c_codecs\nencode\n(Vab\nVlatin1\ntR.") == b"ab"
    with pytest.raises(AlkdError, match=r"_codecs\.encode with 'hex'"):
        read(tmp_path, b"c_codecs\nencode\n(Vab\nVhex\ntR.")


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"\x80\x04", pickle.dumps(FRAME)[:-40], b"\x82\x01.", b"Pid\n."]
)
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(AlkdError, match=r"x\.pkl: "):
        read(tmp_path, content)
    with pytest.raises(AlkdError, match="cannot be read"):
        read_pickle(tmp_path / "none.pkl")
