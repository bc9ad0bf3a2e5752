"""The titles of one run's items as vectors, for everything in training that looks at them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.data.item_vectors import read_item_vectors
from recbole_alkd.data.titles import clean_title, titles_of
from recbole_alkd.learner.item_pairs import ItemPairs
from recbole_alkd.llm.text_vectors import TextVectors, text_vectors
from recbole_alkd.llm.tuned_encoder import Tuning
from recbole_alkd.model.edges import EdgeMaker, Weighing, nearest_edges, permuted
from recbole_alkd.model.text_axes import in_axes, whitened
from recbole_alkd.model.text_map import TextMap, learnt_map
from recbole_alkd.settings.groups import TextSettings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.settings.rules import is_vector_file


class ItemText:
    """Title vectors of a data set's items, made (or read from the cache beside the label store) when they are
    first asked for.

    Args:
        text: the encoder and what is made of its vectors; ``item_text`` is not None.
        dataset: the training part; its Config says where the data lies.
        valid: the validation part, by which what is learnt here stops; may be None.

    Attributes:
        made: None until there are vectors.
    """

    def __init__(self, text: TextSettings, dataset: Any, valid: Any = None) -> None:
        assert text.item_text is not None
        self.text, self.dataset = text, dataset
        self.pairs = ItemPairs(dataset, valid)
        self.made: TextVectors | None = None

    @property
    def _tokens(self) -> list[str]:
        return np.asarray(self.dataset.field2id_token[self.dataset.iid_field])[1:].tolist()

    def _seed(self, name: str) -> int:
        return stage_seed(self.dataset.config["seed"], name)

    def check(self) -> None:
        """AlkdError where there are no titles or vectors to read, before anything is trained."""
        _ = self._given if is_vector_file(str(self.text.item_text)) else self.titles

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item token -> title. AlkdError as ``load_titles`` has it."""
        return titles_of(self.dataset.config, self.dataset.iid_field, self._tokens)

    @cached_property
    def vectors(self) -> np.ndarray:
        """(n_items, d) float32; 0 for the padding and for items without a title. ``item_text_permuted``
        exchanges the items, before anything is learnt from them; then come ``item_text_whiten`` and
        ``item_text_graph``.
        """
        return in_axes(self._whole, self.text, self.pairs.graph if self.text.item_text_graph else None)

    @cached_property
    def _whole(self) -> np.ndarray:
        """The same before their axes are chosen."""
        own = is_vector_file(str(self.text.item_text))
        vectors = self._given if own else self._encoded
        # a tuned encoder has read titles that were exchanged already, since it could learn them by heart
        if self.text.item_text_permuted and not self.text.item_text_lora:
            vectors = permuted(vectors, np.random.default_rng(self._seed("item_text_permuted")))
        return vectors

    @cached_property
    def _given(self) -> np.ndarray:
        """Vectors of the user's own, (n_items, d)."""
        vectors = read_item_vectors(str(self.text.item_text), self._tokens)
        self.made = TextVectors(vectors, 0, 0.0)
        return np.concatenate([np.zeros_like(vectors[:1]), vectors])

    @cached_property
    def _encoded(self) -> np.ndarray:
        """Vectors of titles, (n_items, d)."""
        assert self.text.item_text is not None
        config = self.dataset.config
        settings = settings_of(config)
        titles, tokens = self.titles, self._tokens
        named = [k for k, token in enumerate(tokens, 1) if titles[token] != clean_title(f"item {token}")]
        cache = Path(settings.teacher.label_store).parent
        texts, tuning = [titles[tokens[k - 1]] for k in named], None
        if self.text.item_text_lora:
            if self.text.item_text_permuted:
                rng = np.random.default_rng(self._seed("item_text_permuted"))
                order = permuted(np.arange(1, len(texts) + 1)[:, None], rng)[:, 0] - 1
                texts = [texts[k] for k in order]
            pairs, valid = self.pairs.among(named)
            tuning = Tuning(pairs, valid, self.text.item_text_lora, self._seed("item_text_lora"))
        device = str(config["device"])
        elsewhere = None
        if settings.teacher.label_engine == "ray":
            from recbole_alkd.labelling.ray_titles import RayTitles

            elsewhere = RayTitles(settings.teacher, device)
        self.made = text_vectors(
            texts, self.text.item_text, self.text.item_text_layer, cache, device, tuning, elsewhere
        )
        vectors = np.zeros((len(tokens) + 1, self.made.vectors.shape[1]), dtype=np.float32)
        vectors[named] = self.made.vectors
        return vectors

    @cached_property
    def mapped(self) -> TextMap:
        """The map of ``item_text_map``."""
        size = self.text.item_text_map
        assert size is not None
        vectors = self.vectors
        if vectors is self._whole:
            vectors = whitened(vectors, 0.0)  # centred, leading coordinates first
        return learnt_map(vectors, self.pairs.together, self.pairs.valid, size, self._seed("item_text_map"))

    @cached_property
    def neighbors(self) -> csr_array:
        """Edges (n_items, n_items) from each item to those with the nearest titles (``nearest_edges``), or to
        those that most probably go with it under the learnt map.
        """
        if self.text.item_text_map:
            return self.mapped.edges(self.text.item_text_neighbors)
        return nearest_edges(self.vectors, self.text.item_text_neighbors, self.text.item_text_similarity)

    def edges(self, weighing: Weighing) -> csr_array:
        """``neighbors`` for a table. A title is as near however popular its item is; what a learnt map holds
        probable is discounted by the neighbours' popularity as the table's own counts are.
        """
        if not self.text.item_text_map:
            return self.neighbors
        discount = (weighing.counts + 5.0) ** weighing.target_exponent
        return self.mapped.edges(self.text.item_text_neighbors, discount)

    def borrowed(self, weighing: Weighing) -> csr_array:
        """The counted neighbours of items with like titles, for a table."""
        return weighing.borrow(self.neighbors, self.text.item_text_neighbors)

    def edge_makers(self) -> dict[str, EdgeMaker]:
        """The sets of edges that ``item_text_edges`` names."""
        makers: dict[str, EdgeMaker] = {"text": self.edges, "text_neighbors": self.borrowed}
        wanted = {"titles": ("text",), "neighbors": ("text_neighbors",), "both": ("text", "text_neighbors")}
        return {name: makers[name] for name in wanted[self.text.item_text_edges]}

    def bill(self) -> dict[str, Any]:
        """The settings, what the vectors took when they were made (``reused``: by an earlier run), and what
        was learnt.
        """
        _ = self.vectors
        assert self.made is not None
        facts: dict[str, Any] = {key: getattr(self.made, key) for key in ("tokens", "seconds", "reused")}
        if self.made.step is not None:
            facts |= {"lora_step": self.made.step, "lora_losses": list(self.made.losses)}
        if self.text.item_text_map:
            facts |= {"map_round": self.mapped.round, "map_losses": list(self.mapped.losses)}
        return {**self.text.flat(), **facts}
