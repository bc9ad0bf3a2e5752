"""The LoRA adapter of a local LLM as PEFT has it: made, loaded, and whether its report has it used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.llm.adapters import REPORT
from recbole_alkd.llm.bundled import quiet
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import LoraSettings, Settings


def lora_config(settings: Settings) -> Any:
    """PEFT's description of the adapter that ``lora_`` settings ask for."""
    from peft import LoraConfig

    lora = settings.lora
    return LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.lora_targets),
        task_type="CAUSAL_LM",
    )


def add_adapter(model: Any, settings: Settings) -> Any:
    """``model`` with a new adapter, which changes nothing yet; AlkdError where ``lora_`` settings do not go
    with it."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    lora = settings.lora
    if settings.teacher.llm_quantize:
        if settings.teacher.llm_quantize == "4bit" and next(model.parameters()).device.type == "cpu":
            # its kernel there has no gradient of its own, and what comes in its place may be wrong without a
            # word
            raise AlkdError(
                "llm_quantize: no LoRA through '4bit' weights on a CPU; "
                "allowed with lora: True on a CPU: 8bit or ~"
            )
        # the Trainer does that
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        tuned: Any = get_peft_model(model, lora_config(settings))
    except ValueError as error:
        raise AlkdError(f"lora_targets: {lora.lora_targets}: {str(error).splitlines()[0]}") from None
    # of a base that has a name PEFT would ask the Hub for the vocabulary, at every checkpoint of the Trainer
    tuned.peft_config["default"].base_model_name_or_path = ""
    return tuned


def load_adapter(model: Any, folder: Path) -> Any:
    """``model`` with the adapter in ``folder``, in evaluation mode; AlkdError when the folder is damaged."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with quiet():
            return PeftModel.from_pretrained(model, str(folder.absolute())).eval()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise AlkdError(
            f"the adapter in {folder} cannot be used ({str(error).splitlines()[0]}); delete that folder"
        ) from None


def read_report(folder: Path) -> dict[str, Any]:
    """The report of the training that made the adapter in ``folder``."""
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AlkdError(
            f"the adapter in {folder} has no readable {REPORT} ({error}); delete that folder"
        ) from None


def is_used(report: Mapping[str, Any], lora: LoraSettings) -> bool:
    """Whether labels are those of the LLM with the adapter that ``report`` is of.

    One of an earlier version, which nobody judged, is used as it was; so is one that imitates recorded
    rankings, whose aim is not the true next item by which it is judged.
    """
    judged = report.get("better")
    return lora.lora_use == "always" or lora.lora_target == "replay" or judged is None or bool(judged)
