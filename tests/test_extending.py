"""The plug-ins of docs/extending.md, as an outsider has them: an installed wheel, an empty folder,
the console command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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
    """A folder that holds nothing but what the wheel installs."""
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
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def outside(installed: Path, tmp_path: Path) -> Path:
    """An empty folder with the files of the page, which sees the installed package and no checkout."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def run(words: list[str], cwd: Path, installed: Path) -> str:
    env = {**environment(), "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_plug_in_passes_its_tests_and_runs(name: str, outside: Path, installed: Path) -> None:
    said = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py"], outside, installed)
    assert re.search(r"[1-9]\d* passed", said) and "failed" not in said
    # as the installer writes it: its own folder is on the path, not this one
    script = outside / "bin" / "recbole-alkd"
    script.parent.mkdir()
    script.write_text("from recbole_alkd.cli import main\nmain()\n")
    code = (
        "import recbole_alkd; from pathlib import Path; from recbole_alkd.testing.toy import *; "
        "write_toy_data(Path('data'))\n"
    )
    code += "import json; print(recbole_alkd.__file__); print(json.dumps(dict(TOY_SETTINGS)))"
    where, toy = run(["-c", code], outside, installed).strip().splitlines()[-2:]
    assert where.startswith(str(installed))
    settings = {**json.loads(toy), "data_path": "data", "alkd_plugins": name, **RUNS[name]}
    words = [
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in settings.items()
    ]
    run([str(script), "run", "--dataset=toy", *words], outside, installed)
    report = json.loads(next((outside / "saved").glob("ALKDRec-*/result.json")).read_text())
    assert report["stages"]["distilled"]["test"] and len(report["policy"]["picks"]) == 10
    assert all(report["settings"].get(key, value) == value for key, value in RUNS[name].items())
