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
