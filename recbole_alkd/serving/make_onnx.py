"""Taking a recommender out of torch: an ONNX graph from a session's items to its vector, or to the scores of
all items where there are no vectors, proved on sessions of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.settings.error import AlkdError

OPSET = 18
_PROVED = 64  # random sessions on which the graph has to give the vectors of the model
_CLOSE = 1e-4
# what the author of a model without vectors can do
_HOW = "; `scores` has to compute with torch alone and take sizes from `item_seq.shape`, not `len(item_seq)`"
# Known without trying; what else cannot be exported is found by the proof.
_NEVER = {
    "FEARec": "ONNX has no operator for its Fourier transform",
    "SRGNN": "it builds the graph of a session with numpy",
    "GCSAN": "it builds the graph of a session with numpy",
    "SLIST": "its sum over weighted rows of a matrix becomes a loop that ONNX refuses",
    "VSTAN": "it compares a session with all training sessions, in numpy",
}


def write_encoder(file: Path, view: Backbone, titles: np.ndarray | None, width: int) -> Path:
    """Write the graph ``items`` (B, width) int64, ``length`` (B,) int64 (if the model asks) -> ``session``
    (B, d) float32; of a backbone without vectors ``session`` is (B, n_items), the scores.

    Args:
        view: a backbone. titles: (n_items, d) that late fusion serves beside it, or None.
        width: how long the sessions of training were at most.

    Raises:
        AlkdError: the backbone cannot be exported, by name: ONNX has no operator for a step of it, or its
        graph gives other vectors
            (numpy inside ``forward`` becomes a constant), or a package is missing.
    """
    import torch

    name, device = type(view.model).__name__, view.device
    if name in _NEVER:
        raise AlkdError(f"{name} cannot be exported to ONNX: {_NEVER[name]}")
    wrapped = _wrapped(view, titles, width)
    n_items = int(view.model.n_items)
    items, length = _sessions(n_items, width)
    try:
        import onnxruntime  # noqa: F401

        with _quiet(), torch.no_grad():
            torch.onnx.export(
                wrapped, tuple(torch.from_numpy(one[:3]).to(device) for one in (items, length)), str(file),
                input_names=["items", "length"], output_names=["session"], opset_version=OPSET, dynamo=False,
                dynamic_axes={"items": {0: "batch"}, "length": {0: "batch"}, "session": {0: "batch"}},
            )  # fmt: skip
    except ImportError as error:
        raise AlkdError(
            f"{name}: its bundle needs ONNX ({error.name} is missing): pip install 'recbole-alkd[onnx]'"
        ) from None
    except Exception as error:  # of many types, one for each way in which a model cannot be traced
        words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise AlkdError(f"{name} cannot be exported to ONNX: {words[:200]}") from None
    with torch.no_grad():
        wanted = (
            wrapped(torch.from_numpy(items).to(device), torch.from_numpy(length).to(device)).cpu().numpy()
        )
    _prove(file, name, items, length, wanted, _HOW if view.served_as == "scores" else "")
    return file


def _prove(
    file: Path, name: str, items: np.ndarray, length: np.ndarray, wanted: np.ndarray, how: str
) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        graph = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        given = {"items": items, "length": length}
        computed = graph.run(["session"], {one.name: given[one.name] for one in graph.get_inputs()})[0]
    except Exception as error:
        words = str(error).splitlines()[0][:200]
        raise AlkdError(f"{name} cannot be exported to ONNX: {words}{how}") from None
    off = float(np.abs(computed - wanted).max()) if computed.shape == wanted.shape else np.inf
    if not off <= _CLOSE * max(1.0, float(np.abs(wanted).max())):
        raise AlkdError(
            f"{name} cannot be exported to ONNX: its graph is off by {off:.2g} on other sessions than those "
            f"it was made from, as it is where a model computes with numpy{how}"
        )


def _wrapped(view: Backbone, titles: np.ndarray | None, width: int) -> Any:
    import torch
    from torch import nn

    from recbole_alkd.model.session_model import item_weights

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = view.model
            self.titles = (
                None if titles is None else nn.Parameter(torch.from_numpy(titles).to(view.device), False)
            )

        def forward(self, items: Any, length: Any) -> Any:
            if view.served_as == "scores":
                return view.scores(items, length)
            session = view.encode(items, length)
            if self.titles is None:
                return session
            weights = item_weights(items, length, getattr(view.model, "item_decay", 1.0))
            return torch.cat([session, (weights.unsqueeze(2) * self.titles[items]).sum(1)], dim=1)

    return Wrapped().eval()


def _sessions(n_items: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random sessions of all lengths, padded with 0: (B, width), (B,)."""
    rng = np.random.default_rng(0)
    length = np.concatenate([[1, width], rng.integers(1, width + 1, size=_PROVED - 2)])
    items = rng.integers(1, n_items, size=(_PROVED, width))
    items[np.arange(width) >= length[:, None]] = 0
    return items, length


@contextlib.contextmanager
def _quiet() -> Any:
    """Torch warns of every branch that it traces, which the proof settles."""
    before = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(before)
