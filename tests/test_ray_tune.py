"""RecBole's objective under Ray Tune: a trial ends with its metrics, whatever Ray is there."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
from process import python
from recbole.quick_start import quick_start

from recbole_alkd import compat

METRICS = {"recall@10": 0.25, "ndcg@10": 0.125}


def fake_tune(monkeypatch, report):
    """``ray.tune`` as a trial's process has it."""
    tune = types.ModuleType("ray.tune")
    tune.report = report
    monkeypatch.setitem(sys.modules, "ray.tune", tune)


def test_without_ray_nothing_is_reported(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray.tune", raising=False)
    assert quick_start.tune.report(**METRICS) is None


def test_a_ray_of_today_gets_one_mapping_of_floats(monkeypatch):
    import numpy as np

    got = []

    def report(metrics, *, checkpoint=None):
        got.append(metrics)

    fake_tune(monkeypatch, report)
    quick_start.tune.report(**{name: np.float32(value) for name, value in METRICS.items()})
    assert got == [METRICS]
    assert all(type(value) is float for value in got[0].values())


def test_the_ray_that_recbole_pins_gets_keywords(monkeypatch):
    got = []

    def report(_metric=None, **keywords):
        got.append((_metric, keywords))

    fake_tune(monkeypatch, report)
    quick_start.tune.report(**METRICS)
    assert got == [(None, METRICS)]


def test_recbole_without_recbole_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "recbole", None)  # an import of it now fails
    with pytest.raises(ImportError, match=r"pip install --no-deps recbole==1\.2\.1"):
        compat._check_versions()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None,
    reason="Ray Tune is not installed",
)
def test_a_real_trial_ends_with_the_test_metrics(tmp_path):
    code = """
import os
import ray
from ray import tune

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

def trial(values):
    import sys
    sys.argv = sys.argv[:1]
    import recbole_alkd
    small = {
        "epochs": 1, "train_batch_size": 4096, "train_neg_sample_args": None, "state": "ERROR",
        "show_progress": False, "user_inter_num_interval": "[200,inf)", "MAX_ITEM_LIST_LENGTH": 5,
        "hidden_size": 4,
    }
    settings = {**small, **values, "model": "GRU4Rec", "dataset": "ml-100k"}
    recbole_alkd.objective_function(config_dict=settings, saved=False)

space = {"embedding_size": tune.grid_search([2, 4])}
where = tune.RunConfig(storage_path=os.getcwd() + "/ray")
results = tune.Tuner(trial, param_space=space, run_config=where).fit()
assert not results.errors, results.errors
print("trials", len(results), "metrics", sorted(r.metrics["ndcg@10"] >= 0 for r in results))
"""
    assert "trials 2 metrics [True, True]" in python(code, tmp_path)
