"""The plug-ins of docs/extending.md, as an outsider has them: an installed wheel, an empty folder,
the console command."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from process import ROOT, environment

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
# name of a setting -> what a run is given
RUNS = {
    "middle_policy": {"alkd_policy": "middle", "middle_at": 0.25},
    "list_loss": {"kd_loss": "listmle"},
    "words_teacher": {"llm_teacher": "words"},
    "recent_mean": {"student_model": "RecentMean"},
    "ease": {"student_model": "EASE"},
}


def test_the_page_has_five_plug_ins_and_their_tests() -> None:
    assert {name for name in FILES if name.endswith(".py")} == {
        *(f"{m}.py" for m in RUNS),
        *(f"test_{m}.py" for m in RUNS),
    }
    for name in RUNS:
        assert len(FILES[f"{name}.py"].splitlines()) < 55


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel, as pip installs it; what it needs is shared with this one."""
    pytest.importorskip("pip", reason="pip installs the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    leftovers = (
        ".*",
        "__pycache__",
        "*.egg-info",
        "build",
        "dist",
        "log",
        "log_tensorboard",
        "saved",
        "alkd_labels",
    )
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*leftovers))
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "source", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    wheel = folder / done.stdout.split()[-1]
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # folders of a .pth file come after its own, and their .pth files (an editable checkout) are not read
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "shared.pth").write_text("\n".join(shared) + "\n")
    words = [
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return python


@pytest.fixture
def outside(installed: Path, tmp_path: Path) -> Path:
    """An empty folder with the files of the page; ``installed`` runs there, and sees no checkout."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def run(words: list[str | Path], cwd: Path) -> str:
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def toy(outside: Path, python: Path) -> dict[str, Any]:
    """Toy data in ``outside/data``, written by the installed package, and the settings for them."""
    code = (
        "import json, recbole_alkd; from pathlib import Path; from recbole_alkd.testing.toy import *; "
        "write_toy_data(Path('data')); print(recbole_alkd.__file__); print(json.dumps(dict(TOY_SETTINGS)))"
    )
    where, settings = run([python, "-c", code], outside).strip().splitlines()[-2:]
    assert where.startswith(str(python.parents[1]))
    return {**json.loads(settings), "data_path": "data"}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_plug_in_passes_its_tests_and_runs(name: str, outside: Path, installed: Path) -> None:
    said = run([installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py"], outside)
    assert re.search(r"[1-9]\d* passed", said) and "failed" not in said
    settings = {**toy(outside, installed), "alkd_plugins": name, **RUNS[name]}
    words = [
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in settings.items()
    ]
    run([installed.with_name("recbole-alkd"), "run", "--dataset=toy", *words], outside)
    report = json.loads(next((outside / "saved").glob("ALKDRec-*/result.json")).read_text())
    assert report["stages"]["distilled"]["test"] and len(report["policy"]["picks"]) == 10
    assert all(report["settings"].get(key, value) == value for key, value in RUNS[name].items())


@pytest.mark.slow
def test_a_plan_of_plug_ins_runs_to_its_end(outside: Path, installed: Path) -> None:
    settings = {**toy(outside, installed), "alkd_plugins": list(RUNS)}
    plan = {
        "datasets": ["toy"],
        "seeds": [1],
        "data_path": settings.pop("data_path"),
        "settings": {key: value for key, value in settings.items() if key != "show_progress"},
        "arms": [
            "student",
            "policy:middle",
            "loss:listmle",
            "model:RecentMean",
            "model:EASE",
            {"name": "told by words", "arm": "random", "settings": {"llm_teacher": "words"}},
        ],
    }
    (outside / "mine.yaml").write_text(json.dumps(plan))  # JSON is YAML
    run([installed.with_name("recbole-alkd"), "bench", "mine.yaml"], outside)
    with open(outside / "alkd_bench" / "mine" / "results.csv", newline="") as stream:
        rows = {row["arm"]: row for row in csv.DictReader(stream)}
    assert len(rows) == len(plan["arms"])
    assert all(float(row["test_ndcg@10"]) > 0 for row in rows.values())
    asked = {arm: row["labels_asked"] for arm, row in rows.items() if row["labels_asked"]}
    assert asked["told by words"] == "10" and asked["policy:middle"] and asked["loss:listmle"]
    assert "Failed runs" not in (outside / "alkd_bench" / "mine" / "results.md").read_text()
