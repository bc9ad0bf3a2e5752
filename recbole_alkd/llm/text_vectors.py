"""Vectors of item titles: one interface over TF-IDF, sentence encoders and language models;
kept in a file, never made twice.

A title is short and there are few of them, so what an LLM knows of *items* costs a small part of what its
rankings of sessions cost, and nothing has to be generated.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alkd.files import write_npz
from recbole_alkd.llm.bundled import BUNDLED
from recbole_alkd.llm.model_kind import positions
from recbole_alkd.llm.models import load_text_model, model_identity
from recbole_alkd.llm.tuned_encoder import Tuning, tune
from recbole_alkd.settings.error import AlkdError

TFIDF = "tfidf"
TFIDF_SIZE = 128  # coordinates that are kept of TF-IDF vectors
BUNDLED_LAYER = 10  # of 30; later layers of a language model speak of the next token rather than of this one
MAX_TOKENS = 64
_TITLES_AT_ONCE = 64

# Encoder, layer, batches of texts -> the number of each batch, its vectors (m, d) float32 and its tokens, in
# any order
Elsewhere = Callable[[str, "int | None", list[list[str]]], Iterator[tuple[int, np.ndarray, int]]]


@dataclass(frozen=True)
class TextVectors:
    """Vectors (m, d) float32 of m texts; ``tokens`` a model read and ``seconds`` it took, also when they are
    ``reused``.

    Of a tuned encoder ``step`` is the one that was kept (0: the frozen encoder) and ``losses`` are those on
    validation pairs.
    """

    vectors: np.ndarray
    tokens: int
    seconds: float
    reused: bool = False
    step: int | None = None
    losses: tuple[float, ...] = ()


def text_vectors(
    texts: Sequence[str],
    encoder: str,
    layer: int | None,
    cache: Path,
    device: str = "cpu",
    tuning: Tuning | None = None,
    elsewhere: Elsewhere | None = None,
) -> TextVectors:
    """The vectors of texts, from ``cache`` if they were made before.

    Args:
        texts: cleaned titles; equal ones are encoded once.
        encoder: ``tfidf``, or what ``load_text_model`` takes.
        layer: hidden layer whose mean over the tokens is the vector, 0 are the embeddings. None:
            ``BUNDLED_LAYER`` for the bundled model, otherwise the last one, which is what sentence encoders
            are trained for.
        cache: folder of the files; one file for the same texts, encoder, layer and tuning.
        tuning: pairs of ``texts`` that the encoder is tuned on before it makes the vectors.
        elsewhere: other processes that encode batches of texts as ``TitleEncoder`` does; a tuned encoder is
            trained here, and encodes here.

    Raises:
        AlkdError: the encoder cannot be had; a layer that it does not have.
    """
    if layer is not None and encoder == TFIDF:
        raise AlkdError(f"item_text_layer: {layer} has no meaning for item_text: {TFIDF}; leave it out")
    if layer is None and encoder == BUNDLED:
        layer = BUNDLED_LAYER
    different = sorted(set(texts))
    place = {text: k for k, text in enumerate(different)}
    if tuning and encoder == TFIDF:
        raise AlkdError(f"item_text_lora: {tuning.steps} has no meaning for item_text: {TFIDF}; leave it out")
    facts = [model_identity(encoder), layer, TFIDF_SIZE, MAX_TOKENS, different]
    if tuning:
        at = np.array([place[text] for text in texts], dtype=np.int64)
        tuning = replace(tuning, pairs=_places(at, tuning.pairs), valid=_places(at, tuning.valid))
        facts.append(_identity(tuning))
    content = json.dumps(facts)
    file = cache / f"text-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npz"
    unique = _read(file, len(different))
    if unique is None:
        begin = time.perf_counter()
        if encoder == TFIDF:
            vectors, tokens = _tfidf(different)
            unique = TextVectors(vectors.astype(np.float32), tokens, 0.0)
        else:
            unique = _by_model(different, encoder, layer, device, tuning, elsewhere)
        unique = replace(unique, seconds=round(time.perf_counter() - begin, 3))
        _write(file, unique)
    return replace(unique, vectors=unique.vectors[[place[text] for text in texts]])


def _tfidf(texts: list[str]) -> tuple[np.ndarray, int]:
    """TF-IDF of character 3- to 5-grams within words, reduced to ``TFIDF_SIZE`` by a singular value
    decomposition."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        matrix = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float64
        ).fit_transform(texts)
    except ValueError:  # scikit-learn's word for a vocabulary without a single n-gram
        raise AlkdError(f"item_text: {TFIDF!r} finds no title with a word in this data set") from None
    if min(matrix.shape) <= TFIDF_SIZE:
        return matrix.toarray(), 0
    return TruncatedSVD(TFIDF_SIZE, random_state=0).fit_transform(matrix), 0


class TitleEncoder:
    """A model that reads titles: the mean hidden state of every text at ``layer``."""

    def __init__(self, encoder: str, layer: int | None, device: str) -> None:
        self.model, self._tokenizer = load_text_model(encoder, device, layer)
        self._layer, self._device = -1 if layer is None else layer, device
        if self._tokenizer.pad_token is None:  # whatever stands there is masked
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)
        self._tokenizer.padding_side = "right"
        self._longest = min(MAX_TOKENS, positions(self.model.config) or MAX_TOKENS)

    def encode(self, model: Any, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        """Vectors (m, d) by ``model``, which is this one or a tuned one, and the tokens that were read."""
        batch = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=self._longest
        )
        mask = batch["attention_mask"].to(self._device)
        hidden = model(
            input_ids=batch["input_ids"].to(self._device), attention_mask=mask, output_hidden_states=True
        ).hidden_states
        weight = mask.unsqueeze(2).float()
        mean = (hidden[self._layer].float() * weight).sum(1) / weight.sum(1).clamp_min(1)
        return mean, int(mask.sum())

    @torch.no_grad()
    def means(self, texts: Sequence[str], model: Any = None) -> tuple[np.ndarray, int]:
        """The same as an array; by this model when ``model`` is None."""
        mean, tokens = self.encode(self.model if model is None else model, texts)
        return mean.cpu().numpy(), tokens


def _by_model(
    texts: list[str],
    encoder: str,
    layer: int | None,
    device: str,
    tuning: Tuning | None,
    elsewhere: Elsewhere | None,
) -> TextVectors:
    if elsewhere and tuning is None:
        return TextVectors(*_in_batches(texts, lambda batches: elsewhere(encoder, layer, batches)), 0.0)
    loaded = TitleEncoder(encoder, layer, device)

    def by(model: Any) -> tuple[np.ndarray, int]:
        return _in_batches(
            texts, lambda batches: ((k, *loaded.means(some, model)) for k, some in enumerate(batches))
        )

    vectors, tokens = by(loaded.model)
    if tuning is None:
        return TextVectors(vectors, tokens, 0.0)
    centre = torch.from_numpy(vectors.mean(0)).to(device)
    model, tuned = tune(loaded.model, texts, tuning, loaded.encode, centre)
    if tuned.step:
        vectors, again = by(model)
        tokens += again
    return TextVectors(vectors, tokens + tuned.tokens, 0.0, step=tuned.step, losses=tuned.losses)


def _in_batches(
    texts: list[str], encoded: Callable[[list[list[str]]], Iterator[tuple[int, np.ndarray, int]]]
) -> tuple[np.ndarray, int]:
    """Vectors of all texts, (m, d) float32, and the number of tokens. Every batch is the same, whoever
    encodes it.
    """
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # texts of one length need little padding
    parts = [order[start : start + _TITLES_AT_ONCE] for start in range(0, len(order), _TITLES_AT_ONCE)]
    vectors, tokens = np.zeros((0, 0), dtype=np.float32), 0
    for number, means, read in encoded([[texts[k] for k in part] for part in parts]):
        if not vectors.size:
            vectors = np.zeros((len(texts), means.shape[1]), dtype=np.float32)
        vectors[parts[number]] = means
        tokens += read
    return vectors, tokens


def _places(at: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs among the different texts; those of one text twice say nothing and are left out."""
    source, target = at[pairs[0]], at[pairs[1]]
    kept = source != target
    return source[kept], target[kept]


def _identity(tuning: Tuning) -> list[Any]:
    digest = hashlib.sha256()
    for one in (*tuning.pairs, *tuning.valid):
        digest.update(np.ascontiguousarray(one, dtype=np.int64).tobytes())
    return [digest.hexdigest(), tuning.steps, tuning.seed]


def _read(file: Path, count: int) -> TextVectors | None:
    """What ``_write`` kept, or None when there is no such file or it is damaged."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as kept:
            vectors = kept["vectors"]
            cached = TextVectors(vectors, int(kept["tokens"]), float(kept["seconds"]), reused=True)
            if "step" in kept:
                cached = replace(cached, step=int(kept["step"]), losses=tuple(map(float, kept["losses"])))
        if (
            vectors.ndim == 2
            and len(vectors) == count
            and vectors.dtype == np.float32
            and np.isfinite(vectors).all()
        ):
            return cached
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile):
        pass
    getLogger().warning(f"{file}: not readable as vectors of {count} titles; they are made anew")
    return None


def _write(file: Path, content: TextVectors) -> None:
    """Write a file that needs no pickle, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "vectors": content.vectors,
        "tokens": content.tokens,
        "seconds": content.seconds,
    }
    if content.step is not None:
        arrays |= {"step": content.step, "losses": np.array(content.losses)}
    write_npz(file, arrays, compressed=False)
