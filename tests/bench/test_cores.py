"""Threads of a benchmark's runs, and what a run under way shows of itself."""

from __future__ import annotations

import os

import pytest

from recbole_alkd import AlkdError
from recbole_alkd.bench import cores, progress
from recbole_alkd.bench.cores import threads_of_a_run, usable_cores
from recbole_alkd.bench.processes import _environment
from recbole_alkd.bench.progress import LogWatch


@pytest.mark.parametrize(
    ("value", "jobs", "threads"),
    [
        (None, 1, 8), (None, 2, 4), (None, 3, 2), (None, 8, 1), (None, 100, 1), ("", 2, 4), ("  ", 2, 4),
        ("1", 1, 1), ("1", 4, 1), (" 3 ", 2, 3), ("2,4", 1, 2), ("64", 1, 8),
    ],
)  # fmt: skip
def test_threads_are_those_of_the_environment_then_a_share_of_the_cores(value, jobs, threads):
    environment = {} if value is None else {"OMP_NUM_THREADS": value}
    assert threads_of_a_run(jobs, environment, cores=8) == threads


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "²", "x,2", "1 2"])
def test_a_number_of_threads_that_is_none_is_refused(value):
    with pytest.raises(
        AlkdError, match=r"OMP_NUM_THREADS: .* is not allowed; allowed: an integer >= 1, or not set"
    ):
        threads_of_a_run(1, {"OMP_NUM_THREADS": value}, cores=8)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no CPU affinity")
def test_cores_are_those_of_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert (
            usable_cores() == 1
            and threads_of_a_run(1, {}) == 1
            and threads_of_a_run(1, {"OMP_NUM_THREADS": "4"}) == 1
        )
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "150000 100000\n"}, 2), ({"cpu.max": "max 100000\n"}, 64), ({"cpu.max": "10000 "
                                                                                             "100000\n"}, 1),
                                                                                             ({}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)  # fmt: skip
def test_cores_are_within_the_quota_of_a_container(tmp_path, monkeypatch, files, most):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == most


def test_threads_of_a_run_do_not_spin_unless_the_user_says_so(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("KMP_BLOCKTIME", "200")
    with _environment(3):
        assert (
            os.environ["OMP_NUM_THREADS"],
            os.environ["OMP_WAIT_POLICY"],
            os.environ["KMP_BLOCKTIME"],
        ) == (
            "3",
            "PASSIVE",
            "200",
        )
    assert "OMP_WAIT_POLICY" not in os.environ and os.environ["KMP_BLOCKTIME"] == "200"


def test_the_newest_epoch_of_a_log_is_shown_now_and_then(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    log = tmp_path / "run.log"
    watch = LogWatch(log, every=10)

    def after(seconds, text=""):
        now[0] += seconds
        with open(log, "a") as stream:
            stream.write(text)
        return watch.news()

    stamp = "Fri 27 Nov 2026 16:40:00  \x1b[1;31mINFO\x1b[0m  "
    assert watch.news() is None  # there is no log yet
    assert after(5, f"{stamp}stage student: training begins\n") is None
    assert after(6) == "stage student: training begins"
    assert after(11) is None  # nothing new
    assert after(
        1,
        f"{stamp}epoch 0 training [time: 60s, train loss: 3.1]\n{stamp}valid result: \nrecall@10 : "
        "0.1\nhalf a l",
    ) == ("epoch 0 training [time: 60s, train loss: 3.1]")
    assert after(1, "ine\n") is None and after(10) == "half a line"
    # an LLM answers, and nothing is logged
    assert after(100) is None and after(20) == "3 minutes so far; last: half a line" and after(60) is None
    assert after(60) == "5 minutes so far; last: half a line"
