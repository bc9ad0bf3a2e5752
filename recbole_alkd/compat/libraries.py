"""RecBole 1.2.1 beside today's numpy, torch and Ray, and without Ray. Each shim names the line
that it cures."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import warnings
from typing import Any

import numpy as np


def numpy_aliases() -> None:
    """configurator.py:630,631,635 read ``np.float_``, ``np.complex_`` and ``np.unicode_``,
    gone since numpy 2."""
    for name, value in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if name not in np.__dict__:
            setattr(np, name, value)


def quiet_known_warnings() -> None:
    """Two deprecations that RecBole raises in every run and a user can do nothing about."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.data\.dataset\.dataset")
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.cuda\.amp\.GradScaler.*")


def keep_anomaly_mode() -> None:
    """sine.py:25 switches torch's anomaly mode on for the whole process, which doubles the time of every
    step.

    The parameters after training are the same bit for bit (specs: GRU4Rec and STAMP), so the mode that was
    set before the import comes back.
    """
    import torch

    before = torch.is_anomaly_enabled()
    importlib.import_module("recbole.model.sequential_recommender")
    torch.autograd.set_detect_anomaly(before)


def quick_start_without_ray() -> None:
    """quick_start.py:20 imports ``ray.tune`` for one call, ``tune.report(**metrics)`` (quick_start.py:223).

    Ray 2.6.3, which RecBole pins, has no wheel for Python 3.12 and needs ``pkg_resources``, which left
    setuptools in version 81; from version 2.7 on ``report`` takes one mapping; and on most machines there is
    no Ray at all. A stand-in serves the import and is taken out of ``sys.modules`` again, so that nobody else
    finds a Ray that is not one. Its ``report`` passes the metrics on to the real Ray of a trial.
    """
    if "recbole.quick_start" in sys.modules:
        return
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    tune.report = _report_to_ray  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    real = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name == "ray" or name.startswith("ray.")
    }
    sys.modules["ray"], sys.modules["ray.tune"] = ray, tune
    try:
        importlib.import_module("recbole.quick_start")
    finally:
        del sys.modules["ray"], sys.modules["ray.tune"]
        sys.modules.update(real)


def _report_to_ray(**metrics: Any) -> None:
    """Give the metrics of a trial to Ray Tune. A process that has not imported ``ray.tune`` runs no trial."""
    tune = sys.modules.get("ray.tune")
    if tune is None:
        return
    values = {name: float(value) for name, value in metrics.items()}
    if "metrics" in inspect.signature(tune.report).parameters:  # Ray 2.7 and later
        tune.report(values)
    else:
        tune.report(**values)
