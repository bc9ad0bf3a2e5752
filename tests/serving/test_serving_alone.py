"""Where RecBole and torch are not installed a bundle is served all the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from process import ROOT, environment
from served import serve
from test_packaging import build, source  # noqa: F401  (a fixture)

from recbole_alkd.serving import Recommender

ALONE = """
import json, sys
class Never:  # as if these were not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("recbole", "torch", "pandas", "scipy", "yaml", "transformers",
        "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Never())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in ("recbole", "torch") else real(name, *more)
"""
USE = """
from recbole_alkd.serving import Recommender
recommender = Recommender.load(BUNDLE, verify=True)
print(json.dumps([recommender.recommend(["i3", "i4"], 5), recommender.explain(["i3", "i4"], "i9")]))
import recbole_alkd
try:
    recbole_alkd.run_recbole_alkd
except ImportError as error:
    print(error)
assert not {"torch", "recbole", "pandas", "scipy", "yaml"} & set(sys.modules)
"""


def go(python, code, cwd, **more):
    done = subprocess.run(
        [python, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, env=environment(**more)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["SessionKNN", "SessionFPMC", "GRU4Rec"])
def test_a_bundle_is_served_without_recbole(tmp_path, name):
    served = serve(tmp_path, name)
    here = Recommender.load(served.bundle)
    out, words = go(
        sys.executable,
        ALONE + USE.replace("BUNDLE", repr(str(served.bundle))),
        tmp_path,
        PYTHONPATH=str(ROOT),
    )
    wanted = json.dumps([here.recommend(["i3", "i4"], 5), here.explain(["i3", "i4"], "i9")])
    assert json.loads(out) == json.loads(wanted)
    assert words.startswith(
        "recbole_alkd.run_recbole_alkd needs recbole and torch, which this environment has not: pip install"
    )


def test_the_commands_say_what_to_install(tmp_path):
    served = serve(tmp_path, "SessionKNN")
    run = "from recbole_alkd.cli import main; main(WORDS)"
    code = ALONE + run.replace(
        "WORDS", repr(["recommend", "--bundle", str(served.bundle), "--history", "i3 i4", "-k", "2"])
    )
    assert len(go(sys.executable, code, tmp_path, PYTHONPATH=str(ROOT))) == 4
    code = ALONE + run.replace("WORDS", repr(["run", "--dataset=ml-100k"]))
    how = {
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "timeout": 60,
        "env": environment(PYTHONPATH=str(ROOT)),
    }
    done = subprocess.run([sys.executable, "-c", code], **how)
    assert (
        done.returncode == 2
        and "run needs recbole and torch" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )


@pytest.mark.slow
def test_a_bare_environment_with_the_wheel_and_few_packages(source, tmp_path):  # noqa: F811
    """Two packages recommend; four more serve."""
    from service_process import run_server

    served = serve(tmp_path, "SessionKNN")
    bundle = str(served.bundle)
    wheel = build(source, tmp_path, "wheel")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "bare")], check=True, timeout=120)
    python, console = (str(tmp_path / "bare" / "bin" / name) for name in ("python", "recbole-alkd"))

    def install(*words):
        subprocess.run([python, "-m", "pip", "install", "-q", *words], check=True, timeout=300)

    def ask(*words):
        env = environment(PYTHONPATH="")
        return subprocess.run([console, *words], capture_output=True, text=True, timeout=60, env=env)

    install("--no-deps", str(wheel))
    install("-c", str(ROOT / "constraints.txt"), "numpy", "safetensors")
    code = "import sys, json\n" + USE.replace("BUNDLE", repr(bundle))
    out, _ = go(python, code, tmp_path, PYTHONPATH="")
    here = Recommender.load(served.bundle)
    best = here.recommend(["i3", "i4"], 5)
    assert json.loads(out) == json.loads(json.dumps([best, here.explain(["i3", "i4"], "i9")]))
    done = ask("recommend", "--bundle", bundle, "--history", "i3")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 12, done.stderr
    done = ask("serve", "--bundle", bundle)
    assert done.returncode == 2 and "serve needs the package " in done.stderr
    packages = ["msgspec", "uvicorn", "httptools", "prometheus-client"]
    install("-c", str(ROOT / "constraints.txt"), *packages)
    with run_server(["serve", "--bundle", bundle, "--port", "0"], tmp_path, [console]) as server:
        status, content = server.ask("/recommend", {"history": ["i3", "i4"], "k": 5})
        assert status == 200
        items = [one["item"] for one in content["recommendations"]]
        assert items == [one.item for one in best]
        assert server.ask("/items?q=film")[0] == 200 == server.ask("/")[0]
        assert server.ask("/explain", {"history": ["i3", "i4"], "item": "i9"})[0] == 200
        assert "alkd_requests" in server.ask("/metrics")[1]
        assert server.stop()[0] == 0
