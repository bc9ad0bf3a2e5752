"""What scores, taken out of torch: the numbers of a table or of embeddings, or a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.model.backbone import Backbone, view_and_model
from recbole_alkd.serving.make_onnx import write_encoder
from recbole_alkd.serving.manifest import ENCODER, STUDENT
from recbole_alkd.tensors import write_tensors


def view_of(model: Any) -> tuple[Backbone, np.ndarray | None]:
    """The backbone of a model, and what late fusion serves beside it, (n_items, d)."""
    if hasattr(model, "view"):
        served = getattr(getattr(model, "titles", None), "vectors", None)
        return model.view, None if served is None else served.detach().cpu().numpy()
    view, _ = view_and_model(type(model).__name__)
    return view(model), None


def write_student(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    """Write what scores, and say of what kind it is.

    Args:
        folder: of the bundle. view: as ``view_of`` gives it, and ``titles``, (n_items, d) or None.
        width: how long sessions of training were at most.

    Raises:
        AlkdError: the backbone cannot be taken out of torch.
    """
    return {"kind": view.served_as, **_WRITERS[view.served_as](folder, view, titles, width)}


def _write_table(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    import torch

    model = view.model
    # as torch computes the powers, so that scores are the same to the last bit
    recency = (model.decay ** torch.arange(model.last_items, device=model.decay.device)).float()
    tensors = {name: getattr(model, name).detach().cpu().numpy() for name in ("indptr", "indices", "weights")}
    write_tensors(folder / STUDENT, {**tensors, "recency": recency.cpu().numpy()})
    return {
        "edges": len(tensors["indices"]),
        "last_items": model.last_items,
        "decay": float(model.decay),
    }


def _write_scores(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    write_encoder(folder / ENCODER, view, None, width)
    write_tensors(folder / STUDENT, {"items": np.array([int(view.model.n_items)])})
    return {}


def _write_embeddings(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    given = _beside(view.model.input_embedding.weight, titles)
    output = _beside(view.item_table(), titles)
    write_tensors(folder / STUDENT, {"input": given, "output": output})
    return {**_sizes(output, titles), "item_decay": float(view.model.item_decay)}


def _write_encoded(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    output = _beside(view.item_table(), titles)
    write_encoder(folder / ENCODER, view, titles, width)
    write_tensors(folder / STUDENT, {"output": output})
    return _sizes(output, titles)


def _beside(table: Any, titles: np.ndarray | None) -> np.ndarray:
    """A table of item vectors, (n_items, d), with those of titles to the right of it."""
    vectors = table.detach().cpu().float().numpy()
    return vectors if titles is None else np.concatenate([vectors, titles], axis=1)


def _sizes(output: np.ndarray, titles: np.ndarray | None) -> dict[str, int]:
    return {"size": output.shape[1], "title_size": 0 if titles is None else titles.shape[1]}


# what a backbone says of how it is served -> what writes it
_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "table": _write_table,
    "embeddings": _write_embeddings,
    "encoder": _write_encoded,
    "scores": _write_scores,
}
