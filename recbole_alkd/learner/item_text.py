"""The titles of one run's items as vectors, for everything in training that looks at them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.data.titles import clean_title, titles_of
from recbole_alkd.llm.text_vectors import TextVectors, text_vectors
from recbole_alkd.model.edges import Weighing, nearest_edges, permuted
from recbole_alkd.settings.groups import TextSettings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import settings_of


class ItemText:
    """Title vectors of a data set's items, made (or read from the cache beside the label store) when they are
    first asked for.

    Args:
        text: the encoder and what is made of its vectors; ``item_text`` is not None.
        dataset: the training part; its Config says where the data lies.

    Attributes:
        made: None until there are vectors.
    """

    def __init__(self, text: TextSettings, dataset: Any) -> None:
        assert text.item_text is not None
        self.text, self.dataset = text, dataset
        self.made: TextVectors | None = None

    @property
    def _tokens(self) -> list[str]:
        return np.asarray(self.dataset.field2id_token[self.dataset.iid_field])[1:].tolist()

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item token -> title. AlkdError as ``load_titles`` has it."""
        return titles_of(self.dataset.config, self.dataset.iid_field, self._tokens)

    @cached_property
    def vectors(self) -> np.ndarray:
        """(n_items, d) float32; 0 for the padding and for items without a title.
        ``item_text_permuted`` exchanges the items."""
        assert self.text.item_text is not None
        config = self.dataset.config
        settings = settings_of(config)
        titles, tokens = self.titles, self._tokens
        named = [k for k, token in enumerate(tokens, 1) if titles[token] != clean_title(f"item {token}")]
        cache = Path(settings.teacher.label_store).parent
        texts = [titles[tokens[k - 1]] for k in named]
        self.made = text_vectors(
            texts, self.text.item_text, self.text.item_text_layer, cache, str(config["device"])
        )
        vectors = np.zeros((len(tokens) + 1, self.made.vectors.shape[1]), dtype=np.float32)
        vectors[named] = self.made.vectors
        if self.text.item_text_permuted:
            vectors = permuted(
                vectors, np.random.default_rng(stage_seed(config["seed"], "item_text_permuted"))
            )
        return vectors

    @cached_property
    def neighbors(self) -> csr_array:
        """Edges (n_items, n_items) from each item to those with the nearest titles (``nearest_edges``)."""
        return nearest_edges(self.vectors, self.text.item_text_neighbors, self.text.item_text_similarity)

    def edges(self, weighing: Weighing) -> csr_array:
        """``neighbors`` for a table; a title is as near however popular its item is."""
        return self.neighbors

    def bill(self) -> dict[str, Any]:
        """The settings, and what the vectors took when they were made (``reused``: by an earlier run)."""
        _ = self.vectors
        assert self.made is not None
        cost = {key: getattr(self.made, key) for key in ("tokens", "seconds", "reused")}
        return {**self.text.flat(), **cost}
