"""The Makefile on machines whose Python is too old, too new or missing: one line, before anything is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from process import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def interpreter(folder, name, version):
    """A stand-in for an interpreter that only tells its version."""
    file = folder / name
    words = ", ".join(version.split(".")[:2])
    file.write_text(
        "#!/bin/sh\n"
        f'case "$1" in\n-V) echo Python {version};;\n'
        f'-c) exec {sys.executable} -c "import sys; sys.version_info = ({words}); $2";;\n'
        "*) echo used >&2; exit 3;;\nesac\n"
    )
    file.chmod(0o755)
    return file


def make(tmp_path, python):
    env = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYENV_ROOT": str(tmp_path / "pyenv"),
        "PYTHON": str(python),
    }
    return subprocess.run(
        ["make", f"VENV={tmp_path / 'venv'}", str(tmp_path / "venv" / "ready")],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("version", ["3.9.18", "3.15.0", "2.7.18"])
def test_a_python_that_does_not_fit_is_named_beside_those_that_do(tmp_path, version):
    other = tmp_path / "pyenv" / "versions" / "3.12.1" / "bin"
    other.mkdir(parents=True)
    python = interpreter(other, "python3", "3.12.1")
    done = make(tmp_path, interpreter(tmp_path, "python-here", version))
    line = done.stderr.splitlines()[0]
    assert done.returncode != 0
    assert f"is Python {version}; Python 3.10 to 3.14 is needed" in line and str(python) in line
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there_is_named(tmp_path):
    done = make(tmp_path, "no-such-python")
    assert "no-such-python is not there" in done.stderr.splitlines()[0]


@pytest.mark.parametrize("version", ["3.10.13", "3.11.7", "3.13.0", "3.14.0"])
def test_a_python_that_fits_is_used(tmp_path, version):
    done = make(tmp_path, interpreter(tmp_path, "python-here", version))
    assert "is needed" not in done.stderr and "used" in done.stderr  # it was asked to make the environment


def test_threads_wait_without_spinning_unless_told_otherwise(tmp_path):
    """What a recipe sees; ``--eval`` adds one that prints it."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    rule = ["make", "--silent", "--eval", "policy: ; @echo $$OMP_WAIT_POLICY", "policy"]
    for own, seen in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        given = env if own is None else {**env, "OMP_WAIT_POLICY": own}
        assert (
            subprocess.run(
                rule, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60
            ).stdout.strip()
            == seen
        )
