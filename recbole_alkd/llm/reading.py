"""How a model reads: left to right or not, and whether it can read many texts after one prefix in one pass.

Found out by trying, on a dozen tokens: what a model does with a mask and with positions stands in no config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.llm.likelihood import accepts, masked_logits, plain_logits

_NOISE = 0.02  # of the effect that a token has where it is seen; less than this comes from rounding


@dataclass(frozen=True)
class Reading:
    """What was found.

    Attributes:
        causal: no token is seen by the ones before it.
        one_pass: the mask and the positions of a tree of texts are obeyed (``likelihood``).
        window: tokens that a layer of the model looks back at most, or None. A tree knows no window.
    """

    causal: bool
    one_pass: bool
    window: int | None = None

    def in_one_pass(self, depth: int) -> bool:
        """Whether texts that end ``depth`` tokens after the prompt's beginning may be read in one pass."""
        return self.one_pass and (self.window is None or depth <= self.window)


@torch.no_grad()
def read_once(model: Any) -> Reading:
    """Try ``model``, a Hugging Face LM in evaluation mode without an adapter."""
    rows = model.get_input_embeddings().weight.shape[0]
    drawn = np.random.default_rng(0).permutation(max(rows, 16))[:16] % rows
    text, other = drawn[:8], drawn[8:]
    changed = text.copy()
    changed[-1] = other[0]
    before, after = plain_logits(model, text[None])[0].float(), plain_logits(model, changed[None])[0].float()
    causal = not _differ(before[:-1], after[:-1], _effect(before[-1], after[-1]))
    return Reading(causal, causal and _obeys_trees(model, text, other), _window(model.config))


def _obeys_trees(model: Any, text: np.ndarray, other: np.ndarray) -> bool:
    """The tree: 4 tokens of prefix, the branch A of 2, and the branch B of 2, which must not see A."""
    if (
        not (accepts(model, "position_ids") and accepts(model, "attention_mask"))
        or model.config.model_type == "gpt_neo"
    ):
        return False  # gpt_neo counts its window in places, whatever the positions say
    visible = np.tril(np.ones((8, 8), dtype=bool))
    visible[6:, 4:6] = False
    depths = np.array([0, 1, 2, 3, 4, 5, 4, 5])

    def branch(ids: np.ndarray, positions: np.ndarray = depths) -> Tensor:
        return masked_logits(model, ids[None], positions[None], visible[None])[0, 6:].float()

    try:
        in_tree = branch(text)
        moved = branch(text, depths + np.array([0] * 6 + [3, 3]))
    except Exception:  # whatever a model says that takes no such mask
        return False
    other_prefix, other_branch = text.copy(), text.copy()
    other_prefix[1], other_branch[4:6] = other[1], other[2:4]
    effect = _effect(in_tree, branch(other_prefix))
    alone = plain_logits(model, np.concatenate([text[:4], text[6:]])[None])[0, 4:].float()
    return (
        not _differ(in_tree, branch(other_branch), effect)
        and bool((in_tree - moved).abs().max() > 0)
        and not _differ(in_tree, alone, 5 * effect)  # another shape: rounded otherwise
    )


def _effect(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _differ(a: Tensor, b: Tensor, effect: float) -> bool:
    return not torch.equal(a, b) and _effect(a, b) > _NOISE * effect


def _window(config: Any) -> int | None:
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds and all(kind == "full_attention" for kind in kinds):
        return None
    sizes = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)
