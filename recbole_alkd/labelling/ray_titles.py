"""``label_engine: ray`` for titles: actors of a Ray cluster encode them, a batch at a time.

The driver keeps the cache of vectors. A batch is the same as in one process, so the vectors are too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from recbole_alkd.labelling.ray_actor import check_version
from recbole_alkd.labelling.ray_actors import ActorKind, RayActors
from recbole_alkd.labels.network import WORKER
from recbole_alkd.llm.models import model_identity
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings

Batch = tuple[int, list[str]]


class RayEncoder:
    """One encoder of titles on a node. ``material``: encoder, layer, device, identity and version."""

    def __init__(self, material: dict[str, Any]) -> None:
        os.environ[WORKER] = "1"
        self._material = material
        self._encoder: Any = None

    def load(self) -> None:
        """Load the encoder.

        Raises:
            AlkdError: this node has another version of this package, or other weights.
        """
        from recbole_alkd.llm.text_vectors import TitleEncoder

        material = self._material
        check_version(material["version"])
        identity = model_identity(material["encoder"])
        if identity != material["identity"]:
            raise AlkdError(
                f"item_text: {material['encoder']!r} is not the same here as in the driver "
                f"({identity} and {material['identity']}); needed: the same weights on every node"
            )
        self._encoder = TitleEncoder(material["encoder"], material["layer"], material["device"])

    def answer(self, batches: Sequence[Batch]) -> list[tuple[int, np.ndarray, int]]:
        """The number of each batch, its vectors and its tokens."""
        return [(number, *self._encoder.means(texts)) for number, texts in batches]


class RayTitles:
    """Encodes batches of titles on a cluster; see ``Elsewhere`` of ``text_vectors.py``.

    Args:
        settings: ``ray_address``, and ``llm_threads``, the CPUs of an actor.
        device: of the driver; where it is a GPU, an actor takes one of its node's.
    """

    def __init__(self, settings: TeacherSettings, device: str) -> None:
        self._settings, self._gpu = settings, device.partition(":")[0] == "cuda"

    def __call__(
        self, encoder: str, layer: int | None, batches: list[list[str]]
    ) -> Iterator[tuple[int, np.ndarray, int]]:
        import recbole_alkd

        material = {
            "encoder": encoder,
            "layer": layer,
            "device": "cuda" if self._gpu else "cpu",
            "identity": model_identity(encoder),
            "version": recbole_alkd.__version__,
        }
        kind = ActorKind(RayEncoder, material, self._settings.llm_threads, self._gpu)
        actors: RayActors[Batch] = RayActors(
            kind, self._settings.ray_address, lambda batch: str(batch[0]), lambda batch: repr(batch[1][0])
        )
        try:
            for _, encoded in actors.answers(deque(enumerate(batches)), _first):
                yield from encoded
        finally:
            actors.close()


def _first(waiting: deque[Batch]) -> list[Batch]:
    return [waiting.popleft()] if waiting else []
