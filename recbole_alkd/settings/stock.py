"""RecBole's own settings: the type and range of each, which RecBole does not check.

``read_text`` reads a value from text, ``check_value`` looks at one that a user gave; ``stock_checks`` at all
of them together. Only what RecBole could not use (or would quietly take for something else) is refused.
"""

from __future__ import annotations

import math
from typing import Any

from recbole_alkd.settings import stock_rules
from recbole_alkd.settings.field import FILLED, NO_DEFAULT, Field, Rule, at_least, between, words
from recbole_alkd.settings.stock_rules import gpu_text as gpu_text
from recbole_alkd.settings.stock_rules import interval_words as interval_words
from recbole_alkd.settings.text import is_null, read_literal, read_value

LARGEST_SEED = 2**32 - 1  # numpy's
_SEED = words(f"an integer from 0 to {LARGEST_SEED}", lambda value: 0 <= value <= LARGEST_SEED)
_POSITIVE = Rule("above 0", lambda value: 0 < value < math.inf)
_NOT_EMPTY = words("a text that is not empty", bool)
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")

_FLAG, _TEXT, _TEXT_OR_NULL = (
    Field(NO_DEFAULT, bool),
    Field(NO_DEFAULT, str),
    Field(NO_DEFAULT, str, null=True),
)
_MAPPING = Field(NO_DEFAULT, dict, null=True)
_NAMES = Field(NO_DEFAULT, (list, str), null=True, check=stock_rules.texts)
_COUNT = Field(NO_DEFAULT, int, check=at_least(0))
_INTERVALS = Field(NO_DEFAULT, str, null=True, check=stock_rules.interval_words)
SPECS: dict[str, Field] = {
    "model": _TEXT,
    "dataset": _TEXT,
    # general
    "gpu_id": Field(NO_DEFAULT, (str, int, list), check=stock_rules.gpus),
    "worker": _COUNT,
    "use_gpu": _FLAG,
    "seed": Field(NO_DEFAULT, int, check=_SEED),
    "state": Field(NO_DEFAULT, str, null=True, choices=("INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL"),
                   any_case=True),
    "reproducibility": _FLAG,
    "data_path": _TEXT,
    "checkpoint_dir": Field(NO_DEFAULT, str, check=FILLED),
    "show_progress": _FLAG,
    "save_dataset": _FLAG,
    "dataset_save_path": _TEXT_OR_NULL,
    "save_dataloaders": _FLAG,
    "dataloaders_save_path": _TEXT_OR_NULL,
    "log_wandb": _FLAG,
    "wandb_project": _TEXT_OR_NULL,
    "shuffle": _FLAG,
    # training
    "epochs": _COUNT,
    "train_batch_size": Field(NO_DEFAULT, int, check=at_least(1)),
    "learner": Field(NO_DEFAULT, str, choices=("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"),
                     any_case=True),
    "learning_rate": Field(NO_DEFAULT, float, check=_POSITIVE),
    "train_neg_sample_args": _MAPPING,
    "eval_step": Field(NO_DEFAULT, int),
    "stopping_step": _COUNT,
    "clip_grad_norm": Field(NO_DEFAULT, dict, null=True, check=stock_rules.clip),
    "weight_decay": Field(NO_DEFAULT, float, null=True, check=at_least(0)),
    "loss_decimal_place": _COUNT,
    "require_pow": _FLAG,
    "enable_amp": _FLAG,
    "enable_scaler": _FLAG,
    "transform": Field(NO_DEFAULT, str, null=True, choices=_TRANSFORMS),
    # evaluation
    "eval_args": Field(NO_DEFAULT, dict, check=stock_rules.eval_args),
    "repeatable": _FLAG,
    "metrics": Field(NO_DEFAULT, (list, str), check=stock_rules.metrics),
    "topk": Field(NO_DEFAULT, (list, int), check=stock_rules.topk),
    "valid_metric": Field(NO_DEFAULT, str, check=FILLED),
    "valid_metric_bigger": _FLAG,
    "eval_batch_size": Field(NO_DEFAULT, int, check=at_least(1)),
    "metric_decimal_place": Field(NO_DEFAULT, int, check=between(0, 16)),  # with far more, numpy gives nan
    # data
    "field_separator": Field(NO_DEFAULT, str, check=_NOT_EMPTY),
    "seq_separator": Field(NO_DEFAULT, str, check=_NOT_EMPTY),
    **dict.fromkeys(
        (
            "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD",
            "HEAD_ENTITY_ID_FIELD",
            "ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "POSITION_FIELD", "encoding",
        ),
        _TEXT_OR_NULL,
    ),
    "ITEM_LIST_LENGTH_FIELD": Field(NO_DEFAULT, str, check=FILLED),
    "NEG_PREFIX": _TEXT,
    "LIST_SUFFIX": _TEXT,
    "MAX_ITEM_LIST_LENGTH": Field(NO_DEFAULT, int, null=True, check=at_least(1)),
    "load_col": _MAPPING,
    "unload_col": _MAPPING,
    "unused_col": _MAPPING,
    "seq_len": _MAPPING,
    "threshold": _MAPPING,
    "val_interval": _MAPPING,
    "preload_weight": _MAPPING,
    "discretization": _MAPPING,
    **dict.fromkeys(
        ("additional_feat_suffix", "alias_of_user_id", "alias_of_item_id", "alias_of_entity_id",
         "alias_of_relation_id",
         "benchmark_filename"), _NAMES,
    ),
    "numerical_features": Field(NO_DEFAULT, list),
    "normalize_field": Field(NO_DEFAULT, list, null=True),
    "normalize_all": Field(NO_DEFAULT, bool, null=True),
    "rm_dup_inter": Field(NO_DEFAULT, str, null=True, choices=("first", "last"), any_case=True),
    "filter_inter_by_user_or_item": _FLAG,
    "user_inter_num_interval": _INTERVALS,
    "item_inter_num_interval": _INTERVALS,
    "entity_kg_num_interval": _INTERVALS,
    "relation_kg_num_interval": _INTERVALS,
    # KD_DAGFM evaluates this one
    "teacher": Field(NO_DEFAULT, str, choices=("DAGFM", "CrossNet", "CIN", "CINComp")),
}  # fmt: skip


def read_text(key: str, text: str) -> Any:
    """The value of a RecBole setting that arrived as text. ``None``, ``~``, ``null`` and an empty text are no
    value, as for settings of ours; a setting that only takes text is taken as it stands (a Python string's
    quotes apart)."""
    spec = SPECS.get(key)
    if spec is None:
        return read_value(text)
    if spec.kinds == (str,) or key == "gpu_id":
        if spec.null and is_null(text):
            return None
        try:
            value = read_literal(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    value = read_value(text)
    if list in spec.kinds and isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",")]
    return value


def plain(key: str, value: Any) -> Any:
    """``value`` as YAML has it: numpy's numbers as Python's, a tuple, or one name,
    as a list where a list is meant."""
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if key == "gpu_id" and isinstance(value, (list, tuple)):
        return gpu_text(value)
    if isinstance(value, tuple) and key in SPECS:
        return list(value)
    if isinstance(value, str) and (key.startswith("alias_of_") or key == "additional_feat_suffix"):
        return [value]  # one name; RecBole would take its letters
    return value


def check_value(key: str, value: Any) -> None:
    """AlkdError where RecBole's setting ``key`` cannot be ``value``."""
    if key in SPECS:
        SPECS[key].checked(key, value)
