"""Fixtures of the data tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recbole.config import Config

import recbole_alkd  # noqa: F401  (RecBole's look-ups)
from recbole_alkd.data.dataset import ALKDRecDataset


@pytest.fixture(autouse=True)
def _no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # RecBole reads sys.argv whenever a Config is made
    monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Config]:
    """Config of a data set under ``tmp_path``; GRU4Rec, so that the tests of this room need no other one."""

    def make(dataset: str, model: str = "GRU4Rec", **settings: Any) -> Config:
        values = {
            "data_path": str(tmp_path),
            "checkpoint_dir": str(tmp_path / "saved"),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {
                "split": {"RS": [0.6, 0.2, 0.2]},
                "order": "RO",
                "group_by": "none",
                "mode": "full",
            },
            "train_neg_sample_args": None,
            "use_gpu": False,
            **settings,
        }
        return Config(model=model, dataset=dataset, config_dict=values)

    return make


@pytest.fixture
def build() -> Callable[[Config], list[ALKDRecDataset]]:
    return lambda config: ALKDRecDataset(config).build()
