"""The settings of a learning curve of LoRA: which may be given, and which its file has decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_alkd.bench.lora_file import KEPT, StudyExamples
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS, Settings
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.reading import read_settings

# settings that decide what is trained and judged here; all others have no effect
ALLOWED = (
    "llm_model", "llm_dtype", "llm_quantize", "llm_trust_remote_code", "llm_scoring", "llm_prompt",
    "llm_history", "llm_title_tokens", "llm_seed", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets",
    "lora_candidates", "lora_scale", "lora_learning_rate", "lora_epochs", "lora_patience",
    "lora_checkpointing", "lora_batch_size",
)  # fmt: skip
_TUNED = ("title", "index")  # kinds of ``llm_scoring`` with a score of every candidate
_ELSEWHERE = {
    "lora_examples": "decided by the file and --examples",
    "llm_candidates": "decided by the file and --examples",
    "lora_inserted": "decided by the file and --pool",
    "llm_device": "given as --device",
    "llm_threads": "given as --threads",
}


def settings_of_study(study: StudyExamples, given: Mapping[str, Any], count: int) -> Settings:
    """The settings under which ``count`` examples of ``study`` train; ``given`` ones first,
    then those of its file.

    Raises:
        AlkdError: a setting that is not allowed, or that the file has decided.
    """
    for key in given:
        if key not in ALLOWED:
            why = _ELSEWHERE.get(
                key, "has no effect here" if key in FIELDS else f"no such setting{hint(key, ALLOWED)}"
            )
            raise AlkdError(f"--set {key}: {why}; allowed: {', '.join(ALLOWED)}")
    brought = {key: study.settings[key] for key in KEPT if key in study.settings}
    base = {
        "llm_top_n": study.settings["llm_candidates"],
        "lora_held_out": 0,
        "lora_use": "always",
        "lora_examples": count or 1,
    }
    settings = read_settings({**brought, **base, **given})
    shown = study.settings.get("llm_history")
    if isinstance(shown, int) and settings.teacher.llm_history > shown:
        raise AlkdError(
            f"--set llm_history: {settings.teacher.llm_history} is more than the {shown} items that the file "
            f"keeps of a session; allowed: 1 to {shown}"
        )
    if settings.teacher.llm_scoring not in _TUNED:
        raise AlkdError(
            f"--set llm_scoring: {settings.teacher.llm_scoring!r} has no scores to tune; allowed: "
            f"{', '.join(_TUNED)}"
        )
    if "lora_patience" in given and settings.lora.lora_epochs == 1:
        raise AlkdError("--set lora_patience: has no effect with lora_epochs 1; allowed: beside more epochs")
    return settings
