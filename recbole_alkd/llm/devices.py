"""Where and how a local LLM runs: its device, its type of numbers, its threads, its attention."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from recbole_alkd.llm.adapters import first_line
from recbole_alkd.settings.error import AlkdError

_PROBABILITIES = 2**30  # bytes that attention may keep for the backward pass


def check_device(device: str, quantize: str | None) -> None:
    """AlkdError where this machine has no such device, or lacks what a way of loading needs."""
    try:
        torch.empty(0, device="cpu" if device == "auto" else device)
    except (RuntimeError, AssertionError) as error:
        raise AlkdError(
            f"llm_device: {device!r} cannot be used here ({first_line(error)}); "
            "allowed: auto, cpu, cuda or cuda:N, "
            "counted among the GPUs that gpu_id lets RecBole see"
        ) from None
    if device == "auto":
        _need("accelerate", "llm_device: 'auto'", "'recbole_alkd[local]'")
    if quantize:
        _need("bitsandbytes", f"llm_quantize: {quantize!r}", "bitsandbytes")
        _need("accelerate", f"llm_quantize: {quantize!r}", "'recbole_alkd[local]'")


def _need(package: str, setting: str, pip: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise AlkdError(f"{setting} needs {package}, not installed here; install with: pip install {pip}")


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor computes in it (it halves time and memory and keeps the ranking),
    else float32.

    A CPU without bfloat16 instructions emulates them, which is several times slower than float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if torch.device(device).type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return (
            torch.bfloat16
            if any(on for name, on in capabilities.items() if "bf16" in name)
            else torch.float32
        )
    return torch.float32


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """``count`` CPU threads for torch inside of the block (None: as many as before), the former number
    afterwards.
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def training_attention(model: Any, lengths: Sequence[int]) -> Iterator[None]:
    """Eager attention inside of the block, where ``model`` trains in bfloat16 on a CPU; as it was afterwards.

    torch's fused attention has a slow backward pass there: a training example takes 15 % longer with it, and
    its gradient is no nearer to that of float32. Eager attention keeps every probability, so it is left alone
    where they would take more than 1 GiB. Elsewhere, and for a model that has no fused attention to leave,
    nothing is changed.

    Args:
        lengths: tokens of the texts of a step, the longest that there may be.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config
    slow = next(inner.parameters()).device.type == "cpu" and inner.dtype == torch.bfloat16
    fused = getattr(config, "_attn_implementation", None)
    heads = getattr(config, "num_hidden_layers", 0) * getattr(config, "num_attention_heads", 0)
    kept = heads * sum(tokens**2 for tokens in lengths) * 8  # in float32, and in bfloat16 before and after
    fits = 0 < kept <= _PROBABILITIES
    if not (slow and fits and fused == "sdpa" and hasattr(inner, "set_attn_implementation")):
        yield
        return
    inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(fused)
