"""Threads wait without spinning, from the first import on and unless told otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from process import ROOT

from recbole_alkd.threads import PASSIVE, wait_passively

# what the environment says when torch is imported, and no more
_LOOK = """
import importlib.machinery, os, sys
class Look:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torch" else None
    def create_module(self, spec):
        print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("KMP_BLOCKTIME"), flush=True)
        os._exit(0)
    def exec_module(self, module): ...
sys.meta_path.insert(0, Look())
"""


@pytest.mark.parametrize(
    "first", ["import recbole_alkd", "from recbole_alkd.cli import main", "import run_recbole_alkd"]
)
@pytest.mark.parametrize(("own", "seen"), [({}, "PASSIVE 0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 0")])
def test_torch_finds_that_threads_wait_passively(first, own, seen):
    env = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    done = subprocess.run(
        [sys.executable, "-c", f"{_LOOK}{first}; import torch"],
        cwd=ROOT,
        env={**env, **own},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == seen, done.stderr


def test_a_process_that_has_torch_already_is_left_alone(monkeypatch):
    for name in PASSIVE:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", sys))
    wait_passively()
    assert not PASSIVE.keys() & os.environ.keys()
    monkeypatch.delitem(sys.modules, "torch")
    wait_passively()
    assert {name: os.environ[name] for name in PASSIVE} == PASSIVE
