"""Files appear whole, with their content on the disk before their name."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from recbole_alkd.compat import save_checkpoint
from recbole_alkd.data.writing import write_files
from recbole_alkd.files import (
    json_line,
    json_text,
    move_whole,
    whole_file,
    write_json,
    write_npz,
    write_whole,
)

WRITERS = {
    "text": lambda file: write_whole(file, "abc"),
    "json": lambda file: write_json(file, {"a": 1}),
    "arrays": lambda file: write_npz(file, {"x": np.arange(3)}),
    "checkpoint": lambda file: save_checkpoint({"x": 1}, str(file)),
    "several": lambda file: write_files(file.parent, {file.name: lambda stream: stream.write("abc")}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_content_is_on_the_disk_before_the_name(name, tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle):
        calls.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def watched_replace(source, target):
        calls.append(("rename", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    WRITERS[name](tmp_path / "file")
    inode = (tmp_path / "file").stat().st_ino
    assert calls == [("sync", inode), ("rename", inode), ("sync", tmp_path.stat().st_ino)]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = write_whole(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), whole_file(file) as stream:
        stream.write(b"half of the new")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*labels\.json"):
        write_json(tmp_path / "labels.json", {})
    assert not list(tmp_path.iterdir())


def test_a_folder_moves_with_everything_in_it_on_the_disk(tmp_path, monkeypatch):
    synced = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), fsync(handle)))
    (tmp_path / "work" / "deep").mkdir(parents=True)
    inner = tmp_path / "work" / "deep" / "file"
    inner.write_text("x")
    inode = inner.stat().st_ino
    move_whole(tmp_path / "work", tmp_path / "final")
    assert (
        inode in synced
        and (tmp_path / "final" / "deep" / "file").read_text() == "x"
        and not (tmp_path / "work").exists()
    )


def test_what_is_written_is_json_whatever_the_numbers(tmp_path):
    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    content = {
        "a": [1.5, float("nan"), (np.float64("inf"), "NaN")],
        "b": {"c": -np.inf, "d": None, "e": True},
    }
    expected = {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "d": None, "e": True}}
    text = write_json(tmp_path / "x.json", content).read_text(encoding="utf-8")
    for one in (text, json_text(content)):
        assert json.loads(one, parse_constant=refuse) == expected
    assert content["a"][1] != content["a"][1], "what was given is left as it is"


def test_a_json_line_is_ascii_whatever_the_text():
    content = {"text": "für \ud83d", "share": float("nan")}  # half a surrogate pair
    line = json_line(content)
    assert line.isascii() and line.endswith("\n") and line.count("\n") == 1
    assert json.loads(line) == {**content, "share": None}
