"""The kinds of students that a bundle can hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.serving.graphs import Encoder, Scorer
from recbole_alkd.serving.manifest import MANIFEST
from recbole_alkd.serving.students import Embeddings, Student, Table
from recbole_alkd.settings.error import AlkdError


def read_student(
    folder: Path, facts: Mapping[str, Any], counts: np.ndarray, popular: np.ndarray, threads: int
) -> Student:
    """The student that a manifest describes.

    Args:
        folder: the bundle. facts: ``student`` of its manifest. counts, popular: of its items. threads: of
            ONNX Runtime.

    Raises:
        AlkdError: a kind that is not known, or numbers that are none.
    """
    place, kind = folder / MANIFEST, facts.get("kind")
    if kind == "table":
        return Table(folder, counts, popular)
    if kind == "embeddings":
        decay, title_size = facts.get("item_decay"), facts.get("title_size")
        if (
            not isinstance(decay, (int, float))
            or not 0 < decay <= 1
            or not isinstance(title_size, int)
            or title_size < 0
        ):
            raise AlkdError(
                f"{place}: item_decay {decay!r}, title_size {title_size!r}; the bundle is damaged"
            )
        return Embeddings(folder, counts, popular, float(decay), title_size)
    if kind in ("encoder", "scores"):
        graph = Encoder if kind == "encoder" else Scorer
        return graph(folder, counts, popular, facts["max_length"], threads)
    raise AlkdError(f"{place}: a student of kind {kind!r}; allowed: table | embeddings | encoder | scores")
