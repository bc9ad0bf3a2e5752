"""A control for LoRA: made-up products with a rule that every LLM can learn, so that a curve that stays flat
is seen.

What is bought next has the colour of what was bought before, and is another kind of thing.
Exactly one candidate has that colour.
"""

from __future__ import annotations

import numpy as np

from recbole_alkd.bench.lora_file import StudyExamples
from recbole_alkd.teacher.base import LoraExample

COLOURS = (
    "Red", "Blue", "Green", "Yellow", "Orange", "Purple", "Pink", "Brown", "Black", "White",
    "Grey", "Silver", "Golden", "Crimson", "Violet", "Turquoise", "Beige", "Maroon", "Navy", "Ivory",
)  # fmt: skip
KINDS = (
    "mug", "scarf", "lamp", "cushion", "bowl", "candle", "clock", "basket", "apron", "teapot",
    "vase", "blanket", "plate", "notebook", "umbrella", "wallet", "mirror", "stool", "tray", "kettle",
)  # fmt: skip
HISTORY = 2  # products of a session


def control_study(
    count: int = 1000, held_out: int = 100, candidates: int = 20, seed: int = 2020
) -> StudyExamples:
    """Examples of the made-up shop, of two products a session; the order of the candidates is random."""
    titles = {
        f"{c}-{k}": f"{colour} {kind}" for c, colour in enumerate(COLOURS) for k, kind in enumerate(KINDS)
    }
    rng = np.random.default_rng(seed)
    every = [_example(rng, candidates) for _ in range(count + held_out)]
    settings = {
        "llm_candidates": candidates,
        "llm_history": 8,
        "llm_title_tokens": 8,
        "llm_prompt": "neutral",
    }
    training = tuple(every[held_out:])
    return StudyExamples(
        "control", settings, titles, training, training, tuple(every[:held_out]), len(every), len(every)
    )


def _example(rng: np.random.Generator, candidates: int) -> LoraExample:
    colour, *others = rng.permutation(len(COLOURS))[:candidates]
    *kinds, wanted = rng.permutation(len(KINDS))[: HISTORY + 1]
    target = f"{colour}-{wanted}"
    shown = [target, *(f"{other}-{rng.integers(len(KINDS))}" for other in others)]
    return LoraExample(
        tuple(f"{colour}-{kind}" for kind in kinds),
        tuple(str(item) for item in rng.permutation(shown)),
        target,
        True,
    )
