"""The run folder: resumed when unfinished, never shared, never half written."""

from __future__ import annotations

import json

import pytest
import torch
from process import python

from recbole_alkd.trainer.run_folder import RESULT, RunFolder


def opened(root, digest="abc"):
    return RunFolder.open(str(root), "ALKDRec-tiny", "Jan-01", digest)


def test_an_unfinished_folder_is_taken_over_and_a_finished_one_is_not(tmp_path):
    first = opened(tmp_path)
    first.save_stage("teacher", {"state": {"w": torch.arange(3.0)}, "valid": None})
    first.close()
    second = opened(tmp_path)
    assert second.resumed and second.path == first.path
    assert torch.equal(second.stage("teacher")["state"]["w"], torch.arange(3.0))
    assert second.stage("student") is None
    second.write_json(RESULT, {"a": 1})
    second.close()
    third = opened(tmp_path)
    assert not third.resumed and third.path != first.path
    assert json.loads((first.path / RESULT).read_text()) == {"a": 1}
    third.close()


def test_other_settings_get_another_folder(tmp_path):
    with_abc, with_xyz = opened(tmp_path), opened(tmp_path, "xyz")
    assert with_abc.path != with_xyz.path and with_abc.path.name == "ALKDRec-tiny-Jan-01-abc"
    with_abc.close(), with_xyz.close()


@pytest.mark.parametrize("name", ["tiny[1]", "tiny*", "tiny?", "[ab]tiny"])
def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path, name):
    other = RunFolder.open(str(tmp_path), "ALKDRec-tiny1", "Jan-01", "abc")
    other.close()
    first = RunFolder.open(str(tmp_path), f"ALKDRec-{name}", "Jan-01", "abc")
    first.close()
    second = RunFolder.open(str(tmp_path), f"ALKDRec-{name}", "Jan-02", "abc")
    assert not first.resumed and second.resumed and second.path == first.path != other.path
    second.close()


def test_two_living_runs_never_share_a_folder(tmp_path):
    folder = opened(tmp_path)
    code = f"""
from recbole_alkd.trainer.run_folder import RunFolder
print(RunFolder.open({str(tmp_path)!r}, "ALKDRec-tiny", "Jan-01", "abc").path.name)
"""
    assert python(code, tmp_path).strip().splitlines()[-1] == "ALKDRec-tiny-Jan-01.2-abc"
    folder.close()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    folder = opened(tmp_path)
    folder.write_json("a.json", {"x": 1})
    with pytest.raises(TypeError):
        folder.write_json("a.json", {"x": object()})
    assert json.loads((folder.path / "a.json").read_text()) == {"x": 1}
    folder.close()


def damage(file, how):
    content = file.read_bytes()
    changed = bytearray(content)
    changed[content.index(b"tensor-bytes-")] ^= 1
    file.write_bytes(
        {"empty": b"", "half": content[: len(content) // 2], "a bit": bytes(changed), "text": b"{}"}[how]
    )


@pytest.mark.parametrize("how", ["empty", "half", "a bit", "text"])
def test_a_damaged_stage_counts_as_not_finished_and_is_said(tmp_path, how, caplog):
    folder = opened(tmp_path)
    state = torch.frombuffer(bytearray(b"tensor-bytes-" * 40), dtype=torch.uint8)
    folder.save_stage("teacher", {"state": {"w": state}, "valid": None})
    assert folder.stage("teacher") is not None
    damage(folder.path / "teacher.stage.pth", how)
    assert folder.stage("teacher") is None
    assert "teacher.stage.pth" in caplog.text and "damaged" in caplog.text
    folder.close()
