"""What a contributor and a citing author find: files that are read by machines are well formed,
and names in them exist."""

import re

import pytest
import yaml
from process import ROOT

from recbole_alkd import __version__, testing


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0" and citation["authors"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=lambda file: file.stem
)
def test_an_issue_template_has_a_head_that_can_be_read(file):
    head = yaml.safe_load(file.read_text(encoding="utf-8").split("---")[1])
    assert {"name", "about", "labels"} <= head.keys()


def test_mixins_and_files_that_contributors_are_told_of_exist():
    pages = [ROOT / "CONTRIBUTING.md", *(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert set(re.findall(r"\w+Tests\b", text)) == {
        name for name in testing.__all__ if name.endswith("Tests")
    }
    for place in re.findall(r"`((?:recbole_alkd|tests|properties|docs)/[\w/.]+)`", text):
        assert "NAME" in place or "CLASS" in place or (ROOT / place).exists(), place


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "recbole_alkd" / "py.typed").is_file()
    assert '"recbole_alkd": ["py.typed"]' in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.stem
)
def test_a_workflow_calls_our_scripts_and_nothing_else(file):
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    for job in flow["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert commands and set(commands) <= {".ci/run", ".ci/release"}
        assert all((ROOT / command).stat().st_mode & 0o100 for command in commands)


def test_the_changelog_has_this_version_with_every_kind_of_change():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = text.split("\n## ")[1]
    assert newest.startswith(__version__)
    assert re.findall(r"^### (.*)", newest, re.MULTILINE) == ["Added", "Changed", "Fixed"]
