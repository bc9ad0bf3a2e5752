"""RecBole's own settings: the type and range of each, which RecBole does not check.

``read_text`` reads a value from text, ``check_values`` looks at all that a user gave, before anything is read or trained.
Only what RecBole could not use (or would quietly take for something else) is refused.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.keys import nearest
from recbole_alkd.settings.reading import is_null, read_literal, read_value

LARGEST_SEED = 2**32 - 1  # numpy's
Check = Callable[[Any], "str | None"]
_WORDS = {int: "an integer", float: "a number", bool: "True or False", str: "text", list: "a list", dict: "a mapping"}
_INTERVAL = re.compile(r"[\[(]\s*([-+]?(?:inf|[\d.]+(?:e[-+]?\d+)?))\s*,\s*([-+]?(?:inf|[\d.]+(?:e[-+]?\d+)?))\s*[\])]", re.I)
_GPUS = re.compile(r"(-1|\d+|(GPU|MIG)-[\w-]+)(\s*,\s*(\d+|(GPU|MIG)-[\w-]+))*|")


@dataclass(frozen=True)
class Spec:
    """What a setting of RecBole's takes. ``null``: also no value. ``check`` says in words what is allowed, when a value is not."""

    types: tuple[type, ...]
    null: bool = False
    check: Check | None = None

    @property
    def words(self) -> str:
        names = [_WORDS[t] for t in self.types if not (t is int and float in self.types)]
        return " or ".join(names + ["~"] * self.null)


def _at_least(low: float) -> Check:
    return lambda value: None if value >= low else f"at least {low:g}"


def _one_of(*choices: str) -> Check:
    def check(value: str) -> str | None:
        if value.lower() in [choice.lower() for choice in choices]:
            return None
        return " | ".join(choices) + _hint(value, choices)

    return check


def _teacher(value: str) -> str | None:
    names = ("DAGFM", "CrossNet", "CIN", "CINComp")
    return None if value in names else " | ".join(names) + _hint(value, names)


def _hint(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    close = nearest(word, known, cutoff)
    return f" (did you mean {close!r}?)" if close else ""


def _topk(value: Any) -> str | None:
    values = value if isinstance(value, list) else [value]
    good = bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    return None if good else "an integer of at least 1, or a list of such integers"


def _texts(value: Any) -> str | None:
    good = isinstance(value, str) or (bool(value) and all(isinstance(v, str) and v for v in value))
    return None if good else "a list of names, at least one"


def _metrics(value: Any) -> str | None:
    from recbole.evaluator import metric_types, metrics_dict

    values = [value] if isinstance(value, str) else value
    names = [metrics_dict[name].__name__ for name in sorted(metrics_dict)]
    if not values:
        return f"a list of {', '.join(names)}"
    for name in values:
        if not isinstance(name, str) or name.lower() not in [n.lower() for n in names]:
            return f"{', '.join(names)}{_hint(str(name), names)}"
    kinds = {metric_types[name.lower()] for name in values}
    return None if len(kinds) == 1 else "metrics of rankings, or metrics of scores (AUC, MAE, RMSE, LogLoss), not both at once"


def interval_words(value: str) -> str | None:
    """What RecBole takes for intervals, in words, where ``value`` is none; else None."""
    for part in value.split(";"):
        found = _INTERVAL.fullmatch(part.strip())
        try:
            good = bool(found) and float(found[1]) <= float(found[2])  # type: ignore[index]
        except ValueError:
            good = False
        if not good:
            return "intervals such as [5,inf) or (0,1];[3,4), their lower end first"
    return None


def _gpus(value: Any) -> str | None:
    good = _GPUS.fullmatch(gpu_text(value).strip())
    return None if good else "numbers of GPUs, such as 0 or 0,1, or an empty text for the CPU"


def gpu_text(value: Any) -> str:
    """``gpu_id`` as CUDA_VISIBLE_DEVICES has it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _eval_args(value: dict[Any, Any]) -> str | None:
    for key in value:
        if key not in ("split", "order", "group_by", "mode"):
            return "the keys split, order, group_by and mode" + _hint(str(key), ("split", "order", "group_by", "mode"))
    split = value.get("split", {"LS": "valid_and_test"})
    ways = {"RS": _ratios, "LS": lambda v: isinstance(v, str) and v in ("valid_and_test", "valid_only", "test_only")}
    if not isinstance(split, dict) or len(split) != 1 or not all(key in ways and ways[key](split[key]) for key in split):
        return "split {RS: [0.8, 0.1, 0.1]}, three numbers (train, valid, test), or {LS: valid_and_test | valid_only | test_only}"
    if value.get("order", "RO") not in ("RO", "TO"):
        return "order RO or TO"
    if value.get("group_by", "user") not in ("user", "none", None):
        return "group_by user or none"
    mode = value.get("mode", "full")
    modes = mode if isinstance(mode, dict) else {"valid": mode}
    good = bool(modes) and all(
        key in ("valid", "test") and isinstance(v, str) and re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", v)
        for key, v in modes.items()
    )
    return None if good else "mode full, labeled, uniN or popN (N negatives), or {valid: ..., test: ...}"


def _ratios(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3
    numbers = numbers and all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v < float("inf") for v in value)
    return bool(numbers and value[0] > 0)


def _clip(value: dict[Any, Any]) -> str | None:
    allowed = ("max_norm", "norm_type", "error_if_nonfinite", "foreach")  # of torch.nn.utils.clip_grad_norm_
    return None if "max_norm" in value and all(key in allowed for key in value) else "max_norm, and perhaps norm_type, as keys"


def _filled(value: str) -> str | None:
    return None if value.strip() else "a text that is not empty"


def _seed(value: int) -> str | None:
    return None if 0 <= value <= LARGEST_SEED else f"0 to {LARGEST_SEED}"


def _transform(value: str) -> str | None:
    names = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")
    return None if value in names else " | ".join(names) + _hint(value, names)


def _positive(value: float) -> str | None:
    return None if 0 < value < float("inf") else "a number above 0"


_FLAG, _TEXT, _TEXT_OR_NULL = Spec((bool,)), Spec((str,)), Spec((str,), null=True)
_MAPPING, _NAMES = Spec((dict,), null=True), Spec((list, str), null=True, check=_texts)
_COUNT = Spec((int,), check=_at_least(0))
_INTERVALS = Spec((str,), null=True, check=interval_words)
SPECS: dict[str, Spec] = {
    "model": _TEXT,
    "dataset": _TEXT,
    # general
    "gpu_id": Spec((str, int, list), check=_gpus),
    "worker": _COUNT,
    "use_gpu": _FLAG,
    "seed": Spec((int,), check=_seed),
    "state": Spec((str,), null=True, check=_one_of("INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL")),
    "reproducibility": _FLAG,
    "data_path": _TEXT,
    "checkpoint_dir": Spec((str,), check=_filled),
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
    "train_batch_size": Spec((int,), check=_at_least(1)),
    "learner": Spec((str,), check=_one_of("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")),
    "learning_rate": Spec((int, float), check=_positive),
    "train_neg_sample_args": _MAPPING,
    "eval_step": Spec((int,)),
    "stopping_step": _COUNT,
    "clip_grad_norm": Spec((dict,), null=True, check=_clip),
    "weight_decay": Spec((int, float), null=True, check=_at_least(0)),
    "loss_decimal_place": _COUNT,
    "require_pow": _FLAG,
    "enable_amp": _FLAG,
    "enable_scaler": _FLAG,
    "transform": Spec((str,), null=True, check=_transform),
    # evaluation
    "eval_args": Spec((dict,), check=_eval_args),
    "repeatable": _FLAG,
    "metrics": Spec((list, str), check=_metrics),
    "topk": Spec((list, int), check=_topk),
    "valid_metric": _TEXT,
    "valid_metric_bigger": _FLAG,
    "eval_batch_size": Spec((int,), check=_at_least(1)),
    "metric_decimal_place": Spec((int,), check=lambda v: None if 0 <= v <= 16 else "0 to 16"),  # with far more, numpy gives nan
    # data
    "field_separator": Spec((str,), check=lambda v: None if v else "a text that is not empty"),
    "seq_separator": Spec((str,), check=lambda v: None if v else "a text that is not empty"),
    **dict.fromkeys(
        (
            "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD", "HEAD_ENTITY_ID_FIELD",
            "ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "POSITION_FIELD", "encoding",
        ),
        _TEXT_OR_NULL,
    ),
    "ITEM_LIST_LENGTH_FIELD": Spec((str,), check=_filled),
    "NEG_PREFIX": _TEXT,
    "LIST_SUFFIX": _TEXT,
    "MAX_ITEM_LIST_LENGTH": Spec((int,), null=True, check=_at_least(1)),
    "load_col": _MAPPING,
    "unload_col": _MAPPING,
    "unused_col": _MAPPING,
    "seq_len": _MAPPING,
    "threshold": _MAPPING,
    "val_interval": _MAPPING,
    "preload_weight": _MAPPING,
    "discretization": _MAPPING,
    **dict.fromkeys(
        ("additional_feat_suffix", "alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id",
         "benchmark_filename"), _NAMES,
    ),
    "numerical_features": Spec((list,)),
    "normalize_field": Spec((list,), null=True),
    "normalize_all": Spec((bool,), null=True),
    "rm_dup_inter": Spec((str,), null=True, check=_one_of("first", "last")),
    "filter_inter_by_user_or_item": _FLAG,
    "user_inter_num_interval": _INTERVALS,
    "item_inter_num_interval": _INTERVALS,
    "entity_kg_num_interval": _INTERVALS,
    "relation_kg_num_interval": _INTERVALS,
    # KD_DAGFM evaluates this one
    "teacher": Spec((str,), check=_teacher),
}  # fmt: skip


def read_text(key: str, text: str) -> Any:
    """The value of a RecBole setting that arrived as text. ``None``, ``~``, ``null`` and an empty text are no value, as for
    settings of ours; a setting that only takes text is taken as it stands (a Python string's quotes apart)."""
    spec = SPECS.get(key)
    if spec is None:
        return read_value(text)
    if spec.types == (str,) or key == "gpu_id":
        if spec.null and is_null(text):
            return None
        try:
            value = read_literal(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    value = read_value(text)
    if list in spec.types and isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",")]
    return value


def plain(key: str, value: Any) -> Any:
    """``value`` as YAML has it: numpy's numbers as Python's, a tuple, or one name, as a list where a list is meant."""
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
    spec = SPECS.get(key)
    if spec is None or (value is None and spec.null):
        return
    good = isinstance(value, spec.types) and (not isinstance(value, bool) or bool in spec.types)
    if not good:
        raise AlkdError(f"{key}: {value!r} ({type(value).__name__}) is not allowed; allowed: {spec.words}")
    if isinstance(value, float) and value != value:
        raise AlkdError(f"{key}: nan is not allowed; allowed: {spec.words}")
    wanted = spec.check(value) if spec.check else None
    if wanted:
        raise AlkdError(f"{key}: {value!r} is not allowed; allowed: {wanted}")


def check_values(values: Mapping[str, Any]) -> None:
    """``check_value`` of all, and what RecBole's settings must have of each other: a metric that is measured to choose by, metrics
    that fit the mode of evaluation, packages that are there."""
    from recbole.evaluator import metric_types
    from recbole.utils import EvaluatorType

    for key, value in values.items():
        check_value(key, value)
    check_valid_metric(values)
    names = values["metrics"] if isinstance(values["metrics"], list) else [values["metrics"]]
    mode = values["eval_args"].get("mode", "full")
    if metric_types[names[0].lower()] == EvaluatorType.VALUE and "full" in (mode.values() if isinstance(mode, dict) else (mode,)):
        raise AlkdError(
            f"metrics: {names} need labelled rows and eval_args mode is full; allowed: metrics of rankings, such as NDCG"
        )
    if values.get("log_wandb") and importlib.util.find_spec("wandb") is None:
        raise AlkdError("log_wandb: True needs wandb, not installed here; install with: pip install wandb")


def check_valid_metric(values: Mapping[str, Any]) -> None:
    """AlkdError where ``valid_metric`` is none of what ``metrics`` at ``topk`` give."""
    from recbole.evaluator import metrics_dict
    from recbole.evaluator.base_metric import TopkMetric

    chosen = values.get("valid_metric")
    if not chosen:
        return
    names = values["metrics"] if isinstance(values["metrics"], list) else [values["metrics"]]
    ks = values["topk"] if isinstance(values["topk"], list) else [values["topk"]]
    measured = []
    for name in names:
        at_k = issubclass(metrics_dict[name.lower()], TopkMetric) or name.lower() in _AT_K
        measured += [f"{name}@{k}" for k in ks] if at_k else [name]
    if chosen.lower() not in [name.lower() for name in measured]:
        raise AlkdError(
            f"valid_metric: {chosen!r} is not measured with metrics {names} and topk {ks}; allowed: {', '.join(measured)}"
        )


# metrics at K that are no TopkMetric to RecBole
_AT_K = ("itemcoverage", "averagepopularity", "shannonentropy", "giniindex", "tailpercentage")
