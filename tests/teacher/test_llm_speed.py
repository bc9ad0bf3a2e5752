"""What the local teacher takes on the bundled model: run with ``-m benchmarks -s``;
the figures are printed, not asserted."""

import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole
import torch
from tiny_llm import context, with_examples

from recbole_alkd.llm.devices import threads, training_attention
from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import Instance, LoraExample
from recbole_alkd.teacher.local.adapter import add_adapter

pytestmark = pytest.mark.benchmarks
CANDIDATES = 20


def catalogue():
    """Titles of ml-100k, which RecBole carries."""
    file = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.item"
    table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    return {row[0]: row[1] for row in table.iloc[:, :2].itertuples(index=False)}


def sessions(titles, count, seed=0):
    rng = np.random.default_rng(seed)
    for row in range(count):
        items = rng.choice(list(titles), 8 + CANDIDATES, replace=False).tolist()
        yield Instance(row, str(row), tuple(items[:8]), tuple(items[8:]))


def teacher(tmp_path, **values):
    titles = catalogue()
    values = {"llm_dtype": None, "llm_candidates": CANDIDATES, "llm_top_n": 10, **values}
    chosen = [
        LoraExample(i.history, i.candidates, i.candidates[0], True) for i in sessions(titles, 32, seed=1)
    ]
    one = teachers.get("local")(
        context("smollm2-135m-instruct", tmp_path, values, titles=titles, lora_key="k")
    )
    return with_examples(one, lambda: chosen)


def timed(function):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def bare(llm, shapes):
    """One forward pass of each (tokens, logits) shape, with the model's own causal mask."""
    with torch.inference_mode():
        for tokens, logits in shapes:
            llm(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False, logits_to_keep=logits)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("scoring", "number"), [("title", 48), ("index", 16), ("generate", 4)])
def test_asking(tmp_path, scoring, number, count):
    one = teacher(tmp_path, llm_scoring=scoring, llm_threads=count)
    asked = list(sessions(one.context.titles, number))
    one.prepare()
    scorer = one._scorer
    with threads(count):
        _, wall, cpu = timed(lambda: scorer.prepare(one.context.titles))
    print(
        f"\n{scoring}, {count} threads: once for {len(one.context.titles)} titles {wall:.1f} s, "
        f"{cpu:.1f} CPU-s"
    )
    list(one.ask(asked[:1]))  # warm
    answers, wall, cpu = timed(lambda: [answer for _, answer in one.ask(asked)])
    tokens = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
    print(
        f"  a session: {wall / number:.3f} s, {cpu / number:.3f} CPU-s, {tokens / number:.0f} tokens "
        f"({tokens / cpu:.0f} a CPU-s)"
    )
    if scoring != "generate":
        trees = [tree for instance in asked for tree in scorer.case(instance).trees]
        shapes = [(len(tree.tokens), len(tree.tokens) - int(tree.sources.min())) for tree in trees]
        with threads(count):
            _, bare_wall, bare_cpu = timed(lambda: bare(scorer.model, shapes))
        print("  bare forward passes of the same shapes: "
              f"{bare_wall / number:.3f} s, {bare_cpu / number:.3f} CPU-s a session: "
              f"{bare_cpu / cpu:.0%} of the speed is kept")  # fmt: skip
    print(
        "  peak memory of the process so far: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )
    one.close()


@pytest.mark.parametrize("count", [1, 2])
def test_lora(tmp_path, count):
    one = teacher(tmp_path, lora=True, lora_held_out=0, lora_examples=32, llm_threads=count)
    _, wall, cpu = timed(one.prepare)
    report = one.lora_report
    print(
        f"\nLoRA, {count} threads: {report['seconds'] / 32:.3f} s an example; "
        f"loading and all: {wall:.1f} s, {cpu:.1f} CPU-s"
    )
    asked = list(sessions(one.context.titles, 32))
    list(one.ask(asked[:1]))
    _, wall, cpu = timed(lambda: list(one.ask(asked)))
    print(f"  asking with the adapter: {wall / 32:.3f} s, {cpu / 32:.3f} CPU-s a session")
    print(
        "  peak memory of the process so far: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def test_a_lora_example_beside_its_forward_pass(tmp_path):
    one = teacher(tmp_path, lora=False, llm_threads=1)
    one.prepare()
    scorer, examples = one._scorer, list(sessions(one.context.titles, 8))
    scorer.prepare(one.context.titles)

    def scores(instance):
        return scorer.scores([scorer.training_case(instance, 0)])[0]

    def spent(instance):
        with torch.no_grad():
            forward = timed(lambda: scores(instance))[2]
        loss, _, kept = timed(lambda: scores(instance).float().log_softmax(0)[0])
        return forward, kept, kept + timed(loss.backward)[2]

    with threads(1):
        with torch.no_grad():
            plain = np.median([timed(lambda: scores(asked))[2] for asked in examples][1:])  # noqa: B023
        scorer.model = add_adapter(scorer.model, one.context.settings)
        scorer.model.train()
        rows = {"as the model comes": [], "as it is trained": []}
        for instance in examples:  # in turn: other programs share the machine
            rows["as the model comes"].append(spent(instance))
            with training_attention(scorer.model, [200]):
                rows["as it is trained"].append(spent(instance))
    print(f"\nLoRA, one example, CPU-s: forward pass of the LLM {plain:.3f}")
    for name, row in rows.items():
        forward, kept, whole = np.median(row[1:], axis=0)  # the first wakes the machine up
        print(
            f"  {name}: with the adapter {forward:.3f}, as training needs it {kept:.3f}, and backwards "
            f"{whole:.3f}: {whole / forward:.2f} times the pass with the adapter, {whole / plain:.2f} times "
            "the LLM's"
        )
    scorer.model = scorer.model.unload().eval()
    one.close()
