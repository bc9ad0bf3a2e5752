"""Scores of a token tree in one forward pass against a forward pass for each text."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_llm import tiny_llm

from recbole_alkd.llm.devices import training_attention
from recbole_alkd.llm.likelihood import build_tree, log_likelihoods, plain_logits
from recbole_alkd.llm.models import load_causal_lm

PREFIXES = [[5], [7, 8, 9, 10], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
TEXTS = [(3, 4, 5), (3, 4), (3,), (9, 9, 9, 9), (3, 4, 5), (), (4, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm"))


def load(folder, attention):
    model, _ = load_causal_lm(str(folder), "cpu", "float32")
    model.set_attn_implementation(attention)
    return model


def one_by_one(model, prefix, text):
    """The oracle: the text alone after its prefix, with the model's own causal mask."""
    if not text:
        return 0.0
    ids = torch.tensor([[*prefix, *text]])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(logs[len(prefix) - 1 + k, token]) for k, token in enumerate(text))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_pass_equals_a_pass_for_each_text(folder, attention):
    model = load(folder, attention)
    for prefix in PREFIXES:
        with torch.no_grad():
            scores = log_likelihoods(model, [build_tree(prefix, TEXTS)])[0]
        wanted = [one_by_one(model, prefix, text) for text in TEXTS]
        np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_and_batching_change_nothing(folder, attention):
    model = load(folder, attention)
    trees = [build_tree(prefix, TEXTS[: 3 + k]) for k, prefix in enumerate(PREFIXES)]
    with torch.no_grad():
        together = log_likelihoods(model, trees)
        alone = [log_likelihoods(model, [tree])[0] for tree in trees]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_order_of_the_texts_does_not_matter(folder):
    model = load(folder, "sdpa")
    order = [4, 2, 6, 0, 5, 1, 3]
    with torch.no_grad():
        straight = log_likelihoods(model, [build_tree(PREFIXES[1], TEXTS)])[0]
        shuffled = log_likelihoods(model, [build_tree(PREFIXES[1], [TEXTS[k] for k in order])])[0]
    torch.testing.assert_close(straight[order], shuffled, rtol=1e-4, atol=1e-4)


def test_equal_texts_have_exactly_equal_scores(folder):
    with torch.no_grad():
        scores = log_likelihoods(load(folder, "sdpa"), [build_tree([5, 6], TEXTS)])[0]
    assert scores[0] == scores[4]
    assert scores[5] == 0  # the empty text


@pytest.mark.parametrize(
    ("dtype", "before", "lengths", "inside"),
    [
        (torch.bfloat16, "sdpa", [150, 200], "eager"),
        (torch.bfloat16, "sdpa", [150, 20_000], "sdpa"),  # its probabilities would take gigabytes
        (torch.bfloat16, "eager", [150, 200], "eager"),
        (torch.float32, "sdpa", [150, 200], "sdpa"),
    ],
)
def test_a_bfloat16_model_trains_on_a_cpu_without_fused_attention(folder, dtype, before, lengths, inside):
    model = load(folder, before).to(dtype)
    with pytest.raises(RuntimeError, match="stopped"), training_attention(model, lengths):
        assert model.config._attn_implementation == inside
        raise RuntimeError("stopped")
    assert model.config._attn_implementation == before


def test_without_fused_attention_the_gradient_is_no_further_from_that_of_float32(folder):
    def gradient(dtype, way):
        model = load(folder, "sdpa").to(dtype)
        with way(model, [20]):
            log_likelihoods(model, [build_tree(PREFIXES[1], TEXTS)])[0].sum().backward()
        return torch.cat([p.grad.flatten().double() for p in model.parameters()])

    def plain(model, lengths):
        return contextlib.nullcontext()

    exact = gradient(torch.float32, plain)
    fused, without = (
        float((gradient(torch.bfloat16, way) - exact).norm()) for way in (plain, training_attention)
    )
    assert without < 1.5 * fused
    assert without < 0.05 * float(exact.norm())


def test_gradients_flow_through_the_scores(folder):
    model = load(folder, "eager")
    log_likelihoods(model, [build_tree([5, 6], TEXTS)])[0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_head_reads_whole_hidden_states_of_the_asked_places(folder, dtype, rows):
    """A slice of them would make torch copy the head in every pass; what comes out is the same to the bit."""
    model, _ = load_causal_lm(str(folder), "cpu", dtype)
    ids = np.arange(1, 1 + 9 * rows).reshape(rows, 9)
    read = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.no_grad():
        logits = plain_logits(model, ids, 4)
        hook.remove()
        sliced = model(input_ids=torch.from_numpy(ids), use_cache=False, logits_to_keep=5).logits
    (hidden,) = read
    assert hidden.shape[:2] == (rows, 5)
    assert hidden.stride(0) == 5 * hidden.stride(1)
    assert torch.equal(logits, sliced)


def test_shared_beginnings_and_last_tokens_are_not_forwarded():
    tree = build_tree([1, 2], [(3, 4, 5), (3, 4, 6), (3,), (7,)])
    assert tree.tokens.tolist() == [1, 2, 3, 4]
    assert tree.depths.tolist() == [0, 1, 2, 3]
    assert tree.visible.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


tokens = st.integers(0, 3)


@given(
    st.lists(tokens, min_size=1, max_size=4),
    st.lists(st.lists(tokens, max_size=4).map(tuple), min_size=1, max_size=8),
)
def test_a_tree_spells_its_texts(prefix, texts):
    tree = build_tree(prefix, texts)
    count = len(tree.sources)
    for text, path in zip(texts, tree.paths, strict=True):
        edges = [edge for edge in path if edge < count]
        assert tuple(tree.targets[edges]) == text
        # what a prediction sees is the prefix and the text before it, nothing else
        for k, edge in enumerate(edges):
            seen = np.flatnonzero(tree.visible[tree.sources[edge]])
            assert tree.tokens[seen].tolist() == [*prefix, *text[:k]]
            assert tree.depths[seen].tolist() == list(range(len(seen)))
    assert len(set(zip(tree.sources.tolist(), tree.targets.tolist(), strict=True))) == count
