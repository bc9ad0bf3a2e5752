"""README and the guide: links lead somewhere, commands and settings that they name exist."""

from __future__ import annotations

import re
import shlex
from functools import cache

import pytest
from process import ROOT, run

from recbole_alkd.cli import RECBOLE_COMMANDS
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.stock import SPECS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# a command as a reader would copy it: from a block that is indented, or in a block of a shell
COMMAND = re.compile(
    r"^(?:    |)(?:[A-Z_]+=\S+ )*recbole-alkd ([a-z]+(?:-[a-z]+)*)((?:[^\n#`|]|\|\s)*)", re.MULTILINE
)


def anchor(heading):
    """The anchor of a heading as Markdown renderers make it."""
    text = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(path):
    lines = FENCE.sub("", path.read_text(encoding="utf-8")).splitlines()
    return {anchor(line.lstrip("#")) for line in lines if re.match(r"#{1,6} ", line)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    wrong = []
    for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        in_it = not heading or file.suffix != ".md" or (file.exists() and heading in anchors(file))
        if not file.exists() or not in_it:
            wrong.append(target)
    assert not wrong, wrong


@cache
def help_of(command):
    done = run(["-m", "recbole_alkd.cli", command, "--help"], ROOT)
    assert done.returncode == 0, f"recbole-alkd {command}: {done.stderr}"
    text = done.stdout
    if command in ("store", "runs", "bench", "import"):  # their own commands have arguments too
        for name in re.findall(r"^    ([\w-]+)(?: |$)", text, re.MULTILINE):
            text += run(["-m", "recbole_alkd.cli", command, name, "--help"], ROOT).stdout
    return text


def commands():
    for page in PAGES:
        if page.parent.name != "reference":
            text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))  # a line that goes on
            for match in COMMAND.finditer(text):
                yield page.relative_to(ROOT), match[1], match[2]


def test_commands_and_their_arguments_exist():
    known, wrong = {**FIELDS, **SPECS}, []
    shown = list(commands())
    assert len(shown) > 40
    for page, command, rest in shown:
        text = help_of(command)
        for word in re.findall(r"(?<!\S)--[\w-]+", rest):
            setting = command in RECBOLE_COMMANDS and word[2:] in known
            if word not in text and not setting and word not in ("--traceback", "--version"):
                wrong.append((str(page), command, word))
    assert not wrong, wrong


def test_commands_can_be_split_by_a_shell():
    for page, command, rest in commands():
        try:
            shlex.split(rest.split(" && ")[0])
        except ValueError:
            pytest.fail(f"{page}: recbole-alkd {command}{rest}")


def test_an_anchor_is_made_as_renderers_make_it():
    assert anchor("How to read the tables") == "how-to-read-the-tables"
    assert anchor(" `alkd_unit`: sessions, or items?") == "alkd_unit-sessions-or-items"


README = (ROOT / "README.md").read_text(encoding="utf-8")


def prose(text):
    """The sentences of a page, without blocks, tables and headings."""
    lines = [line for line in FENCE.sub("", text).splitlines() if not re.match(r"    |\||#|!", line)]
    for paragraph in re.split(r"\n\s*\n|\n- ", "\n".join(lines)):
        plain = re.sub(r"\]\([^)]*\)|`[^`]*`", "x", paragraph)
        yield from (sentence for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(plain.split())) if sentence)


def test_no_sentence_of_readme_has_over_30_words():
    long = [sentence for sentence in prose(README) if len(sentence.split()) > 30]
    assert not long, long


def test_the_policy_of_readme_runs(tmp_path):
    code = re.search(r"```python\n# my_policy\.py\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "my_policy.py").write_text(code, encoding="utf-8")
    run_it = (
        "from pathlib import Path\nfrom recbole_alkd.testing import run_toy\n"
        "if __name__ == '__main__':\n"
        "    result = run_toy(Path.cwd(), alkd_plugins=['my_policy'], alkd_policy='newest')\n"
        "    print(len(result['policy']['picks']))\n"
    )
    (tmp_path / "use.py").write_text(run_it, encoding="utf-8")
    done = run([str(tmp_path / "use.py")], tmp_path)
    assert done.returncode == 0 and int(done.stdout.split()[-1]) > 0, done.stderr


def test_readme_names_files_of_the_license_and_citation():
    for name in ("CITATION.cff", "NOTICE", "LICENSE"):
        assert (ROOT / name).is_file()


def test_code_and_tests_that_the_paper_index_names_exist():
    """``room/file.py: name, other(...)`` is a file of the package with these names, ``test_x.py`` a test."""
    text = (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8")
    named, wrong = re.findall(r"`([\w/]+\.py)(?:: ([^`]+))?`", text), []
    assert len(named) > 60
    for file, names in named:
        if file.rpartition("/")[2].startswith("test_"):
            files = list((ROOT / "tests").rglob(file.removeprefix("tests/")))
        else:
            files = list((ROOT / "recbole_alkd").rglob(file))
        code = "".join(path.read_text(encoding="utf-8") for path in files)
        names = re.sub(r"\([^)]*\)", "", names).split(", ") if names else []
        missing = [name for name in names if not re.search(rf"(?:def|class) {name}\b", code)]
        if not files or missing:
            wrong.append(f"{file}: {', '.join(missing) or 'no such file'}")
    assert not wrong, wrong
