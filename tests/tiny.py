"""A data set of a few dozen toy sessions, and the RecBole objects on it, for tests that need the real thing
but not real data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.utils import get_model

import recbole_alkd  # noqa: F401  (RecBole learns ALKDRec)
from recbole_alkd.active.policy.base import Policy
from recbole_alkd.checks import asking_nobody
from recbole_alkd.model.backbone import Backbone, build_backbone
from recbole_alkd.plugin import empty_argv, settings_of
from recbole_alkd.registry import backbones, policies, teachers
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher.base import LLMTeacher

NAME = "tiny"
N_ITEMS = 30
LENGTH = 6
FIELDS = {"item_seq_field": "item_id_list", "item_seq_len_field": "item_length", "item_field": "item_id"}


def toy_sessions(
    count: int, n_items: int = N_ITEMS, length: int = LENGTH, seed: int = 0
) -> list[tuple[list[int], int]]:
    """``count`` pairs (history, target) of item numbers 1..n_items;
    the first history has one item, the second is full."""
    rng = np.random.default_rng(seed)
    sizes = [1, length, *rng.integers(1, length + 1, size=count)]
    return [
        (draw[:-1].tolist(), int(draw[-1]))
        for size in sizes[:count]
        for draw in [rng.choice(np.arange(1, n_items + 1), size=size + 1, replace=False)]
    ]


def write_benchmark(
    folder: Path, name: str = NAME, counts: tuple[int, int, int] = (40, 12, 12), **toy: Any
) -> Path:
    """Write NAME.{train,valid,test}.inter, one session a row, into ``folder/NAME``;
    returns ``folder``, RecBole's data_path."""
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    sessions = toy_sessions(sum(counts), **toy)
    start = 0
    for part, count in zip(("train", "valid", "test"), counts, strict=True):
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for number, (history, item) in enumerate(sessions[start : start + count], start):
            lines.append(f"s{number}\t{' '.join(f'i{i}' for i in history)}\ti{item}")
        (target / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
        start += count
    return folder


def register_stand_ins() -> None:
    """Stand-ins for the default policy and teacher where the rooms that hold the real ones are not
    installed."""
    if "max_min" not in policies:
        policies.register("max_min")(type("StandInPolicy", (Policy,), {}))
    if "local" not in teachers:
        teachers.register("local")(type("StandInTeacher", (LLMTeacher,), {}))


def tiny_config(data_path: Path, model: str = "ALKDRec", dataset: str = NAME, **settings: Any) -> Config:
    """A RecBole Config for the benchmark files of ``write_benchmark``, on the CPU,
    with ``settings`` laid over it."""
    register_stand_ins()
    values = {
        "data_path": str(data_path),
        "benchmark_filename": ["train", "valid", "test"],
        "USER_ID_FIELD": "session_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "none", "mode": "full"},
        "train_neg_sample_args": None,
        "train_batch_size": 16,
        "use_gpu": False,
        "show_progress": False,
        "epochs": 1,
    }
    with empty_argv(), asking_nobody():
        return Config(model=model, dataset=dataset, config_dict={**values, **settings})


def tiny_view(config: Config, dataset: Any, role: str = "student", seed: int = 7) -> Backbone:
    """The backbone of ``role``, with parameters that ``seed`` decides."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    return build_backbone(config, dataset, settings_of(config), role)


def tiny_model(config: Config, dataset: Any, seed: int = 7) -> Any:
    """The model of the Config itself, as ``run_recbole`` would build it."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    return get_model(config["model"])(config, dataset)


def training_rows(dataset: Any) -> Any:
    """All training rows as one RecBole Interaction (session_id, item_id_list, item_id, item_length)."""
    return training_part(dataset).inter_feat


def training_part(dataset: Any) -> Any:
    """The training part, which is what ``run_recbole`` builds a model on."""
    return copy.copy(dataset).build()[0]  # a copy: `build` converts the data set it is called on


__all__ = [
    "FIELDS", "LENGTH", "NAME", "N_ITEMS", "Settings", "backbones", "create_dataset", "register_stand_ins",
    "settings_of",
    "tiny_config", "tiny_model", "tiny_view", "toy_sessions", "training_part", "training_rows",
    "write_benchmark",
]  # fmt: skip
