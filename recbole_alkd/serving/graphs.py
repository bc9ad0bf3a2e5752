"""The students of a bundle that ONNX Runtime runs: encoders of sessions, and whole lists of scores."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np

from recbole_alkd.serving.manifest import ENCODER, STUDENT
from recbole_alkd.serving.students import Part, Student
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import TensorFile


class Graph:
    """``encoder.onnx``: sessions of a fixed width, padded with 0 on the right, to what it makes of each.

    Raises:
        AlkdError: ONNX Runtime is not installed, or cannot read the graph.
    """

    def __init__(self, folder: Path, width: int, threads: int) -> None:
        self.file, self.width = folder / ENCODER, width
        try:
            import onnxruntime
        except ImportError:
            raise AlkdError(f"{folder}: its backbone runs in ONNX Runtime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 4
        try:
            graph = onnxruntime.InferenceSession(
                str(self.file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of many types, none of which is public
            raise AlkdError(
                f"{self.file}: ONNX Runtime cannot read it ({str(error).splitlines()[0]})"
            ) from None
        self._run, self._inputs = graph.run, {one.name for one in graph.get_inputs()}

    def __call__(self, sessions: list[np.ndarray]) -> np.ndarray:
        """(B, d) float32 of sessions that are not empty."""
        padded = np.zeros((len(sessions), self.width), dtype=np.int64)
        for row, session in zip(padded, sessions, strict=True):
            row[: len(session)] = session
        lengths = np.array([len(session) for session in sessions], dtype=np.int64)
        given = {"items": padded, "length": lengths}
        return self._run(["session"], {name: given[name] for name in self._inputs})[0]


class _GraphStudent(Student):
    """A student that is no sum over items: a part of a score is what it loses without an item."""

    kind = "learned"

    @abstractmethod
    def _of_item(self, sessions: list[np.ndarray], item: int) -> list[float]:
        """Scores of one item after every session."""

    def parts(self, session: np.ndarray, item: int) -> list[Part]:
        """What the score loses without each item of the session, and what is left of it, which no single one
        gives."""
        without = [np.delete(session, place) for place in range(len(session))]
        scores = self._of_item([session, *(one for one in without if len(one))], item)
        if len(session) == 1:
            return [Part(0, self.kind, scores[0])]
        parts = [Part(place, self.kind, scores[0] - less) for place, less in enumerate(scores[1:])]
        return [*parts, Part(None, "together", scores[0] - sum(part.weight for part in parts))]


class Encoder(_GraphStudent):
    """A backbone whose session vectors come from a graph, and an inner product with those of items."""

    def __init__(
        self, folder: Path, counts: np.ndarray, popular: np.ndarray, width: int, threads: int
    ) -> None:
        super().__init__(counts, popular)
        self.output, self._vectors = TensorFile(folder / STUDENT)["output"], Graph(folder, width, threads)
        if self.output.ndim != 2 or len(self.output) != self.n_items:
            raise AlkdError(
                f"{folder / STUDENT}: its vectors are not of {self.n_items} items; the bundle is damaged"
            )

    def scores(self, session: np.ndarray) -> np.ndarray:
        return self.output @ self._vectors([session])[0]

    def _of_item(self, sessions: list[np.ndarray], item: int) -> list[float]:
        vectors = self._vectors(sessions).astype(np.float64)
        return (vectors @ self.output[item].astype(np.float64)).tolist()


class Scorer(_GraphStudent):
    """A recommender without vectors whose graph gives the scores of all items."""

    kind = "counted"

    def __init__(
        self, folder: Path, counts: np.ndarray, popular: np.ndarray, width: int, threads: int
    ) -> None:
        super().__init__(counts, popular)
        self._every_score = Graph(folder, width, threads)
        items = TensorFile(folder / STUDENT)["items"]
        if items.shape != (1,) or items[0] != self.n_items:
            raise AlkdError(
                f"{folder / STUDENT}: its scores are not of {self.n_items} items; the bundle is damaged"
            )

    def scores(self, session: np.ndarray) -> np.ndarray:
        return self._every_score([session])[0]

    def _of_item(self, sessions: list[np.ndarray], item: int) -> list[float]:
        return self._every_score(sessions)[:, item].astype(np.float64).tolist()
