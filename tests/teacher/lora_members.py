"""What each process does in the test of LoRA in several processes."""

from __future__ import annotations

import json
from pathlib import Path

from test_lora import ITEMS, examples
from tiny_llm import context

from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.processes.group import Group, place
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.local import lora
from recbole_alkd.teacher.local.scorers import TitleScorer
from recbole_alkd.teacher.prompt import load_prompt


def told(error):
    return f"{type(error).__name__}: {error}", 2 if isinstance(error, AlkdError) else 1


def train(model, folder, values):
    """Train an adapter; the losses of every step, by the leader.

    In float32: bfloat16 makes of gradients that were summed in another order other losses after a few steps.
    """
    settings = context(model, Path(folder), values, titles=ITEMS).settings
    scorer = TitleScorer(
        *load_causal_lm(str(model), "cpu", "float32"), load_prompt(settings.teacher.llm_prompt, "tiny"),
        ITEMS, settings.teacher,
    )  # fmt: skip
    steps = []
    adapter = Path(folder) / "adapter"
    group = Group(*place())
    lora.train_adapter(
        scorer, examples(24), settings, adapter, group=group,
        log_metric=lambda name, value, step: steps.append([name, step, value]),
    )  # fmt: skip
    if not group.leads:
        return {}
    return {"steps": steps, "report": json.loads((adapter / "alkd_lora.json").read_text())}
