"""The page of the service in a real browser."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Page
from service_process import MARKUP, serving, table_bundle, until

for package in ("msgspec", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(package, reason="the extra serve is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian package) on this machine"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
]

ROWS = (
    "[...document.querySelectorAll('#lists > div:not([hidden]) .add')].map(node => "
    "node.firstChild.textContent)"
)
SESSION = "[...document.querySelectorAll('#session span')].map(node => node.textContent)"
COMPARISON = {
    "against": "student_longer", "metric": "ndcg@10", "difference": 0.0012, "low": -0.0101, "high": 0.013,
    "sessions": 328, "verdict": "no measurable difference",
}  # fmt: skip
CODES = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Tab": 9}


def press(page, key):
    text = {"Enter": "\r"}.get(key)
    more = {"text": text} if text else {}
    page.call(
        "Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=CODES[key], **more
    )
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=CODES[key])


def write(page, words):
    page.value("document.querySelector('#words').focus()")
    page.call("Input.insertText", text=words)
    until(lambda: page.value("!document.querySelector('#found').hidden"))
    wanted = words.casefold()
    rows = "[...document.querySelectorAll('#found li')].map(n => n.textContent)"
    until(lambda: all(wanted in row.casefold() for row in page.value(rows)))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    teacher = table_bundle(folder / "teacher", seed=9)
    bundle = table_bundle(folder / "bundle", comparison=COMPARISON)
    with serving(bundle, "--teacher", str(teacher)) as address:
        yield address


@pytest.fixture
def page(server, tmp_path):
    with Page(f"http://127.0.0.1:{server.port}/", tmp_path) as page:
        page.look(1200)
        until(lambda: len(page.value(ROWS)) >= 10)
        yield page
        assert page.errors == []
        assert {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")} == {
            f"127.0.0.1:{server.port}"
        }


def listed(server, history, by="student"):
    return [
        one["title"] for one in server.ask("/recommend", {"history": history, "by": by})[1]["recommendations"]
    ]


def test_the_page_says_what_the_run_showed(page):
    words = page.value("document.querySelector('#verdict').innerText")
    assert "ndcg@10 +0.0012" in words and "no measurable difference on 328 test sessions" in words


def test_a_session_is_built_with_the_keyboard(server, page):
    assert page.value(SESSION) == [] and "popular" in page.value("document.querySelector('#empty').innerText")
    write(page, "The 12")
    assert page.value("document.querySelector('#words').getAttribute('aria-expanded')") == "true"
    press(page, "Enter")
    until(lambda: page.value(SESSION) == ["The 12. film"])
    until(lambda: page.value(ROWS)[:10] == listed(server, ["12"]))
    write(page, "film")
    marked = "document.querySelector('#found [aria-selected=true]').id"
    assert page.value(marked) == "option0"
    for key, row in (("ArrowDown", "option1"), ("ArrowDown", "option2"), ("ArrowUp", "option1")):
        press(page, key)
        assert page.value(marked) == row
        assert page.value("document.querySelector('#words').getAttribute('aria-activedescendant')") == row
    second = page.value("document.querySelector('#option1').textContent")
    press(page, "Enter")
    until(lambda: page.value(SESSION) == ["The 12. film", second])
    write(page, "The 3")
    press(page, "Escape")
    assert page.value("document.querySelector('#found').hidden") is True and len(page.value(SESSION)) == 2
    page.value("document.querySelector('#session button').focus()")
    press(page, "Enter")
    until(lambda: page.value(SESSION) == [second])
    assert page.value("document.activeElement.getAttribute('aria-label')") == f"Remove {second}", (
        "focus is not lost"
    )
    # tab reaches everything that can be pressed
    page.value("document.querySelector('#words').focus()")
    seen = set()
    for _ in range(60):
        press(page, "Tab")
        seen.add(
            page.value("(n => n.className || n.id || n.getAttribute('aria-label'))(document.activeElement)")
        )
    assert {"add", "why", "clear", f"Remove {second}"} <= seen


def test_recommenders_stand_side_by_side(server, page):
    page.value("location.hash = '#12,3'")
    page.reload()
    until(lambda: page.value(SESSION) == ["The 12. film", "The 3. film"])
    until(lambda: page.value("document.querySelectorAll('.row').length") == 30)
    heads = page.value("[...document.querySelectorAll('#lists h2')].map(n => n.innerText)")
    assert heads == ["Student", "Popularity", "Teacher recommender"]
    wanted = [listed(server, ["12", "3"], by) for by in ("student", "popularity", "teacher")]
    assert wanted[0] != wanted[1] != wanted[2]
    titles = "[...d.querySelectorAll('.add')].map(n => n.firstChild.textContent)"
    assert page.value(f"[...document.querySelectorAll('#lists > div')].map(d => {titles})") == wanted
    tops = page.value(
        "[...document.querySelectorAll('#lists > div')].map(d => d.getBoundingClientRect().top)"
    )
    assert (
        len(set(tops)) == 1
        and page.value("document.querySelector('#tabs').getBoundingClientRect().width") == 0
    )
    page.look(390)
    shown = (
        "[...document.querySelectorAll('#lists > div')].filter(d => d.getBoundingClientRect().width).length"
    )
    assert page.value(shown) == 1
    page.value("document.querySelectorAll('#tabs button')[2].click()")
    assert page.value(shown) == 1 and page.value(ROWS) == wanted[2]


def test_why(server, page):
    page.value("location.hash = '#12,7'")
    page.reload()
    until(lambda: len(page.value(SESSION)) == 2 and page.value(ROWS)[:10] == listed(server, ["12", "7"]))
    page.value("document.querySelector('.why').click()")
    until(lambda: page.value("document.querySelectorAll('.reasons li').length") > 0)
    best = server.ask("/recommend", {"history": ["12", "7"]})[1]["recommendations"][0]["item"]
    reasons = server.ask("/explain", {"history": ["12", "7"], "item": best})[1]["reasons"]
    lines = page.value("[...document.querySelectorAll('.reasons li')].map(n => n.textContent)")
    assert len(lines) == len(reasons)
    for line, part in zip(lines, reasons, strict=True):
        assert line.startswith(f"{part['title']}: " if part["source"] else "popular")
        assert float(re.search(r"\(([^()]*)\)$", line)[1]) == pytest.approx(part["weight"], rel=5e-3)
    page.value("document.querySelector('.why').click()")
    assert page.value("document.querySelectorAll('.reasons').length") == 0


def test_titles_are_text(server, page):
    write(page, "onerror")
    press(page, "Enter")
    until(lambda: len(page.value(SESSION)) == 1)
    assert MARKUP in page.value(SESSION)[0]
    item = page.value("location.hash").removeprefix("#")
    until(lambda: page.value(ROWS)[:10] == listed(server, [item]))
    page.value("document.querySelector('.why').click()")
    until(lambda: page.value("document.querySelectorAll('.reasons li').length") > 0)
    assert (
        page.value("document.querySelectorAll('img, main b').length") == 0
        and page.value("window.hit") is None
    )
    assert "&lt;b&gt;" not in page.value("document.querySelector('#about').textContent")
    # the browser itself refuses markup where a script would set it
    blocked = page.value(
        "(() => { try { document.body.insertAdjacentHTML('beforeend', "
        "'<img src=x onerror=\"window.hit=1\">'); return 'done'; }"
        " catch (error) { return error.name; } })()"
    )
    assert blocked == "TypeError" and page.value("window.hit") is None


def test_it_says_what_goes_wrong(page):
    page.value(
        "window.fetch = async () => new Response(JSON.stringify({error: 'history: too long'}), {status: 422})"
    )
    page.value("document.querySelector('#lists .add').click()")
    until(lambda: page.value("document.querySelector('#failure').innerText") == "history: too long")


def test_narrow_wide_light_and_dark(server, page):
    page.value("location.hash = '#12,7,14'")
    page.reload()
    until(lambda: page.value(ROWS)[:10] == listed(server, ["12", "7", "14"]))
    page.value("document.querySelector('.why').click()")
    until(lambda: page.value("document.querySelectorAll('.reasons li').length") > 0)
    light = """(name => { const c = document.createElement('canvas').getContext('2d');
        c.fillStyle = getComputedStyle(document.body)[name]; c.fillRect(0, 0, 1, 1);
        const [r, g, b] = c.getImageData(0, 0, 1, 1).data;
                return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255; })"""
    small = (
        "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect()).filter(b => "
        "b.width).map(b => b.height)"
    )
    grounds = set()
    for width in (360, 390, 800, 1000, 1400):
        for dark in (False, True):
            page.look(width, dark)
            assert page.value("document.scrollingElement.scrollWidth") <= width
            assert min(page.value(small)) >= 40, "large enough for a finger"
            text, ground = (page.value(f"{light}('{name}')") for name in ("color", "backgroundColor"))
            assert abs(text - ground) > 0.6
            grounds.add(ground > 0.5)
    assert grounds == {True, False}
