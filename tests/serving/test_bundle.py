"""What a bundle holds, and what is refused before anything of it is used."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from served import serve

from recbole_alkd import AlkdError
from recbole_alkd.serving import Recommender
from recbole_alkd.serving import manifest as room
from recbole_alkd.serving.manifest import copy_bundle, write_bundle_folder
from recbole_alkd.tensors import TensorFile, write_tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return serve(tmp_path_factory.mktemp("made"), "SessionKNN").bundle


@pytest.fixture
def bundle(made, tmp_path):
    shutil.copytree(made, tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(bundle, **values):
    content = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**content, **values}))


def test_a_bundle_says_what_it_is(made):
    content = json.loads((made / "manifest.json").read_text())
    assert content["format"] == "recbole_alkd bundle" and content["version"] == 1
    assert (
        content["student"] | {"kind": "table", "backbone": "SessionKNN", "items": 30, "max_length": 6}
        == content["student"]
    )
    assert set(content["files"]) == {one.name for one in made.iterdir()} - {"manifest.json"}
    lines = [json.loads(line) for line in (made / "items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] and set(lines[0]) == {"id", "title", "count"}


def test_its_numbers_are_read_by_others_too(made):
    """The reader of the package safetensors and the memory map agree."""
    for name in ("student.safetensors", "items.safetensors"):
        theirs, ours = load_file(made / name), TensorFile(made / name).arrays
        assert theirs.keys() == ours.keys()
        for key in theirs:
            np.testing.assert_array_equal(theirs[key], ours[key])
            assert theirs[key].dtype == ours[key].dtype and not ours[key].flags.writeable


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": "something else"}, "format 'something else' is not that of a bundle"),
        (
            {"version": 0},
            "a bundle of the older format version 0; this package reads 1: export the run again",
        ),
        (
            {"version": 7},
            "a bundle of the newer format version 7; this package reads 1: use a newer recbole_alkd",
        ),
        ({"version": "1"}, "a bundle of the unknown format version '1'"),
        ({"student": None}, "no mapping 'student'"),
        ({"files": []}, "no mapping 'files'"),
        ({"files": {}}, "student.safetensors is missing among its files"),
        ({"files": {"../../etc/passwd": {}}}, r"file '../../etc/passwd' is no part of a bundle"),
        ({"files": {"/etc/passwd": {}}}, "file '/etc/passwd' is no part of a bundle"),
        (
            {"student": {"kind": "pickle", "max_length": 6}},
            "a student of kind 'pickle'; allowed: table | embeddings | encoder",
        ),
        ({"student": {"kind": "table", "max_length": "6"}}, "max_length '6'"),
    ],
)
def test_a_foreign_older_newer_or_damaged_manifest_is_refused(bundle, values, words):
    edit(bundle, **values)
    with pytest.raises(AlkdError, match=words) as error:
        Recommender.load(bundle)
    assert str(bundle) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe"])
def test_a_manifest_that_is_no_json_is_refused(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(AlkdError, match="not readable as a JSON mapping"):
        Recommender.load(bundle)


@pytest.mark.parametrize("name", ["student.safetensors", "items.safetensors", "items.jsonl", "README.md"])
def test_a_file_that_was_changed_cut_or_lost_is_named(bundle, name):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AlkdError, match=f"{name}: its SHA-256 is not the one"):
        Recommender.load(bundle)
    (bundle / name).write_bytes(content[:-1])
    with pytest.raises(AlkdError, match=f"{name}: .* bytes, and {len(content)} in manifest.json"):
        Recommender.load(bundle)
    (bundle / name).unlink()
    with pytest.raises(AlkdError, match=f"{name}: no such file"):
        Recommender.load(bundle)


def test_a_large_file_is_hashed_only_when_asked(bundle, monkeypatch):
    monkeypatch.setattr(room, "HASHED", 100)
    content = bytearray((bundle / "student.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "student.safetensors").write_bytes(content)
    Recommender.load(bundle)
    with pytest.raises(AlkdError, match="its SHA-256 is not the one"):
        Recommender.load(bundle, verify=True)


@pytest.mark.parametrize("name", ["manifest.json", "student.safetensors"])
def test_links_are_refused(bundle, tmp_path, name):
    os.rename(bundle / name, tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlkdError, match=f"{name}: a link"):
        Recommender.load(bundle)


def test_no_folder_and_a_folder_without_a_bundle_are_refused(tmp_path):
    with pytest.raises(AlkdError, match="no such folder"):
        Recommender.load(tmp_path / "nowhere")
    with pytest.raises(AlkdError, match=r"no manifest\.json in it; allowed: a bundle"):
        Recommender.load(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"weights": {"dtype": "F16", "shape": [3], "data_offsets": [0, 600]}},
        {"weights": {"dtype": "F16", "shape": [300], "data_offsets": [0, 600]}},
        {"weights": {"dtype": "F16", "shape": [-1], "data_offsets": [0, -2]}},
        {"weights": {"dtype": "F16", "shape": [1 << 62, 8], "data_offsets": [0, 8]}},
        {"weights": {"dtype": "PY", "shape": [4], "data_offsets": [0, 8]}},
        {"weights": {"dtype": "F16", "shape": 4, "data_offsets": [0, 8]}},
        {"weights": ["F16"]},
        [],
    ],
)
def test_tensors_that_do_not_fit_their_file_are_refused(tmp_path, header):
    content = json.dumps(header).encode()
    (tmp_path / "t.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + bytes(8))
    with pytest.raises(AlkdError, match=r"t.safetensors: .*damaged"):
        TensorFile(tmp_path / "t.safetensors")


@pytest.mark.parametrize("content", [b"", b"1234567", (1 << 60).to_bytes(8, "little") + b"{}", bytes(16)])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(AlkdError, match=r"t.safetensors: .*damaged"):
        TensorFile(tmp_path / "t.safetensors")


def test_a_table_whose_rows_do_not_fit_is_refused(bundle):
    arrays = {name: array.copy() for name, array in TensorFile(bundle / "student.safetensors").arrays.items()}
    arrays["indptr"][3] = 10_000
    write_tensors(bundle / "student.safetensors", arrays)
    content = json.loads((bundle / "manifest.json").read_text())
    file = bundle / "student.safetensors"
    content["files"]["student.safetensors"] = {"bytes": file.stat().st_size, "sha256": room.digest(file)}
    edit(bundle, files=content["files"])
    with pytest.raises(AlkdError, match="rows and edges of its table do not fit"):
        Recommender.load(bundle)


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path):
    def fail(folder):
        (folder / "items.jsonl").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_bundle_folder(tmp_path / "out", {}, fail)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(bundle, tmp_path):
    with pytest.raises(AlkdError, match="is there already"):
        copy_bundle(bundle, bundle)
    (tmp_path / "mine").mkdir()
    with pytest.raises(AlkdError, match="is there and is no bundle"):
        write_bundle_folder(tmp_path / "mine", {}, lambda folder: None, replace=True)
    copy_bundle(bundle, tmp_path / "copy")
    assert Recommender.load(tmp_path / "copy").recommend(["i3"]) == Recommender.load(bundle).recommend(["i3"])


def test_a_damaged_bundle_is_not_copied(bundle, tmp_path):
    content = bytearray((bundle / "items.jsonl").read_bytes())
    content[3] ^= 1
    (bundle / "items.jsonl").write_bytes(content)
    with pytest.raises(AlkdError, match=r"items\.jsonl: its SHA-256"):
        copy_bundle(bundle, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
