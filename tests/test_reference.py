"""The YAML file and the page of settings are what the fields say."""

from __future__ import annotations

import pytest
import yaml
from process import ROOT, run

from recbole_alkd import reference
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


@pytest.mark.parametrize("file", ["properties/model/ALKDRec.yaml", "docs/reference/settings.md"])
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
