"""AttMix and SessionSTAMP against their formulas, written out with loops;
the losses that the paper's backbones share."""

import math

import pytest
import torch
from recbole.data import data_preparation
from recbole.utils import get_trainer
from tiny import LENGTH, create_dataset, tiny_config, tiny_model, training_part

from recbole_alkd.model.loss import draw_items, in_batch_bpr
from recbole_alkd.model.session_model import last_items
from recbole_alkd.settings.error import AlkdError

OWN = ["SessionFPMC", "SessionSTAMP", "AttMix"]


def make(tiny_path, name, **settings):
    extra = {"last_k": 4} if name == "AttMix" else {}
    config = tiny_config(tiny_path, model=name, **{"embedding_size": 6, **extra, **settings})
    part = training_part(create_dataset(config))
    return tiny_model(config, part), part.inter_feat


def encode(model, rows):
    return model(rows["item_id_list"], rows["item_length"])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(values):
    exps = [math.exp(v - max(values)) for v in values]
    return [e / sum(exps) for e in exps]


def linear(layer, x):
    return layer.weight @ x + (0 if layer.bias is None else layer.bias)


def unit(x):
    return x / x.norm()


# SessionSTAMP


def stamp_by_hand(model, session):
    x = [model.input_embedding.weight[item] for item in session]
    mean = sum(x) / len(x)
    h = mean
    for item in x:
        inner = linear(model.w1, item) + linear(model.w2, x[-1]) + linear(model.w3, mean) + model.bias
        h = h + (model.w0.weight[0] @ torch.sigmoid(inner)) * item
    return h


def test_stamp_equals_its_formula(tiny_path):
    model, rows = make(tiny_path, "SessionSTAMP")
    with torch.no_grad():  # larger than at the start, so that every term shows
        for parameter in model.parameters():
            parameter.normal_()
        model.input_embedding.weight[0].zero_()
    sessions = [[i for i in row if i] for row in rows["item_id_list"].tolist()]
    torch.testing.assert_close(
        encode(model, rows), torch.stack([stamp_by_hand(model, s) for s in sessions]), atol=1e-5, rtol=1e-5
    )


def test_stamp_without_attention_is_the_mean(tiny_path):
    model, rows = make(tiny_path, "SessionSTAMP")
    with torch.no_grad():
        model.w0.weight.zero_()
    mean = model.input_embedding(rows["item_id_list"]).sum(1) / rows["item_length"].unsqueeze(1)
    torch.testing.assert_close(encode(model, rows), mean)


def test_stamp_starts_as_published_but_for_the_padding(tiny_path):
    model, _ = make(tiny_path, "SessionSTAMP", embedding_size=64)
    assert torch.equal(model.input_embedding.weight[0], torch.zeros(64))
    assert float(model.input_embedding.weight[1:].std().detach()) == pytest.approx(0.002, rel=0.1)
    assert float(model.w1.weight.std().detach()) == pytest.approx(0.05, rel=0.1)
    assert torch.equal(model.bias, torch.zeros(64))


# AttMix


@torch.no_grad()
def attmix_by_hand(model, session, width):
    """One session; lists of vectors by position, level and head, as the formula has them."""
    d, heads, k = model.input_embedding.weight.shape[1], model.heads, model.last_k
    x = [unit(model.input_embedding.weight[item]) for item in session] + [torch.zeros(d)] * (
        width - len(session)
    )
    newest = [x[len(session) - 1 - j] if j < len(session) else torch.zeros(d) for j in range(k)]
    levels = [linear(model.level_queries[i], torch.cat(newest[: i + 1])) for i in range(k)]
    norms = [math.sqrt(sum(float(level[f]) ** 2 for level in levels)) + 1e-12 for f in range(d)]
    levels = [level / torch.tensor(norms) for level in levels]
    q, c, v = (
        [linear(w, item) for item in items] for w, items in ((model.w0, levels), (model.w1, x), (model.w2, x))
    )
    size = d // heads

    def pieces(vectors):
        """heads x n vectors of d / heads features."""
        if model.proper_heads:
            return [[vector[h * size : (h + 1) * size] for vector in vectors] for h in range(heads)]
        flat = torch.cat(vectors)  # the plain reshape: consecutive chunks, head after head
        chunks = [flat[i * size : (i + 1) * size] for i in range(heads * len(vectors))]
        return [chunks[h * len(vectors) : (h + 1) * len(vectors)] for h in range(heads)]

    queries, keys = pieces(q), pieces(c)
    pooled = []
    for h in range(heads):
        by_level = [
            softmax([2 * sigmoid(float(queries[h][i] @ keys[h][p])) for p in range(width)]) for i in range(k)
        ]
        mixed = [sum(level[p] ** model.l_p for level in by_level) ** (1 / model.l_p) for p in range(width)]
        weights = softmax([2 * mixed[p] for p in range(len(session))])
        pooled.append(sum(weights[p] * v[p][h * size : (h + 1) * size] for p in range(len(session))))
    a = torch.cat(pooled)
    a = (a - a.mean()) / torch.sqrt(
        a.var(unbiased=False) + 1e-8
    ) * model.layer_norm.weight + model.layer_norm.bias
    return unit(linear(model.transform, torch.cat([a, newest[0]])))


@pytest.mark.parametrize(
    "own", [{}, {"proper_heads": True}, {"l_p": 3, "heads": 3}, {"tie": True, "item_norm": True, "scale": 16}]
)
def test_attmix_equals_its_formula(tiny_path, own):
    model, rows = make(tiny_path, "AttMix", **own)
    model = model.double().eval()
    sessions = [[i for i in row if i] for row in rows["item_id_list"].tolist()]
    assert min(map(len, sessions)) == 1 and max(map(len, sessions)) == LENGTH
    torch.set_default_dtype(torch.float64)
    try:
        expected = torch.stack([attmix_by_hand(model, session, LENGTH) for session in sessions])
    finally:
        torch.set_default_dtype(torch.float32)
    assert float((encode(model, rows) - expected).abs().max().detach()) < 1e-10
    single = model.float()
    assert float((encode(single, rows) - expected).abs().max().detach()) < 1e-6


def test_attmix_session_vectors_have_length_1(tiny_path):
    model, rows = make(tiny_path, "AttMix")
    for mode in (model.train(), model.eval()):
        torch.testing.assert_close(encode(mode, rows).norm(dim=1), torch.ones(len(rows)))


def test_attmix_sees_its_own_width_whatever_the_batch_has(tiny_path):
    model, rows = make(tiny_path, "AttMix")
    model.eval()
    items, length = rows["item_id_list"], rows["item_length"]
    expected = model(items, length)
    for wider in (1, 5):
        torch.testing.assert_close(model(torch.nn.functional.pad(items, (0, wider)), length), expected)
    short = length <= 3
    torch.testing.assert_close(model(items[short][:, :3], length[short]), expected[short])


def test_attmix_takes_the_last_items_of_longer_sessions(tiny_path):
    model, _ = make(tiny_path, "AttMix")
    model.eval()
    long = torch.tensor([[9, 8, 7, 6, 5, 4, 3, 2], [5, 4, 3, 2, 0, 0, 0, 0]])
    kept = torch.tensor([[7, 6, 5, 4, 3, 2], [5, 4, 3, 2, 0, 0]])
    torch.testing.assert_close(model(long, torch.tensor([8, 4])), model(kept, torch.tensor([6, 4])))


def test_last_items():
    seq, length = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]]), torch.tensor([5, 2])
    kept, size = last_items(seq, length, 3)
    assert kept.tolist() == [[3, 4, 5], [6, 7, 0]] and size.tolist() == [3, 2]
    kept, size = last_items(seq, length, 6)
    assert kept.tolist() == [[1, 2, 3, 4, 5, 0], [6, 7, 0, 0, 0, 0]] and size.tolist() == [5, 2]


@pytest.mark.parametrize(("size", "expected"), [(10, 6_160), (100, 601_600)])
def test_attmix_has_the_published_number_of_parameters(tiny_path, size, expected):
    model, _ = make(tiny_path, "AttMix", embedding_size=size, last_k=10, MAX_ITEM_LIST_LENGTH=10)
    tables = 2 * model.input_embedding.weight.numel()
    assert sum(parameter.numel() for parameter in model.parameters()) - tables == expected


def test_attmix_starts_uniform_everywhere(tiny_path):
    model, _ = make(tiny_path, "AttMix", embedding_size=16)
    for key, parameter in model.named_parameters():
        assert float(parameter.abs().max().detach()) <= 0.25, key
        assert float(parameter.std().detach()) > 0.05, key


def test_attmix_of_the_original_has_one_table_and_scaled_cosines(tiny_path):
    model, rows = make(tiny_path, "AttMix", tie=True, item_norm=True, scale=16, loss_type="CE")
    assert model.output_embedding is model.input_embedding
    model.eval()
    scores = model.full_sort_predict(rows)
    cosines = encode(model, rows) @ torch.nn.functional.normalize(model.input_embedding.weight, dim=1).T
    torch.testing.assert_close(scores, 16 * cosines)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"heads": 4}, r"heads: 4 does not divide the embedding size 6"),
        ({"last_k": 7}, r"last_k: 7 is not allowed for AttMix; allowed: 1 to MAX_ITEM_LIST_LENGTH \(6\)"),
        ({"last_k": 0}, r"last_k: 0 is not allowed"),
        (
            {"loss_type": "TOP1"},
            r"AttMix: loss_type: 'TOP1' is not allowed; allowed: BPR_INBATCH \| CE \| BPR \| BCE",
        ),
    ],
)
def test_attmix_says_what_cannot_be(tiny_path, own, message):
    with pytest.raises(AlkdError, match=message):
        make(tiny_path, "AttMix", **own)


# all three


@pytest.mark.parametrize("name", OWN)
def test_padding_does_not_leak(tiny_path, name):
    model, rows = make(tiny_path, name)
    model.eval()
    before = encode(model, rows)
    with torch.no_grad():
        if name == "AttMix":  # there the row exists and is masked; in the other two it is 0, and stays so
            model.input_embedding.weight[0].fill_(9.0)
    torch.testing.assert_close(encode(model, rows), before)
    wider = torch.nn.functional.pad(rows["item_id_list"], (0, 3))
    torch.testing.assert_close(model(wider, rows["item_length"]), before)


@pytest.mark.parametrize("name", OWN)
def test_one_row_alone_is_the_row_of_the_batch(tiny_path, name):
    model, rows = make(tiny_path, name)
    model.eval()
    together = encode(model, rows)
    for row in range(4):
        torch.testing.assert_close(encode(model, rows[row : row + 1])[0], together[row])


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("loss_type", ["BPR_INBATCH", "CE", "BPR", "BCE"])
def test_losses_are_the_named_ones(tiny_path, name, loss_type):
    model, rows = make(tiny_path, name, loss_type=loss_type, loss_negatives=3)
    model.eval()
    torch.manual_seed(4)
    value = float(model.calculate_loss(rows).detach())
    torch.manual_seed(4)
    scores = model.full_sort_predict(rows).double().detach()
    target = rows["item_id"]
    if loss_type == "BPR_INBATCH":
        expected = float(in_batch_bpr(encode(model, rows), model.item_table()[target]).detach())
    elif loss_type == "CE":
        expected = -float(torch.log_softmax(scores, 1).gather(1, target.unsqueeze(1)).mean())
    else:
        drawn = draw_items(
            torch.cat([rows["item_id_list"], target.unsqueeze(1)], 1), 3, model.n_items
        ).tolist()
        total = 0.0
        for row, (item, negatives) in enumerate(zip(target.tolist(), drawn, strict=True)):
            assert not {*negatives} & {0, item, *rows["item_id_list"][row].tolist()}
            for other in negatives:
                good, bad = float(scores[row, item]), float(scores[row, other])
                if loss_type == "BPR":
                    total -= math.log(sigmoid(good - bad)) / 3
                else:
                    total -= (math.log(sigmoid(good)) + math.log(1 - sigmoid(bad))) / 3
        expected = total / len(rows)
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("loss_type", ["BPR_INBATCH", "BPR"])
def test_it_runs_alone_under_recboles_stock_trainer(tiny_path, tmp_path, monkeypatch, name, loss_type):
    monkeypatch.chdir(tmp_path)  # RecBole writes its logs here
    extra = {"last_k": 4} if name == "AttMix" else {}
    config = tiny_config(
        tiny_path,
        model=name,
        loss_type=loss_type,
        embedding_size=6,
        epochs=3,
        learning_rate=0.01,
        checkpoint_dir=str(tmp_path),
        **extra,
    )
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    model = tiny_model(config, train._dataset)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.fit(train, valid, saved=True, show_progress=False)
    result = trainer.evaluate(test, show_progress=False)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert 0 <= result["recall@10"] <= 1
    assert type(trainer).__name__ == "Trainer"


@pytest.mark.parametrize("name", OWN)
def test_as_student_it_may_use_sampled_losses(tiny_path, name):
    extra = {"last_k": 4} if name == "AttMix" else {}
    config = tiny_config(
        tiny_path, student_model=name, student_config={"loss_type": "BCE", "loss_negatives": 2, **extra}
    )
    part = training_part(create_dataset(config))
    loss = tiny_model(config, part).calculate_loss(part.inter_feat)
    loss.backward()
    assert torch.isfinite(loss)
