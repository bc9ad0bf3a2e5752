"""RecBole and torch are loaded by what needs them: a bundle is served without, and RecBole knows our models
whoever comes first."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from process import ROOT, environment
from served import serve

from recbole_alkd.late import ALONE

HEAVY = """
names = {"torch", "recbole", "pandas", "scipy", "yaml", "transformers"}
print("heavy:", *sorted(names & set(sys.modules)))
"""
KNOWN = """
from recbole.config import Config
from recbole.utils import get_model, get_trainer
assert Config(model="ALKDRec", dataset="ml-100k")["alkd_policy"] == "max_min"
assert get_model("ALKDRec").__module__ == "recbole_alkd.model.alkdrec"
assert get_trainer(None, "ALKDRec").__module__ == "recbole_alkd.trainer.trainer"
print("known")
"""
SAME = """
import sys, recbole, recbole_alkd.late
late = recbole_alkd.late
assert not any(isinstance(one, late._First) for one in sys.meta_path), "nothing looks at imports any more"
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in ("recbole", "recbole_alkd") and module.__name__ == name:
        assert module.__spec__.name == name and not isinstance(module.__spec__.loader, late._AfterAll), name
"""


def fresh(code, cwd):
    command = [sys.executable, "-c", f"import sys\n{code}"]
    env = environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("first", ["", "recommend", "explain", "export"])
def test_a_bundle_is_used_without_loading_recbole_and_torch(tmp_path, first):
    """They are installed here, and take seconds to load."""
    bundle = str(serve(tmp_path, "SessionKNN").bundle)
    words = {
        "recommend": ["recommend", "--bundle", bundle, "--history", "i3 i4"],
        "explain": ["explain", "--bundle", bundle, "--history", "i3 i4"],
        "export": ["export", "--bundle", bundle, "--out", str(tmp_path / "out")],
    }
    code = "import recbole_alkd.serving as serving\n"
    code += f"serving.Recommender.load({bundle!r}).recommend(['i3'])\n"
    if first:
        code = f"from recbole_alkd.cli import main\ntry: main({words[first]!r})\n"
        code += "except SystemExit as end: assert not end.code\n"
    assert fresh(code + HEAVY, tmp_path).splitlines()[-1] == "heavy:"


@pytest.mark.parametrize(
    "first",
    [
        "import recbole_alkd",
        "import recbole_alkd; import recbole.quick_start",
        "from recbole_alkd import run_recbole_alkd",
        "from recbole_alkd.serving import Recommender",
        "from recbole_alkd.serving.make import write_bundle",
        "import recbole_alkd.learner.gradient",
        "from recbole_alkd.config import AlkdError",
        "import recbole_alkd; recbole_alkd.labels.LabelStore",
        "import recbole; import recbole_alkd",
    ],
)
def test_recbole_knows_our_models_whatever_is_imported_first(tmp_path, first):
    assert fresh(first + KNOWN + SAME, tmp_path).split()[-1] == "known"


def test_a_name_that_is_not_there_is_an_attribute_error():
    import recbole_alkd

    with pytest.raises(AttributeError, match="module 'recbole_alkd' has no attribute 'nothing'"):
        _ = recbole_alkd.nothing
    assert {"run_recbole_alkd", "AlkdError", "policies"} <= set(dir(recbole_alkd))


def test_what_is_imported_alone_imports_nothing_that_needs_the_rest():
    """Else a module could be asked for while it is still being loaded."""
    package = ROOT / "recbole_alkd"
    for name in ALONE:
        file = package / f"{name}.py"
        files = [file] if file.exists() else sorted((package / name).rglob("*.py"))
        for file in files:
            if name == "serving" and file.name.startswith("make"):
                continue
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else names
                for one in names:
                    room = [*one.split("."), ""][1]
                    assert not one.startswith("recbole_alkd.") or room in ALONE, f"{file} imports {one}"
                    assert not one.startswith("recbole_alkd.serving.make"), f"{file} imports {one}"
                    assert one.split(".")[0] not in ("recbole", "torch"), f"{file} imports {one}"
