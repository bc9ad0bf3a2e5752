"""One run of a plan in a process of its own: ``python -m recbole_alkd.bench.worker TASK.json``.

Writes ``<key>.npz`` (ranks, session ids and groups of targets of the valid and test part) and then
``<key>.json``, whose being there says that the run is finished.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_alkd.bench.arms import CLOSED_FORM
from recbole_alkd.bench.before import config_of
from recbole_alkd.distill.combined import wanted_losses
from recbole_alkd.files import write_json
from recbole_alkd.labels import Label
from recbole_alkd.labels.cost import total
from recbole_alkd.model.baselines import Baseline
from recbole_alkd.model.scoring import session_tokens, target_groups, write_arrays
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.group import Group
from recbole_alkd.trainer.identity import versions
from recbole_alkd.trainer.report import stage_ranks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from recbole_alkd.trainer.run import Run


def run_task(
    dataset: str, stage: str, settings: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train what ``stage`` needs and rank; gives back the arrays and the facts of a result."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    config = config_of(dataset, stage, settings)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train, valid, test = data_preparation(config, create_dataset(config))
    arrays = {f"sessions_{name}": session_tokens(part) for name, part in (("valid", valid), ("test", test))}
    arrays |= {
        f"groups_{name}": target_groups(
            train._dataset, part._dataset.inter_feat[part._dataset.iid_field].numpy()
        )
        for name, part in (("valid", valid), ("test", test))
    }
    began = perf_counter()
    if stage in CLOSED_FORM:
        baseline = Baseline(stage, train._dataset, valid._dataset, bool(config["mask_session_items"]))
        for name, part in (("valid", valid), ("test", test)):
            arrays[name] = baseline.ranks(part._dataset)
        seconds = round(perf_counter() - began, 3)
        cost = {"labels": 0, "tokens": 0, "usd": 0.0, "seconds": seconds}
        size = {"parameters": baseline.parameters, "bytes": baseline.bytes}
        return arrays, {**size, "seconds": seconds, "device": "CPU", "cost": cost}
    Group.of(config).seed_model(config)
    model = get_model(config["model"])(config, train._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    half, stage = stage == "student_half", "student" if stage == "student_half" else stage
    trainer.train_until(stage, train, valid, verbose=True)  # the log of a run has a line an epoch
    run = trainer.run
    outcome = run.outcomes[stage]
    state = half_precision(outcome.state) if half else outcome.state
    arrays |= stage_ranks(run, stage, test, state)
    facts = {
        "parameters": sum(p.numel() for p in run.model_of(stage).parameters()),
        "bytes": sum(value.numel() * value.element_size() for value in state.values()),
        "seconds": outcome.seconds,
        "device": device_name(config["device"]),
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "tuned": run.tuned,
        "labels": run.labels.rounds.label_report() if run.labels.asked else None,
        "cost": cost_of(run, stage),
    }
    run.folder.close()
    shutil.rmtree(run.folder.path)  # its stages served a killed run; the result holds what is asked for
    return arrays, facts


def device_name(device: torch.device) -> str:
    """What a run was made on: CPU, or the name of its GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its numbers in float16, as it would be stored;
    a model that loads it computes in its own precision.

    Raises:
        AlkdError: a number is too large for float16.
    """
    import torch

    rounded = {}
    for name, value in state.items():
        rounded[name] = value.half() if value.is_floating_point() else value
        if not torch.equal(torch.isfinite(value), torch.isfinite(rounded[name])):
            raise AlkdError(
                f"{name}: {value[torch.isfinite(value)].abs().max():g} is too large for half precision "
                "(65,504)"
            )
    return rounded


def cost_of(run: Run, stage: str) -> dict[str, Any]:
    """What a result rests on, as if nothing of it had been shared with other runs.

    ``labels`` that were distilled; ``tokens`` of their prompts and answers and of titles that an encoder
    read; ``usd`` of the labels (None where none has a price); ``seconds`` of wall time for training every
    stage below it, title vectors, LoRA and answers.
    """
    # student_longer only takes its length from distillation
    stages = ("student", "student_longer") if stage == "student_longer" else tuple(run.outcomes)
    seconds = sum(run.outcomes[name].seconds for name in stages)
    distill = run.settings.distill
    needed = set().union(*(losses.get(name).needs for name in wanted_losses(run.settings)))
    labels: list[Label] = []
    if stage == "distilled" and "lists" in needed and distill.kd_lists != "target":
        labels = list(run.labels.rounds.labels.values())
        seconds += (run.labels.lora_report or {}).get("seconds", 0.0)
    cost = total(label.cost for label in labels)
    tokens, seconds = cost.tokens, seconds + cost.seconds
    if run.text and run.text.made:
        tokens += run.text.made.tokens
        seconds += run.text.made.seconds
    return {
        "labels": len(labels),
        "tokens": tokens,
        "usd": (None if labels else 0.0) if cost.usd is None else round(cost.usd, 6),
        "seconds": round(seconds, 3),
    }


def main(file: Path) -> int:
    """Run the task that ``file`` describes. A mistake that a user can fix is one line on stderr and exit code
    2."""
    task = json.loads(file.read_text(encoding="utf-8"))
    sys.argv = sys.argv[:1]  # RecBole reads it
    try:
        arrays, facts = run_task(task["dataset"], task["stage"], task["settings"])
        results, key = Path(task["results"]), task["key"]
        write_arrays(results / f"{key}.npz", arrays)
        asked = {name: task[name] for name in ("dataset", "stage", "settings", "data")}
        write_json(results / f"{key}.json", {**asked, "versions": versions(), **facts})
    except AlkdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # such as a full disk, of which the log may hold no whole traceback
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
