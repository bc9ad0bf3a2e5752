"""What labels of a local LLM will take on this machine: its tokens are counted,
and a few sessions are asked about."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from recbole_alkd.llm.bundled import quiet
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher.base import Instance, LoraExample, Measured
from recbole_alkd.teacher.local.adapter import add_adapter
from recbole_alkd.teacher.local.judging import seconds_of_one
from recbole_alkd.teacher.local.scorer import Scorer

_TRIED = 3


def measure_local(
    scorer: Scorer, instances: Sequence[Instance], settings: Settings, tune: bool, hints: int = 0
) -> Measured:
    """What asking about ``instances`` will take.

    Args:
        scorer: of the LM without an adapter.
        tune: whether LoRA comes first.
        hints: tokens that every prompt will have beside those that it has now.
    """
    tokens = [scorer.tokens(instance) for instance in instances]
    # from the middle of those sorted by length: time grows about with the tokens
    order = sorted(range(len(instances)), key=tokens.__getitem__)
    tried = [instances[k] for k in order[max(0, len(order) // 2 - _TRIED // 2) :][:_TRIED]]
    items = {item for instance in instances for item in instance.candidates}
    passes, began = scorer.passes(items), time.perf_counter()
    first = {item for instance in tried for item in instance.candidates}
    some = scorer.passes(first)
    scorer.prepare(first)
    once = (time.perf_counter() - began) * passes / some if some else 0.0
    with _adapter(scorer, settings):
        one = 0.0
        if tune:
            examples = [LoraExample(i.history, i.candidates, i.candidates[0], True) for i in tried]
            one = seconds_of_one(scorer, examples)
        cases = [scorer.case(instance) for instance in tried]
        scorer.answers(tried[:1], cases[:1])  # the first one also wakes the machine up
        began = time.perf_counter()
        answers = [scorer.answers([instance], [case])[0] for instance, case in zip(tried, cases, strict=True)]
        seconds = time.perf_counter() - began
    written = sum(answer.completion_tokens for answer in answers) / len(tried)
    read = sum(case.tokens for case in cases) / len(tried)
    all_tokens = round(sum(tokens) + len(instances) * (hints + written))
    count, epochs = settings.lora_examples, settings.lora.lora_epochs
    judging = 2 * settings.lora_held_out * seconds / len(tried)  # without the adapter and with it
    return Measured(
        tokens=all_tokens,
        seconds=once + seconds / len(tried) * all_tokens / max(1.0, read + written),
        tried=len(tried),
        preparation_seconds=one * count * epochs + judging if tune else 0.0,
        preparation=f"LoRA on {count} examples, and {settings.lora.lora_folds} recommenders trained for them"
        if tune
        else "",
    )


@contextlib.contextmanager
def _adapter(scorer: Scorer, settings: Settings) -> Iterator[None]:
    """The scorer with an adapter that has learned nothing, where the settings want one:
    it costs what a trained one costs."""
    if not settings.lora.lora:
        yield
        return
    plain = scorer.model
    with quiet():
        scorer.model = add_adapter(plain, settings)
    try:
        yield
    finally:
        scorer.model = plain
