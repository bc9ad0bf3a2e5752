"""The service under load: timings (``make benchmarks``), 200 clients for a minute,
and requests made up from its own document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from big import big_bundle
from process import environment
from service_process import answer, request, serving, table_bundle

for package in ("msgspec", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(package, reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
CLIENT = str(Path(__file__).with_name("load_client.py"))


def load(port, *words):
    command = [sys.executable, CLIENT, str(port), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cpu_and_memory(server):
    """CPU seconds of the workers so far, and their resident memory in MiB without pages of files."""
    seconds = memory = 0.0
    for process in server.workers():
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        memory += next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
    return seconds, memory


@pytest.mark.benchmarks
@pytest.mark.parametrize(("items", "neighbours"), [(43_000, 10), (1_000_000, 20)])
def test_a_thousand_requests_a_second(tmp_path, items, neighbours):
    bundle = big_bundle(tmp_path / "bundle", items, neighbours)
    seconds = os.environ.get("LOAD_SECONDS", "60")
    with serving(bundle) as server:
        load(server.port, "--seconds", "3", "--items", str(items))  # pages are read, code is warm
        before, _ = cpu_and_memory(server)
        report = load(server.port, "--seconds", seconds, "--items", str(items))
        after, memory = cpu_and_memory(server)
    print(
        f"\n{items:,} items x {neighbours}: {report}; worker: {after - before:.1f} CPU s, "
        f"{memory:.0f} MiB of its own"
    )


@pytest.mark.slow
def test_200_clients_for_a_minute(tmp_path):
    with serving(table_bundle(tmp_path / "bundle"), "--workers", "2") as server:
        _, before = cpu_and_memory(server)
        # slow enough for a machine that is busy with other things: what counts is that nothing fails
        report = load(server.port, "--rate", "300", "--seconds", "60", "--connections", "200")
        assert report["failures"] == 0 and report["requests"] == 18_000
        _, after = cpu_and_memory(server)
        assert after - before < 100, "MiB"
        assert server.stop() == (0, "")


@pytest.mark.slow
def test_bodies_of_100_megabytes_take_no_memory(tmp_path):
    with serving(table_bundle(tmp_path / "bundle")) as server:
        _, before = cpu_and_memory(server)
        body, statuses = b'{"history": [' + b'"3", ' * 20_000_000 + b'"3"]}', []

        def send():
            with server.connect(60) as sock:
                sock.sendall(request("/recommend", body))
                statuses.append(answer(sock)[0])

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert statuses == [413] * 4
        _, after = cpu_and_memory(server)
        assert after - before < 50, "MiB"
        # a million items in a body that is allowed to be large
    with serving(table_bundle(tmp_path / "other"), "--max-body", str(10**8)) as server:
        status, reply = server.ask("/recommend", b'{"history": [' + b'"3", ' * 999_999 + b'"3"]}')
        assert status == 422 and reply["error"].endswith("expected `array` of length <= 1000")
    with serving(
        table_bundle(tmp_path / "third"), "--max-body", str(10**8), "--max-history", str(10**6)
    ) as server:
        status, reply = server.ask("/recommend", b'{"history": [' + b'"3", ' * 999_999 + b'"3"]}')
        assert status == 200 and len(reply["recommendations"]) == 10


@pytest.mark.slow
def test_requests_made_up_from_the_document(tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis (extra dev) is not installed")
    with serving(table_bundle(tmp_path / "bundle")) as server:
        address = f"http://127.0.0.1:{server.port}"
        words = [
            "run",
            f"{address}/openapi.json",
            "--checks",
            "all",
            "--max-examples",
            "100",
            "--seed",
            "1",
            "--no-color",
        ]
        command = [str(Path(sys.executable).with_name("schemathesis")), *words]
        if not Path(command[0]).exists():
            command = [
                sys.executable,
                "-c",
                "from schemathesis.cli import schemathesis; schemathesis()",
                *words,
            ]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=900, env=environment()
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.ask("/health")[0] == 200
        assert server.stop() == (0, "")
