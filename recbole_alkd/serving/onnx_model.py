"""``model.onnx``: a bundle as one ONNX graph, from a batch of sessions to their best items.

It has standard operators of opset 18 only. Inputs: ``items`` (batch, length) int64, numbers of items, oldest
first, padded with 0 on the right; ``blocked`` (batch, blocked) int64, numbers that never come, 0 for none;
``k`` (1,) int64; ``mask_session`` (1,) bool, whether items of the session never come. Outputs: ``top_items``
(batch, k) int64, 0 where there are no more, and ``top_scores`` (batch, k) float32, -inf there. An item's
number is its line in ``items.jsonl``, from 1.

A session of which nothing is known is served by popularity. Scores are added as in ``students.py``; of equal
ones the smaller number comes first. The numbers of the student stay in ``student.safetensors`` and
``items.safetensors``, which have to lie beside the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.serving.manifest import ENCODER, LOOKUP, ONNX, STUDENT
from recbole_alkd.serving.onnx_nodes import Nodes
from recbole_alkd.serving.students import PRIOR
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import TensorFile

_MINUS = -np.inf


def write_onnx(folder: Path, facts: Mapping[str, Any], n_items: int) -> Path:
    """Write ``model.onnx`` beside the files of a bundle.

    Args:
        folder: the bundle, or the folder that will be one. facts: ``student`` of its manifest. n_items: with
            the padding.

    Raises:
        AlkdError: the package onnx is missing.
    """
    try:
        import onnx
    except ImportError:
        raise AlkdError("model.onnx needs the package onnx: pip install 'recbole-alkd[onnx]'") from None
    nodes = Nodes(folder)
    add = {"table": _table, "embeddings": _embeddings, "encoder": _encoder, "scores": _scorer}[facts["kind"]]
    session = _Session(nodes)
    items, scores = add(nodes, session, facts, n_items)
    nodes.output("top_items", items, "INT64", ["batch", "top"])
    nodes.output("top_scores", scores, "FLOAT", ["batch", "top"])
    model = nodes.model(str(facts["backbone"]), __doc__ or "")
    file = folder / ONNX
    file.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(file))
    return file


class _Session:
    """The inputs, and what every student asks of them."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, add, number = nodes, nodes.add, nodes.number
        self.items = nodes.input("items", "INT64", ["batch", "length"])
        self.blocked = nodes.input("blocked", "INT64", ["batch", "blocked"])
        self.k = nodes.input("k", "INT64", [1])
        mask = nodes.input("mask_session", "BOOL", [1])
        shape = add("Shape", self.items)
        self.batch, self.width = (add("Slice", shape, number([k]), number([k + 1])) for k in range(2))
        self.known = add("Greater", self.items, number(0))
        self.length = add("ReduceSum", add("Cast", self.known, to=7), number([1]), keepdims=1)  # (B, 1)
        # (B, L + blocked): what never comes; 0, the padding, where nothing is left out
        masked = add("Where", mask, self.items, number(0))
        self.banned = add("Concat", masked, self.blocked, axis=1)

    def ages(self) -> str:
        """How many places before the newest item every place is, (B, L); below 0 for the padding."""
        add, number = self.nodes.add, self.nodes.number
        column = add("Range", number(0), add("Squeeze", self.width, number([0])), number(1))
        return add("Sub", add("Sub", self.length, number(1)), column)

    def newest(self, count: int) -> tuple[str, str]:
        """Items and ages of the newest ``count`` places, (B, L) each; both are 0 elsewhere."""
        add, number = self.nodes.add, self.nodes.number
        age = self.ages()
        inside = add("And", add("GreaterOrEqual", age, number(0)), add("Less", age, number(count)))
        return add("Where", inside, self.items, number(0)), add("Where", inside, age, number(0))


def _table(nodes: Nodes, session: _Session, facts: Mapping[str, Any], n_items: int) -> tuple[str, str]:
    """Rows of the sessions' items one after the other, summed by (session, neighbour)."""
    add, number, one = nodes.add, nodes.number, nodes.number([1])
    size = number(n_items)
    starts, neighbours, weights = (nodes.stored(STUDENT, name) for name in ("indptr", "indices", "weights"))
    speaking = len(TensorFile(nodes.folder / STUDENT)["recency"])
    items, age = session.newest(min(speaking, facts["max_length"]))
    items = add("Reshape", items, number([-1]))
    vote = add("Gather", nodes.stored(STUDENT, "recency"), add("Reshape", age, number([-1])))
    start = add("Cast", add("Gather", starts, items), to=7)
    degree = add("Sub", add("Cast", add("Gather", starts, add("Add", items, number(1))), to=7), start)
    end = add("CumSum", degree, number(0))
    first = add("Sub", end, degree)
    total = add("ReduceSum", degree, number([0]), keepdims=1)  # (1,) edges
    # the place in the batch that every edge is of: a mark where the edges of each begin, and the sum of the
    # marks
    marks = add("Expand", number([0]), add("Add", total, one))
    marks = add(
        "ScatterElements", marks, first, add("Expand", one, add("Shape", first)), axis=0, reduction="add"
    )
    slot = add("Sub", add("Slice", add("CumSum", marks, number(0)), number([0]), total), number(1))
    counting = add("Range", number(0), add("Squeeze", total, number([0])), number(1))
    edge = add("Add", counting, add("Gather", add("Sub", start, first), slot))
    target = add("Cast", add("Gather", neighbours, edge), to=7)
    votes = add("Mul", add("Cast", add("Gather", weights, edge), to=1), add("Gather", vote, slot))
    row = add("Div", slot, session.width)
    # beside the neighbours the most popular items: no other item can stand above the best of these
    banned = add("Slice", add("Shape", session.banned), one, number([2]))
    popular = add("Slice", nodes.stored(LOOKUP, "popular"), number([0]), add("Add", session.k, banned))
    popular = add("Cast", popular, to=7)
    rows = add("Range", number(0), add("Squeeze", session.batch, number([0])), number(1))
    others = add("Reshape", add("Add", add("Unsqueeze", add("Mul", rows, size), one), popular), number([-1]))
    keys = add("Concat", add("Add", add("Mul", row, size), target), others, axis=0)
    votes = add("Concat", votes, add("Expand", number([0.0], np.float32), add("Shape", others)), axis=0)
    key, _, place, _ = add("Unique", keys, outputs=4, sorted=1)
    row, item = add("Div", key, size), add("Mod", key, size)
    scores = add("ScatterElements", _prior(nodes, item), place, votes, axis=0, reduction="add")
    never = add("Equal", add("Gather", session.banned, row), add("Unsqueeze", item, one))
    never = add("ReduceMax", add("Cast", never, to=6), one, keepdims=0)
    scores = add("Where", add("Cast", never, to=9), number(_MINUS, np.float32), scores)
    # (batch, most candidates of a session): those of one session stand together, by rising number
    ones = add("Expand", one, add("Shape", row))
    held = add(
        "ScatterElements", add("Expand", number([0]), session.batch), row, ones, axis=0, reduction="add"
    )
    begin = add("CumSum", held, number(0), exclusive=1)
    column = add("Sub", add("Range", number(0), add("Size", row), number(1)), add("Gather", begin, row))
    shape = add("Concat", session.batch, add("ReduceMax", held, number([0]), keepdims=1), axis=0)
    where = add("Concat", add("Unsqueeze", row, one), add("Unsqueeze", column, one), axis=1)
    grid = add("ScatterND", add("Expand", number([_MINUS], np.float32), shape), where, scores)
    names = add("ScatterND", add("Expand", number([0]), shape), where, item)
    best, at = _top(nodes, session, grid)
    return _shown(nodes, add("GatherElements", names, at, axis=1), best), best


def _embeddings(nodes: Nodes, session: _Session, facts: Mapping[str, Any], n_items: int) -> tuple[str, str]:
    add, number = nodes.add, nodes.number
    items, age = session.newest(facts["max_length"])
    weight = add("Pow", number(facts["item_decay"], np.float32), add("Cast", age, to=1))
    weight = add("Where", add("Greater", items, number(0)), weight, number(0.0, np.float32))
    total = add("ReduceSum", weight, number([1]), keepdims=1)
    weight = add("Div", weight, add("Max", total, number(1e-30, np.float32)))
    given = add(
        "Mul", add("Gather", nodes.stored(STUDENT, "input"), items), add("Unsqueeze", weight, number([2]))
    )
    return _inner_product(nodes, session, add("ReduceSum", given, number([1]), keepdims=0))


def _encoder(nodes: Nodes, session: _Session, facts: Mapping[str, Any], n_items: int) -> tuple[str, str]:
    return _inner_product(nodes, session, _encoded(nodes, session, facts))


def _scorer(nodes: Nodes, session: _Session, facts: Mapping[str, Any], n_items: int) -> tuple[str, str]:
    return _best_of_all(nodes, session, _encoded(nodes, session, facts))


def _encoded(nodes: Nodes, session: _Session, facts: Mapping[str, Any]) -> str:
    """The graph of ``encoder.onnx``, before it the cut to its width."""
    import onnx

    add, number, width = nodes.add, nodes.number, facts["max_length"]
    encoder = onnx.compose.add_prefix(onnx.load(str(nodes.folder / ENCODER)), "encoder/")
    # a session of nothing is encoded as one of an item, and served by popularity in the end
    length = add("Max", add("Min", session.length, number(width)), number(1))
    start = add("Max", add("Sub", session.length, number(width)), number(0))
    padding = add("Expand", number([0]), add("Concat", session.batch, number([width]), axis=0))
    padded = add("Concat", session.items, padding, axis=1)
    items = add("GatherElements", padded, add("Add", start, number(np.arange(width))), axis=1)
    asked = {one.name for one in encoder.graph.input}
    for name, value in (("items", items), ("length", add("Squeeze", length, number([1])))):
        if f"encoder/{name}" in asked:
            nodes.rename(value, f"encoder/{name}")
    nodes.take(encoder.graph)
    return "encoder/session"


def _inner_product(nodes: Nodes, session: _Session, vectors: str) -> tuple[str, str]:
    """The best items by the inner product of session vectors (B, d) and all items, (B, n_items)."""
    return _best_of_all(nodes, session, nodes.add("Gemm", vectors, nodes.stored(STUDENT, "output"), transB=1))


def _best_of_all(nodes: Nodes, session: _Session, scores: str) -> tuple[str, str]:
    """The best items by the scores of all, (B, n_items); by popularity where nothing is known of a
    session."""
    add, number = nodes.add, nodes.number
    every = add("Cast", nodes.stored(LOOKUP, "counts"), to=1)
    prior = add("Mul", every, number(PRIOR, np.float32))
    scores = add("Where", add("Greater", session.length, number(0)), scores, prior)
    zero = add(
        "Expand", number([0]), add("Concat", session.batch, number([1]), axis=0)
    )  # the padding never comes
    banned = add("Concat", zero, session.banned, axis=1)
    least = add("Expand", number([_MINUS], np.float32), add("Shape", banned))
    best, items = _top(nodes, session, add("ScatterElements", scores, banned, least, axis=1))
    return _shown(nodes, items, best), best


def _prior(nodes: Nodes, items: str) -> str:
    count = nodes.add("Cast", nodes.add("Gather", nodes.stored(LOOKUP, "counts"), items), to=1)
    return nodes.add("Mul", count, nodes.number(PRIOR, np.float32))


def _top(nodes: Nodes, session: _Session, scores: str) -> tuple[str, str]:
    """The k largest of every row, and where they stand."""
    there = nodes.add("Slice", nodes.add("Shape", scores), nodes.number([1]), nodes.number([2]))
    best, at = nodes.add(
        "TopK", scores, nodes.add("Min", session.k, there), outputs=2, axis=1, largest=1, sorted=1
    )
    return best, at


def _shown(nodes: Nodes, items: str, scores: str) -> str:
    left_out = nodes.add("Equal", scores, nodes.number(_MINUS, np.float32))
    return nodes.add("Where", left_out, nodes.number(0), items)
