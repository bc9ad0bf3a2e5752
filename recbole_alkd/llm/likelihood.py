"""Log-likelihoods of many texts after one prefix, in one forward pass of a causal LM.

The texts are merged into a tree that grows out of the end of the prefix: texts that begin alike share tokens,
and a token attends to its ancestors only (the block attention mask). So one pass gives exactly what a pass
for each text would give, in any order of the texts, and no text sees another. A model that cannot be told
which token sees which (ALiBi, recurrent layers) reads text by text instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

Tokens = tuple[int, ...]
_ROWS = 16  # texts in one forward pass, where each is read for itself


@dataclass(frozen=True)
class TokenTree:
    """A prefix and the texts that may follow it.

    Attributes:
        tokens: (T,) what is forwarded: the prefix, then every token that has a successor in some text. The
            last token of a text needs no forward pass.
        parents: (T,) index of the token before, -1 for the first.
        sources, targets: (E,) token ``targets[e]`` is predicted at ``sources[e]``.
        paths: (N, longest) the predictions that a text consists of; E where there is none.
    """

    tokens: np.ndarray
    parents: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    paths: np.ndarray

    @property
    def depths(self) -> np.ndarray:
        """(T,) position of each token in its own text."""
        depths = np.zeros(len(self.tokens), dtype=np.int64)
        for i in range(1, len(depths)):
            depths[i] = depths[self.parents[i]] + 1
        return depths

    @property
    def visible(self) -> np.ndarray:
        """(T, T) bool: whether the token of the row attends to that of the column."""
        visible = np.eye(len(self.tokens), dtype=bool)
        for i in range(1, len(visible)):
            visible[i] |= visible[self.parents[i]]
        return visible


def build_tree(prefix: Sequence[int], texts: Sequence[Tokens]) -> TokenTree:
    """The tree of ``texts`` (token ids, each possibly empty) after ``prefix`` (at least one token)."""
    tokens, parents = list(prefix), list(range(-1, len(prefix) - 1))
    edges: dict[tuple[int, int], int] = {}  # (source, target token) -> prediction
    nodes: dict[int, int] = {}  # prediction -> index of its token, where that is forwarded
    paths = []
    for text in texts:
        path, at = [], len(prefix) - 1
        for k, token in enumerate(text):
            edge = edges.setdefault((at, token), len(edges))
            path.append(edge)
            if k + 1 < len(text):
                if edge not in nodes:
                    nodes[edge] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                at = nodes[edge]
        paths.append(path)
    longest = max((len(path) for path in paths), default=0)
    padded = np.full((len(paths), longest), len(edges), dtype=np.int64)
    for row, path in zip(padded, paths, strict=True):
        row[: len(path)] = path
    pairs = np.asarray(list(edges), dtype=np.int64).reshape(-1, 2)
    return TokenTree(
        np.asarray(tokens, dtype=np.int64),
        np.asarray(parents, dtype=np.int64),
        pairs[:, 0],
        pairs[:, 1],
        padded,
    )


def log_likelihoods(model: Any, trees: Sequence[TokenTree], one_pass: bool = True) -> list[Tensor]:
    """Sum of the log-probabilities of each text's tokens after its tree's prefix:
    (N,) float32 for every tree.

    ``model`` is a Hugging Face causal LM. Gradients flow if they are enabled. ``one_pass`` False: every text
    is read for itself, which any causal LM can do (``reading.read_once`` tells which ones need it).
    """
    if not one_pass:
        return [_text_by_text(model, tree) for tree in trees]
    width = max(len(tree.tokens) for tree in trees)
    ids = np.zeros((len(trees), width), dtype=np.int64)
    positions = np.zeros_like(ids)
    visible = np.broadcast_to(np.eye(width, dtype=bool), (len(trees), width, width)).copy()
    for b, tree in enumerate(trees):
        size = len(tree.tokens)
        ids[b, :size], positions[b, :size], visible[b, :size, :size] = tree.tokens, tree.depths, tree.visible
    # logits from the end of the shortest prefix on; the head is a fifth of the cost of a token
    start = min((int(tree.sources.min()) for tree in trees if len(tree.sources)), default=width - 1)
    logits = masked_logits(model, ids, positions, visible, start)
    rows = np.repeat(np.arange(len(trees)), [len(tree.sources) for tree in trees])
    device = logits.device  # of the last layer, where a model is spread over devices
    sources = torch.from_numpy(np.concatenate([tree.sources for tree in trees]) - start).to(device)
    targets = torch.from_numpy(np.concatenate([tree.targets for tree in trees])).to(device)
    predictions = -cross_entropy(
        logits[torch.from_numpy(rows).to(device), sources].float(), targets, reduction="none"
    )
    parts = predictions.split([len(tree.sources) for tree in trees])
    return [
        pad(part, (0, 1))[torch.from_numpy(tree.paths).to(device)].sum(1)
        for part, tree in zip(parts, trees, strict=True)
    ]


def masked_logits(
    model: Any, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray, start: int = 0
) -> Tensor:
    """(B, T - start, V) logits where each token sees what ``visible`` (B, T, T) says,
    from the ``start``-th token on.

    Args:
        ids, positions: (B, T) tokens and their positions.
    """
    device = next(model.parameters()).device
    # a float mask: eager attention adds it to the scores, and adding a bool one would mask nothing
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill_(
        torch.from_numpy(~visible), torch.finfo(model.dtype).min
    )
    how = {"attention_mask": mask[:, None].to(device), "position_ids": torch.from_numpy(positions).to(device)}
    return _logits(model, ids, start, **how)


def plain_logits(model: Any, ids: np.ndarray, start: int = 0) -> Tensor:
    """(B, T - start, V) logits of the token sequences ``ids`` (B, T), through the model's own mask."""
    return _logits(model, ids, start)


def _logits(model: Any, ids: np.ndarray, start: int, **how: Any) -> Tensor:
    tokens = torch.from_numpy(ids).to(next(model.parameters()).device)
    argument = _argument(model, "logits_to_keep")
    if argument is None:
        return model(input_ids=tokens, use_cache=False, **how).logits[:, start:]
    kept: int | Tensor = ids.shape[1] - start
    if tokens.device.type == "cpu" and "Tensor" in str(argument.annotation):
        # a number makes the model slice its hidden states, and before the product of a slice with the head
        # in bfloat16, torch copies the head; the places, by which it gathers, give the same logits without
        kept = torch.arange(start, ids.shape[1])
    return model(input_ids=tokens, use_cache=False, logits_to_keep=kept, **how).logits


def accepts(model: Any, name: str) -> bool:
    """Whether the model (inside of its adapter) takes an argument of this name."""
    return _argument(model, name) is not None


def _argument(model: Any, name: str) -> inspect.Parameter | None:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(inner.forward).parameters.get(name)


def _text_by_text(model: Any, tree: TokenTree) -> Tensor:
    """(N,): a sequence of prefix and text for each text, padded at its end, where a causal LM does
    not look."""
    texts = [tuple(tree.targets[edge] for edge in path if edge < len(tree.targets)) for path in tree.paths]
    start = int(tree.sources.min()) if len(tree.sources) else len(tree.tokens) - 1
    prefix = tree.tokens[: start + 1]
    device = next(model.parameters()).device
    by_text: dict[tuple[int, ...], Tensor] = {(): torch.zeros((), device=device)}
    different = sorted(set(texts) - {()}, key=len)
    for first in range(0, len(different), _ROWS):
        part = different[first : first + _ROWS]
        ids = np.zeros((len(part), start + max(map(len, part))), dtype=np.int64)
        ids[:, : start + 1] = prefix
        for row, text in enumerate(part):
            ids[row, start + 1 : start + len(text)] = text[:-1]
        logits = plain_logits(model, ids, start)
        for row, text in enumerate(part):
            targets = torch.as_tensor(np.asarray(text, dtype=np.int64), device=logits.device)
            by_text[text] = -cross_entropy(logits[row, : len(text)].float(), targets, reduction="sum")
    return (
        torch.stack([by_text[text].to(device) for text in texts]) if texts else torch.zeros(0, device=device)
    )
