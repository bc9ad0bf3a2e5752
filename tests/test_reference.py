"""The YAML file and the page of settings are what the fields say."""

from __future__ import annotations

import importlib
import re

import pytest
import yaml
from process import ROOT, run

from recbole_alkd import api_reference, reference
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.text import read_yaml


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What ``make settings`` would write, from a process in which no test has registered anything."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "properties" / "model").mkdir(parents=True)
    before = (ROOT / "properties" / "model" / "ALKDRec.yaml").read_text(encoding="utf-8")
    (folder / "properties" / "model" / "ALKDRec.yaml").write_text(before, encoding="utf-8")
    code = (
        "from pathlib import Path; from recbole_alkd.files import write_whole; "
        "from recbole_alkd.reference import made\n"
        f"for path, text in made(Path({str(folder)!r})).items():\n"
        "    path.parent.mkdir(parents=True, exist_ok=True); write_whole(path, text)"
    )
    done = run(["-c", code], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "file", ["properties/model/ALKDRec.yaml", "docs/reference/settings.md", "docs/reference/api.md"]
)
def test_the_files_are_what_the_fields_say(made, file):
    assert (ROOT / file).read_text(encoding="utf-8") == (made / file).read_text(encoding="utf-8"), (
        "run `make settings`"
    )


def test_our_part_is_made_anew_and_recboles_part_is_kept():
    text = (ROOT / "properties" / "model" / "ALKDRec.yaml").read_text(encoding="utf-8")
    assert reference.settings_yaml(text) == text
    assert reference.settings_yaml(text.replace("budget_labels: 500", "budget_labels: 5")) == text
    assert reference.settings_yaml(text.replace("topk: [5, 10]", "topk: [5]")) != text


def test_every_setting_has_a_help_that_ends_and_a_default_that_is_read_back():
    for key, spec in FIELDS.items():
        assert spec.help.strip().endswith((".", ")")), key
        value = read_yaml(f"{key}: {reference.yaml_text(spec.default)}")[key]
        assert value == spec.default and type(value) is type(spec.default), key


def test_a_long_comment_is_laid_below_or_above_its_line():
    lines = (
        (ROOT / "properties" / "model" / "ALKDRec.yaml")
        .read_text(encoding="utf-8")
        .partition("# -- RecBole")[0]
        .splitlines()
    )
    assert max(map(len, lines)) <= reference.WIDTH
    assert set(yaml.safe_load("\n".join(lines))) == set(FIELDS)


IMPORTED = re.compile(r"^\s*from (recbole_alkd[\w.]*) import ([\w, ]+)", re.MULTILINE)


def imported_names():
    """What README and the guide import from this package."""
    for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        if file.parent.name != "reference":
            for module, names in IMPORTED.findall(file.read_text(encoding="utf-8")):
                yield from ((module, name.strip()) for name in names.split(","))


def test_every_name_that_the_guide_imports_is_on_the_page_of_public_names():
    registries = {"backbones", "policies", "teachers", "losses"}  # objects, which the page has as Registry
    names = {name for _, name in imported_names()} - registries
    assert len(names) > 20
    missing = [name for name in names if all(name not in known for known in api_reference.PUBLIC.values())]
    assert not missing, missing


def test_every_name_that_a_public_module_exports_is_on_the_page():
    for module in ("serving", "testing", "labels", "active.max_min"):
        module = f"recbole_alkd.{module}"
        assert set(importlib.import_module(module).__all__) <= set(api_reference.PUBLIC[module])


def test_every_public_name_says_what_it_is():
    for module, names in api_reference.PUBLIC.items():
        for name in names:
            assert (getattr(importlib.import_module(module), name).__doc__ or "").strip(), f"{module}.{name}"


def test_html_in_a_docstring_is_text():
    assert api_reference._prose("a <b> `x < y` ``z``") == "a &lt;b> `x < y` `z`"
