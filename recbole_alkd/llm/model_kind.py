"""What a model says of itself before its weights are read: whether it is a causal LM, whose code it runs,
and its modules.

Everything here raises AlkdError in one line, so that a wrong folder is found before anything is trained, and
never ranks with weights that were drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from recbole_alkd.llm.bundled import BUNDLED, quiet
from recbole_alkd.settings.error import AlkdError

_SHOWN = 3  # names of weights that an error lists
_BASES = ("Model", "PreTrainedModel")  # classes without a head; whether theirs is tied, the weights tell
# families of encoders that have a class with a head for the next token, which means something only with
# `is_decoder`
_ENCODERS = (
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roc_bert",
    "roberta-prelayernorm", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
_LMS = ("ForCausalLM", "LMHeadModel", "LMHead", "ForConditionalGeneration")


def check_path(name: str, setting: str = "llm_model") -> None:
    """AlkdError where ``name`` is a file, or a folder that holds no model."""
    path = Path(name).expanduser()
    if not name.strip():
        raise AlkdError(f"{setting}: '' is not allowed; allowed: {BUNDLED}, a folder, or a Hugging Face id")
    if path.is_file():
        more = (
            "; a GGUF file can be served with llama.cpp (llama-server -m FILE) and asked by llm_teacher: api"
        )
        more = more if path.suffix.lower() == ".gguf" else ""
        raise AlkdError(f"{setting}: {name!r} is a file; allowed: a folder that save_pretrained wrote{more}")
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        held = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
        raise AlkdError(
            f"{setting}: {name!r} cannot be loaded (no config.json in it; it holds {held}); "
            f"allowed: {BUNDLED} (bundled, works "
            "offline), a folder with a causal LM that save_pretrained wrote, or a Hugging Face id"
        )


def read_config(name: str, trust: bool, setting: str = "llm_model", **options: Any) -> Any:
    """The transformers Config of a model; code that stands beside it is run only with ``trust``.

    Raises:
        AlkdError: a model type that transformers does not know, or that is code of the model's own.
        OSError: there is no such model.
    """
    from transformers import AutoConfig, PretrainedConfig

    with quiet():
        content, _ = PretrainedConfig.get_config_dict(name, **options)
        kind = content.get("model_type")
        if "auto_map" in content and not trust and not _is_known(kind):
            raise AlkdError(
                f"{setting}: {name!r} brings code of its own (model_type {kind!r}), which is not run; "
                + (
                    f"if you trust it, allow it by name: llm_trust_remote_code: {name}"
                    if setting == "llm_model"
                    else ""
                )
            )
        if kind is not None and "auto_map" not in content and not _is_known(kind):
            raise AlkdError(
                f"{setting}: {name!r} has model_type {kind!r}, which transformers {_version()} does not "
                "know; a newer release may"
            )
        return AutoConfig.from_pretrained(name, trust_remote_code=trust, **options)


def _is_known(kind: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _version() -> str:
    import transformers

    return str(transformers.__version__)


def check_causal(config: Any, name: str) -> None:
    """AlkdError where the model of ``config`` is no causal LM: an encoder, an encoder with decoder,
    a classifier."""
    from transformers.models.auto import modeling_auto as auto

    allowed = "allowed: a causal LM (its config.json names a class such as LlamaForCausalLM)"
    said = getattr(config, "architectures", None) or []
    named: Sequence[str] = [said] if isinstance(said, str) else [str(one) for one in said]
    what = f"llm_model: {name!r} holds {' and '.join(named) or f'a model of type {config.model_type}'}"
    if getattr(config, "is_encoder_decoder", False):
        raise AlkdError(f"{what}, an encoder with a decoder; {allowed}")
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    wrong = [one for one in named if not one.endswith(_LMS) and not one.endswith(_BASES)]
    known = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if type(config) not in auto.MODEL_FOR_CAUSAL_LM_MAPPING or (wrong and not set(named) & set(known)):
        raise AlkdError(f"{what}, which is no causal LM; {allowed}")
    if config.model_type in _ENCODERS and not getattr(config, "is_decoder", False):
        raise AlkdError(f"{what}, which reads texts in both directions; {allowed}")


def check_weights(
    info: dict[str, Any], name: str, setting: str = "llm_model", ignore: Iterable[str] = ()
) -> None:
    """AlkdError where weights are missing or of another shape: transformers draws such ones at random.

    ``info``: what ``from_pretrained(output_loading_info=True)`` tells.
    ``ignore``: parts of names of unused weights.
    """
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in ignore))
    other = sorted(
        str(key[0] if isinstance(key, (tuple, list)) else key) for key in info.get("mismatched_keys", ())
    )
    for kind, keys in (
        ("lacks the weights", missing),
        ("has weights of another shape than its config.json says:", other),
    ):
        if keys:
            shown = ", ".join(keys[:_SHOWN]) + (
                f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            )
            raise AlkdError(
                f"{setting}: {name!r} {kind} {shown}; allowed: a whole model, as save_pretrained writes it"
            )


def check_tokenizer(tokenizer: Any, rows: int, name: str, setting: str = "llm_model") -> None:
    """AlkdError where plain text gives no tokens, or tokens that the model has no embedding for.

    ``rows``: of the model's embedding.
    """
    ids = tokenizer("Toy story (1995), part 2\nA", add_special_tokens=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    if not ids or all(token == unknown for token in ids):
        raise AlkdError(
            f"{setting}: the tokenizer of {name!r} knows no token of plain text; its files are not whole"
        )
    check_tokens(tokenizer, ids, rows, name, setting)


def check_tokens(
    tokenizer: Any, ids: Iterable[int], rows: int, name: str, setting: str = "llm_model"
) -> None:
    """AlkdError where a token has no row in the model's embedding."""
    largest = max(ids, default=0)
    if largest >= rows:
        raise AlkdError(
            f"{setting}: the tokenizer of {name!r} gives token {largest} ({tokenizer.decode([largest])!r}), "
            "and the model has "
            f"embeddings for {rows}: they do not belong together"
        )


def positions(config: Any) -> int | None:
    """How many tokens the model can read; None where there is no such number."""
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    number = getattr(config, "max_position_embeddings", None)
    if config.model_type == "rwkv" or not isinstance(number, int) or number < 1:
        return None  # recurrent, or no position is learnt
    # these count positions from the padding's number on
    return (
        number - 2 if "roberta" in config.model_type or config.model_type in ("camembert", "xmod") else number
    )


def linear_modules(model: Any) -> list[str]:
    """Last names of the modules of ``model`` that LoRA can be put on, without its head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    return sorted(
        {
            path.rpartition(".")[2]
            for path, one in model.named_modules()
            if isinstance(one, kinds) and one is not head
        }
    )


def read_json(file: Path, setting: str) -> dict[str, Any]:
    """A JSON object in ``file``; AlkdError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AlkdError(f"{setting}: {str(file)!r} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise AlkdError(f"{setting}: {str(file)!r} holds no JSON object")
    return content
