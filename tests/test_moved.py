"""Modules that moved stay importable under their old names."""

from __future__ import annotations

import importlib

import pytest
from process import ROOT

from recbole_alkd.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_module_of_the_new_one(old):
    if old.endswith("lora_trainer"):
        pytest.importorskip("peft")
    assert importlib.import_module(f"recbole_alkd.{old}") is importlib.import_module(
        f"recbole_alkd.{MOVED[old]}"
    )


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_has_no_file_of_its_own(old):
    assert not (ROOT / "recbole_alkd" / (old.replace(".", "/") + ".py")).exists()


def test_names_that_programs_import():
    from recbole_alkd.config import AlkdError
    from recbole_alkd.teacher.parse import parse_ranking

    import recbole_alkd
    from recbole_alkd.teacher.api import ApiTeacher
    from recbole_alkd.teacher.local import LocalTeacher

    assert AlkdError is recbole_alkd.AlkdError
    assert [recbole_alkd.teachers.get(name) for name in ("api", "local")] == [ApiTeacher, LocalTeacher]
    assert parse_ranking("2, 1", ["1", "2"], 2).items == ("2", "1")


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        importlib.import_module("recbole_alkd.nowhere")
