"""The settings of ALKDRec: flat YAML keys as RecBole has them, typed, checked, and never evaluated as code.

Every setting is a field of one of the frozen dataclasses below; its flat key is the field's name. The defaults here and
the ones in ``properties/model/ALKDRec.yaml`` are the same (a test holds them together); the YAML explains them to users.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recbole_alkd.settings.error import AlkdError as AlkdError
from recbole_alkd.settings.reading import is_null
from recbole_alkd.settings.reading import read_yaml as read_yaml
from recbole_alkd.settings.reading import read_yaml_file as read_yaml_file


def _setting(default: Any, *types: type, choices: Iterable[Any] = (), check: Callable[[Any], str | None] | None = None) -> Any:
    """A field: its default, the types it takes (None when the default is), its choices, and a further check.

    ``check`` returns what is allowed, in words, when the value is not.
    """
    meta = {"types": types, "choices": tuple(choices), "check": check}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


def _at_least(low: float) -> Callable[[Any], str | None]:
    return lambda value: None if value >= low else f"a number of at least {low:g}"


def _above(low: float) -> Callable[[Any], str | None]:
    return lambda value: None if value > low else f"a number above {low:g}"


def _ratio(value: Any) -> str | None:
    if value == "pilot":
        return None
    good = isinstance(value, list) and len(value) == 3 and all(_is(v, int, float) and v >= 0 for v in value)
    return None if good and sum(value) > 0 else "three numbers >= 0 that are not all 0 (effective, similar, incorrect), or pilot"


def _position_weight(value: Any) -> str | None:
    words = "pairs [last position, weight] with rising positions >= 1 and weights >= 0, such as [[5, 3], [15, 2], [25, 1]]"
    if not value or not all(isinstance(v, list) and len(v) == 2 and _is(v[0], int) and _is(v[1], int, float) for v in value):
        return words
    ends = [v[0] for v in value]
    return None if ends[0] >= 1 and ends == sorted(set(ends)) and all(v[1] >= 0 for v in value) else words


def _weights(value: Any) -> str | None:
    values = value if isinstance(value, list) else [value]
    good = bool(values) and all(_is(v, int, float) and 0 <= v < float("inf") for v in values)
    return None if good else "a number of at least 0, or a list of such numbers"


def _names(value: Any) -> str | None:
    return None if value and all(isinstance(v, str) and v for v in value) else "a list of names, at least one"


def _folder_or_none(value: Any) -> str | None:
    return "a folder, or False" if value is True or value == "" else None


def _sizes(value: Any) -> str | None:
    good = all(_is(v, int) and v >= 1 for v in value) and len(set(value)) == len(value)
    return None if good else "a list of different integers of at least 1, such as [10]"


# what providers' keys begin with; none of them begins the name of a variable
_KEY_BEGINNINGS = re.compile(
    r"(sk|pk|rk|gsk|hf|r8|fw|tgp|csk|xai|glpat|gh[opsu]|github_pat|nvapi|pplx|key|esecret|dop|ya29|whsec|jina|voyage|vcp|pat|anyscale)_"
    r"(?![A-Z_]*\Z)|AIza|AKIA|ASIA|eyJ|ya29|LA-|AQ\."
)


def _environment_name(value: Any) -> str | None:
    if re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) and (value in os.environ or not _like_a_key(value)):
        return None
    # whoever puts the key itself here must not find it in a log
    raise AlkdError(
        "llm_api_key_env: the value (not shown, it may be a key) is no name of an environment variable, such as OPENAI_API_KEY"
    )


def _like_a_key(name: str) -> bool:
    """Whether ``name`` may be an API key: a known beginning, or a word of letters and digits that nobody would call a thing."""
    if _KEY_BEGINNINGS.match(name) or len(name) > 64:
        return True
    if name != name.upper() and name != name.lower():  # both in one word: MyKey is no name that a shell's user gives
        return len(name) >= 12
    words = name.split("_")
    mixed = [word for word in words if re.search(r"[A-Za-z]\d+[A-Za-z]|\d[A-Za-z]+\d", word)]
    hexadecimal = [word for word in words if len(word) >= 8 and re.fullmatch(r"[0-9a-fA-F]+", word)]
    return any(len(word) >= 8 for word in mixed) or bool(hexadecimal) or any(len(word) >= 20 for word in words)


def _web_address(value: Any) -> str | None:
    words = "http:// or https:// with a host, such as http://127.0.0.1:8000/v1"
    try:
        url = urllib.parse.urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    # the place of an address is the log, the run folder and the checkpoint
    if _holds_a_secret(urllib.parse.unquote(value)):
        raise AlkdError(
            "llm_base_url: the value (not shown, it holds a password or a key) is not allowed; allowed: an address alone; "
            "the key comes from the environment (llm_api_key_env)"
        )
    return None if good else words


def _holds_a_secret(address: str) -> bool:
    """Whether a password or a key is in an address: before its host, behind a name such as ``key=``, or as a part of its path."""
    if "@" in address or re.search(r"(?i)(key|token|secret|passw|pwd|sig|auth|credential)[^=&;/?#]*=", address):
        return True
    parts = re.split(r"[/;?&#=,:]", address.partition("://")[2])
    return any(len(part) >= 20 and bool(_KEY_BEGINNINGS.match(part.replace("-", "_"))) for part in parts)


# Settings that may hold a secret by mistake: an error does not show their values.
_NEVER_SHOWN = ("llm_api_key_env", "llm_base_url")


@dataclass(frozen=True)
class SessionSettings:
    """How clicks become sessions and sessions become instances."""

    session_window: int | None = _setting(86400, int, check=_at_least(1))
    session_min_length: int = _setting(5, int, check=_at_least(2))
    session_augmentation: str = _setting("prefix", str, choices=("prefix", "last"))
    session_time_unit: str | None = _setting(None, str, choices=("s", "ms", "us", "ns"))
    mask_session_items: bool = _setting(False, bool)
    title_field: str | None = _setting(None, str)


@dataclass(frozen=True)
class BackboneSettings:
    """The student and the teacher recommender."""

    student_model: str = _setting("SessionFPMC", str)
    teacher_model: str = _setting("SessionFPMC", str)
    student_embedding_size: int = _setting(10, int, check=_at_least(1))
    teacher_embedding_size: int = _setting(100, int, check=_at_least(1))
    student_neighbors: int | None = _setting(None, int, check=_at_least(1))
    student_bytes: int | None = _setting(None, int, check=_at_least(1))
    student_config: dict[str, Any] = _setting({}, dict)
    teacher_config: dict[str, Any] = _setting({}, dict)
    stage_cache: str | bool | None = _setting(None, str, bool, check=_folder_or_none)
    student_tune: int = _setting(0, int, check=_at_least(0))
    student_search: str | None = _setting(None, str)


@dataclass(frozen=True)
class TrainingSettings:
    """How student and teacher recommender are trained before there are labels."""

    train_loss: str | None = _setting("sampled_softmax", str, choices=("sampled_softmax",))
    train_backwards: bool = _setting(False, bool)
    softmax_negatives: int = _setting(1024, int, check=_at_least(1))
    softmax_uniform: float = _setting(0.5, float, int, check=lambda v: None if 0 < v <= 1 else "a number above 0, at most 1")
    softmax_l2: float = _setting(0.01, float, int, check=_at_least(0))
    softmax_dropout: float = _setting(0.3, float, int, check=lambda v: None if 0 <= v < 1 else "a number in [0, 1)")


@dataclass(frozen=True)
class TextSettings:
    """What item titles say: their encoder, and what is made of the vectors."""

    item_text: str | None = _setting(None, str)
    item_text_layer: int | None = _setting(None, int, check=_at_least(0))
    item_text_neighbors: int = _setting(20, int, check=_at_least(1))
    item_text_similarity: float = _setting(0.3, float, int, check=lambda v: None if 0 <= v < 1 else "a number in [0, 1)")
    item_text_permuted: bool = _setting(False, bool)
    item_text_loss: Any = _setting(None, str, dict)
    item_text_config: dict[str, Any] = _setting({}, dict)
    serve_text_dim: int | None = _setting(None, int, check=_at_least(1))
    serve_text_weight: Any = _setting([0, 5, 10, 20], list, int, float, check=_weights)


@dataclass(frozen=True)
class SelectionSettings:
    """Which instances are labelled, and how many."""

    alkd_policy: str = _setting("max_min", str)
    alkd_draw: str = _setting("gumbel", str, choices=("gumbel", "pps"))
    alkd_fill: str = _setting("error", str, choices=("error", "next"))
    alkd_mu: float = _setting(10.0, float, int, check=_at_least(0))
    alkd_ratio: Any = _setting([1, 5, 4], list, str, check=_ratio)
    alkd_rounds: int = _setting(1, int, check=_at_least(1))
    alkd_pool: str = _setting("last", str, choices=("last", "prefix"))
    alkd_picks: str | None = _setting(None, str)
    alkd_difficulty: str = _setting("consistency", str)
    alkd_pilot: int = _setting(100, int, check=_at_least(1))
    alkd_confidence: float = _setting(0.95, float, check=lambda v: None if 0 < v < 1 else "a number between 0 and 1")
    budget_labels: int = _setting(500, int, check=_at_least(1))
    budget_tokens: int | None = _setting(None, int, check=_at_least(1))
    budget_usd: float | None = _setting(None, float, int, check=_above(0))


@dataclass(frozen=True)
class TeacherSettings:
    """The LLM teacher: who is asked, what it is shown, where answers are kept."""

    llm_teacher: str = _setting("local", str)
    llm_model: str = _setting("smollm2-135m-instruct", str)
    llm_scoring: str = _setting("title", str, choices=("title", "index", "generate"))
    llm_candidates: int = _setting(50, int, check=_at_least(2))
    llm_top_n: int = _setting(25, int, check=_at_least(1))
    llm_inject_target: bool = _setting(True, bool)
    llm_history: int = _setting(8, int, check=_at_least(1))
    llm_title_tokens: int = _setting(8, int, check=_at_least(1))
    llm_seed: int = _setting(2020, int, check=_at_least(0))
    llm_hints: bool = _setting(True, bool)
    llm_hint_cases: int = _setting(10, int, check=_at_least(1))
    llm_prompt: str | None = _setting(None, str)
    llm_replay_file: str | None = _setting(None, str)
    llm_device: str | None = _setting(None, str)
    llm_dtype: str | None = _setting(None, str, choices=("float32", "bfloat16", "float16"))
    llm_quantize: str | None = _setting(None, str, choices=("4bit", "8bit"))
    llm_trust_remote_code: str | None = _setting(None, str)
    llm_batch_size: int | None = _setting(None, int, check=_at_least(1))
    llm_threads: int | None = _setting(None, int, check=_at_least(1))
    llm_base_url: str | None = _setting(None, str, check=_web_address)
    llm_api_key_env: str | None = _setting(None, str, check=_environment_name)
    llm_concurrency: int = _setting(8, int, check=_at_least(1))
    llm_requests_per_minute: int | None = _setting(None, int, check=_at_least(1))
    llm_timeout: float = _setting(120.0, float, int, check=_above(0))
    llm_max_tokens: int | None = _setting(None, int, check=_at_least(1))
    llm_price_file: str | None = _setting(None, str)
    label_store: str = _setting("alkd_labels/labels.sqlite", str)
    label_engine: str = _setting("local", str, choices=("local", "ray"))


@dataclass(frozen=True)
class LoraSettings:
    """LoRA of a local LLM teacher."""

    lora: bool = _setting(True, bool)
    lora_rank: int = _setting(16, int, check=_at_least(1))
    lora_alpha: int = _setting(32, int, check=_at_least(1))
    lora_dropout: float = _setting(0.0, float, int, check=lambda v: None if 0 <= v < 1 else "a number in [0, 1)")
    lora_targets: list[str] = _setting(["q_proj", "k_proj", "v_proj", "o_proj"], list, check=_names)
    lora_examples: int | None = _setting(None, int, check=_at_least(1))
    lora_learning_rate: float = _setting(5e-4, float, check=_above(0))
    lora_epochs: int = _setting(1, int, check=_at_least(1))
    lora_patience: int = _setting(1, int, check=_at_least(1))
    lora_target: str = _setting("next_item", str, choices=("next_item", "replay"))
    lora_checkpointing: bool = _setting(False, bool)
    lora_batch_size: int = _setting(4, int, check=_at_least(1))
    lora_folds: int = _setting(2, int, check=_at_least(2))


@dataclass(frozen=True)
class DistillSettings:
    """How the student learns from the labels."""

    kd_loss: Any = _setting("pairwise", str, dict)
    kd_lists: str = _setting("llm", str, choices=("llm", "shuffled", "permuted", "target"))
    kd_correct: float = _setting(1.0, float, int, check=lambda v: None if 0 <= v <= 1 else "a number in [0, 1]")
    kd_init: str = _setting("student", str, choices=("student", "scratch"))
    kd_weight: float = _setting(1.0, float, int, check=_above(0))
    kd_rec_weight: float = _setting(0.0, float, int, check=_at_least(0))
    kd_learning_rate: float | None = _setting(None, float, check=_above(0))
    kd_position_weight: list[Any] = _setting([[5, 3], [15, 2], [25, 1]], list, check=_position_weight)
    kd_negatives: str = _setting("in_batch", str, choices=("in_batch", "uniform", "candidates"))
    kd_batch_size: int | None = _setting(None, int, check=_at_least(1))
    kd_config: dict[str, Any] = _setting({}, dict)


@dataclass(frozen=True)
class ReportSettings:
    """What a run says, and how much of it."""

    report_tables: list[Any] = _setting([], list, check=_sizes)
    short_log: bool = _setting(True, bool)
    save_bundle: bool = _setting(True, bool)


@dataclass(frozen=True)
class PluginSettings:
    """Code of the user's own, and trust in files."""

    alkd_plugins: list[str] = _setting([], list)
    trust_checkpoint: bool = _setting(False, bool)


GROUPS = (
    SessionSettings, BackboneSettings, TrainingSettings, TextSettings, SelectionSettings, TeacherSettings, LoraSettings,
    DistillSettings, ReportSettings, PluginSettings,
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """All settings of one run, in groups."""

    session: SessionSettings
    backbone: BackboneSettings
    training: TrainingSettings
    text: TextSettings
    selection: SelectionSettings
    teacher: TeacherSettings
    lora: LoraSettings
    distill: DistillSettings
    report: ReportSettings
    plugin: PluginSettings

    @property
    def lora_examples(self) -> int:
        """How many examples LoRA is trained on at most; by themselves as many as labels are asked for, up to 1000."""
        return self.lora.lora_examples or min(self.selection.budget_labels, 1000)

    def flat(self) -> dict[str, Any]:
        """Every key with its value, as YAML has them."""
        return {key: value for group in vars(self).values() for key, value in vars(group).items()}


FIELDS: dict[str, dataclasses.Field[Any]] = {f.name: f for group in GROUPS for f in dataclasses.fields(group)}
SESSION_KEYS = tuple(f.name for f in dataclasses.fields(SessionSettings))

# What a key of ours starts with. RecBole and its models have no key with these beginnings.
PREFIXES = (
    "alkd_",
    "llm_",
    "lora_",
    "kd_",
    "budget_",
    "student_",
    "teacher_",
    "label_store",
    "label_engine",
    "session_",
    "softmax_",
    "item_text",
    "serve_text",
    "report_",
)


def is_ours(key: str, known: Iterable[str] = ()) -> bool:
    """Whether ``key`` is a setting of ours, or a misspelt one (and not one of ``known``, RecBole's own)."""
    if key in FIELDS:
        return True
    if key in set(known):
        return False
    return key.startswith(PREFIXES) or bool(difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.85))


# Settings that have a default and may be null none the less.
NULLABLE = ("session_window", "train_loss")


def parse(key: str, text: str) -> Any:
    """The value of a setting that arrived as text (command line, hyper-parameter search). Nothing is evaluated.

    ``None``, ``~`` and an empty text are null. A setting that only takes text is taken as it stands.
    """
    is_text = key in FIELDS and FIELDS[key].metadata["types"] == (str,)
    if is_text and FIELDS[key].default is not None and key not in NULLABLE:
        return text  # `null` is the name of a teacher
    if is_null(text):
        return None
    if is_text:
        return text
    return read_yaml(text, f"{key}: {text!r}")


def _is(value: Any, *types: type) -> bool:
    # True is an int to Python; to a user it is not a number
    return isinstance(value, types) and (not isinstance(value, bool) or bool in types)


def _words(meta: Mapping[str, Any], null: bool) -> str:
    names = {int: "an integer", float: "a number", bool: "True or False", str: "text", list: "a list", dict: "a mapping"}
    if meta["choices"]:
        text = " | ".join(str(c) for c in meta["choices"])
    else:
        text = " or ".join(dict.fromkeys(names[t] for t in meta["types"] if not (t is int and float in meta["types"])))
    return text + (" or ~" if null else "")


def allowed_words(key: str) -> str:
    """What the setting ``key`` of ours takes, in words."""
    return _words(FIELDS[key].metadata, FIELDS[key].default is None or key in NULLABLE)


def _check(key: str, value: Any) -> Any:
    spec = FIELDS[key]
    meta, null = spec.metadata, spec.default is None or key in NULLABLE
    if isinstance(value, tuple):
        value = list(value)
    if key == "llm_teacher" and value is None:
        value = "null"  # YAML reads the name of that control as no value
    if value is None and null:
        return None
    allowed = _words(meta, null)
    if key in _NEVER_SHOWN and not _is(value, *meta["types"]):
        raise AlkdError(f"{key}: the value (not shown, {type(value).__name__}) is not allowed; allowed: {allowed}")
    if not _is(value, *meta["types"]):
        raise AlkdError(f"{key}: {value!r} ({type(value).__name__}) is not allowed; allowed: {allowed}")
    if meta["choices"] and value not in meta["choices"]:
        close = difflib.get_close_matches(str(value), [str(c) for c in meta["choices"]], n=1)
        raise AlkdError(f"{key}: {value!r} is not allowed; allowed: {allowed}" + (f" (did you mean {close[0]}?)" if close else ""))
    if isinstance(value, float) and value != value:
        raise AlkdError(f"{key}: nan is not allowed; allowed: {allowed}")
    wanted = meta["check"](value) if meta["check"] else None
    if wanted:
        raise AlkdError(f"{key}: {value!r} is not allowed; allowed: {wanted}{' or ~' if null else ''}")
    return value


def read_settings(values: Mapping[str, Any], known: Iterable[str] = ()) -> Settings:
    """Check the final flat settings and put them into their groups.

    Args:
        values: every key of the run, RecBole's among them.
        known: keys that belong to RecBole, its models or the data set, which are none of ours however they are spelt.

    Raises:
        AlkdError: a key that looks like ours and is not, a wrong type, a value out of range.
    """
    known = set(known)
    for key in values:
        if key not in FIELDS and is_ours(key, known):
            close = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.0)
            raise AlkdError(f"{key}: no such setting; did you mean {close[0]!r}?")
    groups: list[Any] = []
    for group in GROUPS:
        given = {f.name: _check(f.name, values[f.name]) for f in dataclasses.fields(group) if f.name in values}
        groups.append(group(**given))
    settings = Settings(*groups)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    teacher, selection = settings.teacher, settings.selection
    if teacher.llm_top_n > teacher.llm_candidates:
        raise AlkdError(
            f"llm_top_n: {teacher.llm_top_n} is more than llm_candidates ({teacher.llm_candidates}); allowed: at most that many"
        )
    if settings.backbone.student_neighbors is not None and settings.backbone.student_bytes is not None:
        raise AlkdError("student_bytes: not allowed beside student_neighbors, which decides the size too; give one of the two")
    if teacher.label_engine == "ray":
        raise AlkdError(
            "label_engine: 'ray' is not in this release; allowed: local. To label in parallel, raise llm_concurrency (api), or "
            "start `recbole-alkd label` several times on one label_store: no label is asked for twice"
        )
    if selection.alkd_ratio == "pilot" and selection.alkd_pilot >= selection.budget_labels:
        raise AlkdError(
            f"alkd_pilot: {selection.alkd_pilot} leaves nothing of budget_labels ({selection.budget_labels}); "
            "allowed: less than that"
        )
    if selection.alkd_policy == "listed" and not selection.alkd_picks:
        raise AlkdError("alkd_picks: the policy 'listed' needs a file of session ids (JSON); give alkd_picks: FILE or FILE#key")


def settings_hash(values: Mapping[str, Any]) -> str:
    """Ten hex digits that are the same for the same settings, in any order."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def stage_seed(seed: int, *names: object) -> int:
    """The seed of one stage, from the run's seed and the stage's name, so that a restarted stage repeats itself."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF
