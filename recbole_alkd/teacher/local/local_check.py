"""What the local teacher needs, looked for before anything is trained:
packages, device, model, LoRA's modules.

The model is built without its weights (on torch's device "meta"), so this takes a second or two and little
memory.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recbole_alkd.labels.tools import count_of_teacher
from recbole_alkd.llm.adapters import first_line
from recbole_alkd.llm.bundled import BUNDLED, find_bundled, quiet
from recbole_alkd.llm.model_kind import check_path, linear_modules, positions
from recbole_alkd.llm.models import check_device, look_at_causal_lm
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher.prompt import load_prompt, title_prefix

logger = logging.getLogger(__name__)
# of the bundled model, which need not be unpacked for such a question
_LLAMA = frozenset(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))


def unless_labelled(settings: Settings, identity: str, check: Callable[[Settings], None]) -> None:
    """``check(settings)``; only a warning comes of it where the store may hold every label that the run
    wants.

    ``identity``: how the identity of the teachers that would answer begins.
    """
    try:
        check(settings)
    except AlkdError as error:
        wanted = settings.selection.budget_labels
        known = count_of_teacher(Path(settings.teacher.label_store).expanduser(), identity)
        if known < wanted:
            raise
        logger.warning(
            "%s. The store has %d labels of this LLM; if all that are wanted are there, none is needed",
            error,
            known,
        )


def check_local(settings: Settings) -> None:
    """Raises AlkdError: see ``models.load_causal_lm``, ``check_adapter``, ``check_scoring``;
    a missing accelerate for LoRA."""
    s, lora = settings.teacher, settings.lora
    has_accelerate = importlib.util.find_spec("accelerate") is not None
    if lora.lora and not has_accelerate:
        raise AlkdError(
            "lora: True needs accelerate, not installed here; install with: pip install 'recbole_alkd[local]'"
        )
    _check_device(settings)
    if s.llm_trust_remote_code not in (None, s.llm_model):
        raise AlkdError(
            f"llm_trust_remote_code: {s.llm_trust_remote_code!r} is not the llm_model ({s.llm_model!r}), "
            "the only one whose code "
            f"this can allow; allowed: {s.llm_model} or ~"
        )
    if s.llm_model == BUNDLED:
        find_bundled()
        if s.llm_scoring != "index" and (not lora.lora or set(lora.lora_targets) <= _LLAMA):
            return
    check_path(s.llm_model)
    if not has_accelerate:
        return  # the model cannot be built without its weights; it is found when it is loaded
    model, tokenizer = look_at_causal_lm(s.llm_model, s.llm_trust_remote_code)
    check_scoring(model, tokenizer, settings)
    if lora.lora:
        check_adapter(model, settings)


def _check_device(settings: Settings) -> None:
    s = settings.teacher
    device = s.llm_device or "cpu"
    if device.startswith("cuda"):
        # counted without waking CUDA, which reads gpu_id's variable only once, and RecBole sets that later
        count = torch.cuda.device_count()
        number = device.partition(":")[2] or "0"
        if not number.isdigit() or int(number) >= count:
            gpus = (
                f"{count} GPUs were found"
                if torch.backends.cuda.is_built()
                else "this build of torch knows no GPU"
            )
            raise AlkdError(
                f"llm_device: {device!r} cannot be used here ({gpus}); "
                "allowed: auto, cpu, cuda or cuda:N, counted among the GPUs "
                "that gpu_id lets RecBole see"
            )
        device = "cpu"
    check_device(device, s.llm_quantize)
    on_cpu = s.llm_device == "cpu" or not torch.cuda.device_count()
    if settings.lora.lora and s.llm_quantize == "4bit" and on_cpu:
        raise AlkdError(
            "llm_quantize: no LoRA through '4bit' weights on a CPU; "
            "allowed with lora: True on a CPU: 8bit or ~"
        )


def check_scoring(model: Any, tokenizer: Any, settings: Settings) -> None:
    """AlkdError where ``llm_scoring`` cannot be used with this model and tokenizer."""
    from recbole_alkd.teacher.local.generate import check_template
    from recbole_alkd.teacher.local.scorers import check_room, letter_tokens

    if settings.teacher.llm_scoring == "title":
        # another data set's prompt may be longer; this one is looked at again with the titles
        head = title_prefix(load_prompt(settings.teacher.llm_prompt, "", settings.selection.alkd_unit), [])
        check_room(len(tokenizer(head)["input_ids"]) + 1, positions(model.config), settings.teacher)
    elif settings.teacher.llm_scoring == "index":
        letter_tokens(tokenizer, settings.teacher)
    elif settings.teacher.llm_scoring == "generate":
        check_template(tokenizer, settings.teacher)


def check_adapter(model: Any, settings: Settings) -> None:
    """AlkdError where LoRA cannot be put on the modules ``lora_targets`` of ``model``,
    which may be without weights."""
    from peft import get_peft_model

    from recbole_alkd.teacher.local.adapter import lora_config

    lora, name = settings.lora, settings.teacher.llm_model
    paths = [path for path, _ in model.named_modules()]
    missing = [
        target
        for target in lora.lora_targets
        if not any(p == target or p.endswith(f".{target}") for p in paths)
    ]
    default = lora.lora_targets == type(lora)().lora_targets
    has = f"it has: {', '.join(linear_modules(model))}"
    if missing and (not default or len(missing) == len(lora.lora_targets)):
        raise AlkdError(
            f"lora_targets: {lora.lora_targets}: {name!r} ({_kind(model)}) has no module "
            f"{', '.join(missing)}; {has}"
        )
    if missing:
        logger.info("lora_targets: %s has no module %s; %s", name, ", ".join(missing), has)
    try:
        with quiet():
            get_peft_model(model, lora_config(settings))
    except ValueError as error:
        raise AlkdError(f"lora_targets: {lora.lora_targets}: {first_line(error)}; {has}") from None


def _kind(model: Any) -> str:
    return type(model).__name__
