"""Every registered name has a class of tests that inherits from the shipped one."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from process import ROOT

import recbole_alkd.active.policy
from recbole_alkd.registry import losses, policies, teachers
from recbole_alkd.testing import LossTests, PolicyTests

BUILT_IN = {registry.setting: tuple(registry) for registry in (losses, policies, teachers)}


def named(mixin: str, attribute: str) -> Iterator[str]:
    """The names that classes of this repository's tests hand to ``mixin``."""
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and mixin in map(ast.unparse, node.bases):
                yield from (
                    one.value.value
                    for one in node.body
                    if isinstance(one, ast.Assign)
                    and ast.unparse(one.targets[0]) == attribute
                    and isinstance(one.value, ast.Constant)
                )


def test_every_teacher_passes_its_tests() -> None:
    assert set(named("TeacherTests", "teacher")) >= set(BUILT_IN["llm_teacher"]) - {"scripted", "golden"}


def module(file: str) -> ModuleType:
    """A module of this repository's tests, by its path."""
    spec = importlib.util.spec_from_file_location(f"{Path(file).stem}_looked_at", ROOT / "tests" / file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "mixin", "attribute", "registry"),
    [
        ("distill/test_every_loss.py", LossTests, "loss", losses),
        ("active/test_policies.py", PolicyTests, "policy", policies),
    ],
)
def test_every_policy_and_loss_passes_its_tests(
    file: str, mixin: type, attribute: str, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend((ROOT / "tests" / file).parent)
    classes = [one for one in vars(module(file)).values() if isinstance(one, type) and issubclass(one, mixin)]
    assert {getattr(one, attribute) for one in classes if one is not mixin} >= set(BUILT_IN[registry.setting])


def test_a_file_in_the_folder_registers_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the folders of policies, losses, teachers and backbones do it: no other file names it."""
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").write_text(Path(recbole_alkd.active.policy.__file__).read_text())
    (tmp_path / "shelf" / "first.py").write_text("HERE = 1\n")
    (tmp_path / "shelf" / "second").mkdir()
    (tmp_path / "shelf" / "second" / "__init__.py").write_text("HERE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("shelf")
    assert sys.modules["shelf.first"].HERE + sys.modules["shelf.second"].HERE == 3
    for package in ("active.policy", "distill", "teacher", "model"):
        source = Path(sys.modules[f"recbole_alkd.{package}"].__file__).read_text(encoding="utf-8")
        assert source.count("import_folder(__name__, __path__)") == 1
