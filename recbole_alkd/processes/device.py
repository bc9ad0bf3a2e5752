"""Which GPU a process of a run has, and what only the leader does."""

from __future__ import annotations

from typing import Any

from recbole_alkd.settings.error import AlkdError


def own_device(values: dict[str, Any], model: str, rank: int, count: int, local_rank: int) -> None:
    """Lay a process's own device over the settings of a run of several: one of ``gpu_id`` each.

    Called before anything has looked for GPUs.

    Raises:
        AlkdError: fewer GPUs than processes of this machine; a model that does not train so.
    """
    if count == 1:
        return
    check_model(model, count)
    if rank:
        values.update(show_progress=False, log_wandb=False)
    named = values["gpu_id"]
    every = named if isinstance(named, (list, tuple)) else str(named).split(",")
    gpus = [str(one).strip() for one in every]
    if not values["use_gpu"] or gpus == [""] or not has_gpu():
        return
    if local_rank >= len(gpus):
        raise AlkdError(
            f"gpu_id: {','.join(gpus)!r} names {len(gpus)} for process {local_rank + 1} of this machine; "
            "allowed: as many as nproc, or use_gpu: False"
        )
    values["gpu_id"] = gpus[local_rank]


def check_model(model: Any, count: int) -> None:
    """AlkdError where a model does not train in several processes of ours."""
    if model != "ALKDRec":
        name = model if isinstance(model, str) else getattr(model, "__name__", repr(model))
        raise AlkdError(
            f"nproc: {count} is not allowed with {name}; allowed: 1 (ALKDRec alone trains with more here; "
            "RecBole's own models: recbole.quick_start.run(..., nproc=N))"
        )


def has_gpu() -> bool:
    """Whether torch would find a GPU. It is not asked to look, as it looks once, and remembers which it may
    see."""
    import torch

    count = getattr(torch.cuda, "_device_count_nvml", None)
    return torch.backends.cuda.is_built() and (count is None or count() > 0)
