"""Timings of serving. ``make benchmarks`` runs them; docs/performance.md has the figures. They need nothing but numpy."""

from __future__ import annotations

import os
import subprocess
import sys

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
        lines = [line.split() for line in file if line.startswith(("VmRSS", "RssFile"))]
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
taken = []
for session in sessions[2000:12_000]:
    begin = time.perf_counter()
    recommender.recommend(session, 20)
    taken.append(time.perf_counter() - begin)
begin = time.perf_counter()
recommender.recommend(sessions[12_000:], 20)
many = len(sessions[12_000:]) / (time.perf_counter() - begin)
peak = resident()
p50, p90, p99 = np.quantile(taken, [.5, .9, .99]) * 1000
print(f"load {loaded:.3f} s, resident {after['VmRSS']:.0f} MiB (numpy alone {before['VmRSS']:.0f}), after 20,000 sessions "
      f"{peak['VmRSS']:.0f} MiB of which mapped {peak['RssFile']:.0f}")
print(f"one session of 10 items, k 20: p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms; many: {many:,.0f} sessions/s")
begin = time.perf_counter(); found = recommender.find("lamp", 10); hit = time.perf_counter() - begin
begin = time.perf_counter(); recommender.find("no such words at all", 10); miss = time.perf_counter() - begin
print(f"search by title: a hit {hit * 1000:.1f} ms, none {miss * 1000:.0f} ms")
begin = time.perf_counter(); Recommender.load(BUNDLE, verify=True); hashed = time.perf_counter() - begin
print(f"load with every hash {hashed:.2f} s")
"""


@pytest.mark.parametrize(("items", "neighbours"), [(43_000, 10), (1_000_000, 20)])
def test_a_table(tmp_path, items, neighbours):
    bundle = big_bundle(tmp_path / "bundle", items, neighbours)
    code = ALONE + MEASURE.replace("BUNDLE", repr(str(bundle))).replace("ITEMS", str(items))
    where = environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=where)
    assert done.returncode == 0, done.stderr[-2000:]
    size = sum(file.stat().st_size for file in bundle.iterdir()) / 2**20
    where = f"{size:.0f} MiB on disk, {os.cpu_count()} cores, numpy {np.__version__}"
    print(f"\n{items:,} items x {neighbours} ({where})\n{done.stdout}")
