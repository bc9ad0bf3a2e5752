"""Timings of serving. ``make benchmarks`` runs them; docs/performance.md has the figures."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from big import big_bundle
from process import ROOT, environment
from test_serving_alone import ALONE

pytestmark = pytest.mark.benchmarks

MEASURE = """
import os, resource, time
import numpy as np
def resident():
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("VmRSS", "RssAnon"))]
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines}
from recbole_alkd.serving import Recommender
before = resident()
begin = time.perf_counter()
recommender = Recommender.load(BUNDLE)
loaded = time.perf_counter() - begin
recommender.recommend(["10000001"], 20)
after = resident()
rng = np.random.default_rng(1)
sessions = [[str(k) for k in rng.integers(10_000_000, 10_000_000 + ITEMS, size=10)] for _ in range(20_000)]
recommender.recommend(sessions[:2000], 20)
taken, worked = [], []
for session in sessions[2000:12_000]:
    begin, cpu = time.perf_counter(), time.thread_time()
    recommender.recommend(session, 20)
    worked.append(time.thread_time() - cpu)
    taken.append(time.perf_counter() - begin)
begin = time.perf_counter()
recommender.recommend(sessions[12_000:], 20)
many = len(sessions[12_000:]) / (time.perf_counter() - begin)
peak = resident()
p50, p90, p99 = np.quantile(taken, [.5, .9, .99]) * 1000
print(f"load {loaded:.3f} s, resident {after['VmRSS']:.0f} MiB (numpy alone {before['VmRSS']:.0f})")
own = peak["RssAnon"]
print(f"after 20,000 sessions {peak['VmRSS']:.0f} MiB, of which its own {own:.0f}, the rest mapped")
print(f"one session of 10 items, k 20: p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms")
p50, p90, p99 = np.quantile(worked, [.5, .9, .99]) * 1000
print(f"the same in CPU time: p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms")
print(f"many: {many:,.0f} sessions/s")
begin = time.perf_counter()
recommender.find("lamp", 10)
hit = time.perf_counter() - begin
begin = time.perf_counter()
recommender.find("no such words at all", 10)
miss = time.perf_counter() - begin
print(f"search by title: a hit {hit * 1000:.1f} ms, none {miss * 1000:.0f} ms")
begin = time.perf_counter()
Recommender.load(BUNDLE, verify=True)
print(f"load with every hash {time.perf_counter() - begin:.2f} s")
"""


@pytest.mark.parametrize(("items", "neighbours"), [(43_000, 10), (1_000_000, 20)])
def test_a_table(tmp_path, items, neighbours):
    bundle = big_bundle(tmp_path / "bundle", items, neighbours)
    code = ALONE + MEASURE.replace("BUNDLE", repr(str(bundle))).replace("ITEMS", str(items))
    where = environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=where
    )
    assert done.returncode == 0, done.stderr[-2000:]
    size = sum(file.stat().st_size for file in bundle.iterdir()) / 2**20
    where = f"{size:.0f} MiB on disk, {os.cpu_count()} cores, numpy {np.__version__}"
    print(f"\n{items:,} items x {neighbours} ({where})\n{done.stdout}")


DATA = Path(os.environ.get("RECBOLE_ALKD_DATA", ROOT.parent / "shared" / "data"))
LAST = 1_300  # sessions of a day on average: the file is in the order of time, and has no dates
FIELDS = {
    "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "session_window": None,
}


@pytest.mark.skipif(
    not (DATA / "diginetica").is_dir(),
    reason="diginetica is not there; set RECBOLE_ALKD_DATA to the data folder",
)
def test_an_update_of_diginetica_by_its_last_day(tmp_path):
    """Against a new fit of all its sessions: with the choice of settings on validation, and under given
    settings."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model

    from recbole_alkd.model.counting import training_sessions
    from recbole_alkd.plugin import empty_argv
    from recbole_alkd.serving import Recommender, update
    from recbole_alkd.serving.make import make_bundle
    from recbole_alkd.serving.make_counts import TableCounts

    with lzma.open(DATA / "diginetica" / "diginetica.inter.xz", "rt") as file:
        head, *lines = file.read().splitlines()
    sessions = [line.split("\t")[0] for line in lines]
    last = set(list(dict.fromkeys(sessions))[-LAST:])
    (tmp_path / "old").mkdir()
    for name, kept in (("old/old", False), ("last", True)):
        rows = [line for line, session in zip(lines, sessions, strict=True) if (session in last) == kept]
        (tmp_path / f"{name}.inter").write_text("\n".join([head, *rows]) + "\n")
    values = {
        **FIELDS,
        "data_path": str(tmp_path),
        "session_min_length": 2,
        "state": "ERROR",
        "use_gpu": False,
    }
    values |= {"load_col": {"inter": ["session_id", "item_id", "timestamp"]}, "student_neighbors": 20}
    values |= {
        "eval_args": {"split": {"RS": [0.98, 0.01, 0.01]}, "order": "RO", "group_by": "none", "mode": "full"}
    }
    with empty_argv():
        config = Config(model="SessionKNN", dataset="old", config_dict=values)
    whole = process_time()
    train, valid, _ = create_dataset(config).build()
    model = get_model("SessionKNN")(config, train)
    begin = process_time()
    chosen = model.fit_table(train, valid)
    chose = process_time() - begin
    bundle = make_bundle(model, train, tmp_path / "bundle")
    whole = process_time() - whole
    begin = process_time()
    new = update(bundle, tmp_path / "last.inter", tmp_path / "new")
    updated = process_time() - begin
    flat, offsets = training_sessions(train)
    begin = process_time()
    assert TableCounts.of(flat, offsets, train.item_num, model.made, 20).table.nnz
    given = process_time() - begin
    after = Recommender.load(new)
    print(
        f"\ndiginetica, {len(offsets) - 1:,} sessions, then {after.manifest['updates'][0]['sessions']:,} more"
    )
    print(
        f"CPU seconds: new fit {chose:.1f} ({chosen['tried']} settings tried), "
        f"under given settings {given:.1f}"
    )
    print(
        f"from file to bundle: a new fit {whole:.1f}, the update {updated:.2f}, {whole / updated:.1f} times "
        "faster"
    )
    print(f"({chose / updated:.1f} times faster than the fit without its reading and writing)")


FILE = """
import json, random, time
from pathlib import Path
from recbole_alkd.serving import Recommender
from recbole_alkd.serving.file_job import recommend_file
random.seed(0)
with open("sessions", "w") as stream:
    for k in range(100_000):
        length = random.randint(1, 10)
        stream.write(json.dumps([str(10_000_000 + random.randrange(43_000)) for _ in range(length)]) + "\\n")
recommender = Recommender.load(BUNDLE)
begin, busy = time.perf_counter(), time.process_time()
recommend_file(recommender, Path("sessions"), Path("out"), 10)
wall, busy = time.perf_counter() - begin, time.process_time() - busy
load = os.getloadavg()[0]
print(f"{100_000 / busy:,.0f} sessions per CPU second, {100_000 / wall:,.0f} a second (load {load:.0f})")
"""


def test_a_file_of_sessions(tmp_path):
    bundle = big_bundle(tmp_path / "bundle", 43_000, 10)
    code = ALONE + "import os\n" + FILE.replace("BUNDLE", repr(str(bundle)))
    where = environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=where, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"\n43,000 items x 10, sessions of 1 to 10 items, k 10: {done.stdout}")
