"""The guide as a site: it builds without a warning, and its pages fetch nothing from another host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from browser import CHROMIUM, Page
from process import ROOT, environment

OTHER_HOST = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*(?:stylesheet|preload|icon|manifest)))[^>]*?(?:src|href)=["']?(?:https?:)?//""",
    re.IGNORECASE,
)
FETCHED = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", re.IGNORECASE)


def navigation():
    """The pages that the site's menu names."""

    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [page for one in inner for page in pages(one)]

    return pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_every_page_is_in_the_menu():
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    listed = set(navigation())
    assert not pages - listed
    made = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert listed - pages == made | {"changes.md"}, "made from notebooks and CHANGELOG.md"


@pytest.mark.slow
def test_the_site_builds_and_asks_no_other_host(tmp_path):
    pytest.importorskip("material")
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(NO_MKDOCS_2_WARNING="1"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not OTHER_HOST.search(text), (page.name, OTHER_HOST.search(text)[0])
    for file in (tmp_path / "site").rglob("*.css"):
        assert not FETCHED.search(file.read_text(encoding="utf-8")), file.name
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("max_min" in entry["text"] for entry in index["docs"])
    assert Path(tmp_path / "site" / "figures").is_dir()
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        shown = (tmp_path / "site" / "notebooks" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert "run_recbole_alkd" in shown and f'href="{notebook.name}"' in shown
        assert (tmp_path / "site" / "notebooks" / notebook.name).is_file()
    if CHROMIUM:
        look_from_the_disk(tmp_path / "site" / "index.html", tmp_path / "profile")


def look_from_the_disk(start, profile):
    """Search, and follow the system's colours, without a server."""
    with Page(f"{start.as_uri()}?q=certificate", profile) as page:
        page.look(1280)
        until = time.monotonic() + 30
        links = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
        while not (found := page.value(links)) and time.monotonic() < until:
            time.sleep(0.1)
        assert any("selection.html" in link for link in found), found
        scheme = "document.body.getAttribute('data-md-color-scheme')"
        for dark in (False, True, False):
            page.look(1280, dark)
            page.reload()
            assert page.value(scheme) == ("slate" if dark else "default")
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_a_page_that_asks_another_host_would_be_found():
    assert OTHER_HOST.search('<script src="https://cdn.example/x.js">')
    assert OTHER_HOST.search('<link rel="stylesheet" href="//fonts.example/css">')
    assert not OTHER_HOST.search('<a href="https://recbole.io">')
    assert FETCHED.search("@import url(https://fonts.example)")
