"""SessionKNN against loops over sessions, and its table through cutting, saving and RecBole's own entry
points."""

import math
import re
from collections import Counter
from logging import getLogger

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tiny import LENGTH, create_dataset, tiny_config, tiny_model, tiny_view, training_part, write_benchmark

from recbole_alkd import load_data_and_model, run_recbole_alkd
from recbole_alkd.active.difficulty import difficulty
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.labelling.candidates import top_candidates
from recbole_alkd.learner.counting import count_model
from recbole_alkd.model import neighbours
from recbole_alkd.model.neighbours import PRIOR, cut, table_bytes, target_ranks
from recbole_alkd.plugin import empty_argv
from recbole_alkd.settings.error import AlkdError

PLAIN = {"knn_backward": 1.0, "knn_gap_decay": 1.0, "knn_repeat": 0}
FIXED = {**PLAIN, "knn_source_exponent": 0.5, "knn_target_exponent": 0.1, "knn_decay": 0.7}


@pytest.fixture(scope="module")
def parts(tiny_path):
    # one row a session, which is what the loops count
    return create_dataset(tiny_config(tiny_path, model="SessionKNN", session_augmentation="last")).build()


def fitted(tiny_path, parts, tuned=False, **own):
    model = tiny_model(
        tiny_config(tiny_path, model="SessionKNN", **({} if tuned else FIXED), **own), parts[0]
    )
    model.fit_table(parts[0], parts[1] if tuned else None)
    return model


def whole_sessions(part):
    rows = part.inter_feat
    together = zip(rows["item_id_list"].tolist(), rows["item_id"].tolist(), strict=True)
    return [{item for item in [*history, target] if item} for history, target in together]


def oracle_weights(sessions, n_items, source=0.5, target=0.1):
    count, together = Counter(), Counter()
    for session in sessions:
        count.update(session)
        together.update((i, j) for i in session for j in session if i != j)
    weights = np.zeros((n_items, n_items))
    for (i, j), c in together.items():
        weights[i, j] = c / ((count[i] + 1) ** source * (count[j] + 5) ** target)
    return weights, np.array([count[i] for i in range(n_items)])


def oracle_scores(weights, count, session, decay=0.7, last=10):
    scores = PRIOR * count.astype(float)
    for age, item in enumerate(reversed(session)):
        if age < last:
            scores = scores + decay**age * weights[item]
    return scores


def row(*sessions):
    width = max(map(len, sessions))
    return torch.tensor([list(s) + [0] * (width - len(s)) for s in sessions]), torch.tensor(
        [len(s) for s in sessions]
    )


def test_scores_equal_the_loop(tiny_path, parts):
    model = fitted(tiny_path, parts)
    weights, count = oracle_weights(whole_sessions(parts[0]), model.n_items)
    rows = parts[2].inter_feat
    expected = np.stack(
        [
            oracle_scores(weights, count, items[:length])
            for items, length in zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
        ]
    )
    np.testing.assert_allclose(model.full_sort_predict(rows).numpy(), expected, rtol=2e-3, atol=1e-7)
    assert np.array_equal(model.counts.numpy(), count)


def test_the_newest_item_counts_most_and_old_ones_fade(tiny_path, parts):
    model = fitted(tiny_path, parts)
    alone = [model.scores(*row([item]))[0] - PRIOR * model.counts for item in (4, 9, 2)]
    expected = 0.7**2 * alone[0] + 0.7 * alone[1] + alone[2] + PRIOR * model.counts
    torch.testing.assert_close(model.scores(*row([4, 9, 2]))[0], expected)


def test_only_the_last_items_count(tiny_path, parts):
    model = fitted(tiny_path, parts, knn_last_items=2)
    torch.testing.assert_close(model.scores(*row([4, 9, 2])), model.scores(*row([9, 2])))


@given(padding=st.integers(0, 4), session=st.lists(st.integers(1, 30), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing(tiny_path, parts, padding, session):
    model = fitted(tiny_path, parts)
    item_seq, length = row(session)
    wide = torch.nn.functional.pad(item_seq, (0, padding))
    assert torch.equal(model.scores(wide, length), model.scores(item_seq, length))
    assert model.scores(item_seq, length)[0, 0] == 0, "nothing leads to the padding"


def test_checkerboard_sessions_get_items_of_their_own_colour(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "board"
    folder.mkdir()
    for part, count in (("train", 60), ("valid", 20), ("test", 20)):
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for number in range(count):
            items = rng.choice(np.arange(number % 2, 20, 2), size=5, replace=False)
            lines.append(f"{part}{number}\t{' '.join(f'i{i}' for i in items[:-1])}\ti{items[-1]}")
        (folder / f"board.{part}.inter").write_text("\n".join(lines) + "\n")
    config = tiny_config(tmp_path, model="SessionKNN", dataset="board", mask_session_items=True)
    train, valid, test = create_dataset(config).build()
    model = tiny_model(config, train)
    model.fit_table(train, valid)
    token = train.field2id_token["item_id"]
    rows = test.inter_feat
    top = model.full_sort_predict(rows).topk(6).indices.tolist()
    for items, best in zip(rows["item_id_list"].tolist(), top, strict=True):
        colour = int(token[items[0]][1:]) % 2
        assert all(int(token[item][1:]) % 2 == colour for item in best)
        assert not set(best) & set(items)


# the table


@st.composite
def tables(draw):
    n = draw(st.integers(2, 7))
    cells = draw(st.lists(st.integers(0, 4), min_size=n * n, max_size=n * n))
    return csr_array(np.array(cells, dtype=np.float32).reshape(n, n))


@given(tables(), st.integers(1, 4))
def test_cutting_keeps_the_largest_weights_of_every_item(table, neighbors):
    small = cut(table, neighbors).toarray()
    for before, after in zip(table.toarray(), small, strict=True):
        order = sorted((j for j in range(len(before)) if before[j]), key=lambda j: (-before[j], j))
        kept = order[:neighbors]
        assert [j for j in range(len(after)) if after[j]] == sorted(kept)
        assert all(after[j] == before[j] for j in kept)


@given(tables(), st.integers(0, 40))
def test_a_table_of_some_bytes_is_as_large_as_they_allow(table, room):
    n = table.shape[0]
    small = cut(table, size=table_bytes(n, room))
    assert small.nnz == min(room, table.nnz)
    least = min((len(kept) for kept in _rows(small, table)), default=0)
    for kept, all_of_it in zip(_rows(small), _rows(table), strict=True):
        assert len(kept) >= min(least, len(all_of_it))
        assert sorted(kept, reverse=True) == sorted(all_of_it, reverse=True)[: len(kept)]


def _rows(table, filter_by=None):
    """The weights of every row; with ``filter_by`` only rows that lost some."""
    kept = [table.data[a:b].tolist() for a, b in zip(table.indptr[:-1], table.indptr[1:], strict=True)]
    if filter_by is None:
        return kept
    return [part for part, whole in zip(kept, np.diff(filter_by.indptr), strict=True) if len(part) < whole]


def test_bytes_that_hold_no_table_are_an_error():
    with pytest.raises(AlkdError, match=r"student_bytes: 10 .*at least 40"):
        cut(csr_array(np.ones((4, 4))), size=10)


@pytest.mark.parametrize("own", [{"student_neighbors": 3}, {"student_bytes": 600}, {}])
def test_the_state_dict_has_the_size_it_says(tiny_path, parts, own):
    model = fitted(tiny_path, parts, **own)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert size == table_bytes(model.n_items, len(model.weights))  # one more row start, the decay: 8 bytes
    if "student_bytes" in own:
        assert 600 - neighbours.EDGE_BYTES < size <= 600
    if "student_neighbors" in own:
        assert int(torch.diff(model.indptr).max()) == 3
    assert model.weights.dtype == torch.float16


@given(tables(), st.data())
@settings(max_examples=60, deadline=None)
def test_ranks_equal_those_of_the_dense_scores(table, data):
    n = table.shape[0]
    counts = np.array([0, *data.draw(st.lists(st.integers(0, 3), min_size=n - 1, max_size=n - 1))])
    dense = table.toarray()
    dense[:, 0] = 0
    table = csr_array(dense)
    rows = data.draw(
        st.lists(st.lists(st.integers(1, n - 1), min_size=1, max_size=3), min_size=1, max_size=4)
    )
    target = np.array(data.draw(st.lists(st.integers(1, n - 1), min_size=len(rows), max_size=len(rows))))
    item_seq, length = (part.numpy() for part in row(*rows))
    profile = neighbours.profiles(item_seq, length, 0.5, 10, n)
    excluded = csr_array(
        np.array([[float(item in items) for item in range(n)] for items in rows], dtype=np.float32)
    )
    for masked in (None, excluded):
        scores = profile.toarray() @ dense + PRIOR * counts
        if masked is not None:
            scores[masked.toarray() > 0] = -np.inf
        expected = [
            1 + sum((s[j] > s[t]) + 0.5 * (s[j] == s[t]) for j in range(1, n) if j != t)
            for s, t in zip(scores, target, strict=True)
        ]
        ranks = target_ranks(table, profile, counts, target, masked)
        assert ranks.tolist() == expected


# settings and choices


def test_validation_chooses_the_best_of_the_grid(tiny_path):
    """On every item of the validation sessions but the first: a few sessions would choose by luck."""
    grid = {
        **PLAIN,
        "knn_source_exponent": [0.1, 0.9],
        "knn_target_exponent": 0.3,
        "knn_decay": [0.2, 1.0],
        "valid_metric": "MRR@10",
    }
    config = tiny_config(tiny_path, model="SessionKNN", mask_session_items=True, **grid)
    parts = create_dataset(config).build()
    model = tiny_model(config, parts[0])
    chosen = model.fit_table(parts[0], parts[1])
    rows, means, last = parts[1].inter_feat, {}, {}
    for source in grid["knn_source_exponent"]:
        for decay in grid["knn_decay"]:
            own = {**grid, "knn_source_exponent": source, "knn_decay": decay, "mask_session_items": True}
            other = tiny_model(tiny_config(tiny_path, model="SessionKNN", **own), parts[0])
            other.fit_table(parts[0])
            gains = [[] for _ in range(LENGTH)]
            for items, length, label in zip(
                *(rows[k].tolist() for k in ("item_id_list", "item_length", "item_id")), strict=True
            ):
                session = [*items[:length], label]
                for back in range(length):
                    scores = other.scores(*row(session[: length - back]))[0]
                    scores[[0, *session[: length - back]]] = -torch.inf
                    rank = 1 + int((scores > scores[session[length - back]]).sum())
                    gains[back].append(1 / rank if rank <= 10 else 0)
            means[source, decay] = np.mean([gain for place in gains for gain in place])
            last[source, decay] = np.mean(gains[0])
    best = chosen["source_exponent"], chosen["decay"]
    assert means[best] == max(means.values())
    assert chosen["valid"] == pytest.approx(last[best])
    assert (chosen["tried"], chosen["targets"]) == (4, int(rows["item_length"].sum()))


def test_without_validation_the_middle_is_taken(tiny_path, parts):
    model = tiny_model(tiny_config(tiny_path, model="SessionKNN"), parts[0])
    chosen = model.fit_table(parts[0])
    assert [chosen[key] for key in ("source_exponent", "target_exponent", "decay")] == [0.5, 0.2, 0.5]
    assert [chosen[key] for key in ("backward", "gap_decay", "repeat")] == [1, 1, 0]
    assert math.isnan(chosen["valid"])


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"knn_decay": "fast"}, "knn_decay: 'fast'"),
        ({"knn_decay": []}, r"knn_decay: \[\]"),
        ({"knn_decay": [0.5, float("inf")]}, "knn_decay: .*inf"),
        ({"knn_backward": 1.5}, "knn_backward: 1.5 is not allowed; allowed: a number from 0 to 1"),
        ({"knn_gap_decay": [0.5, -1]}, "knn_gap_decay: .* from 0 to 1"),
        (
            {"knn_repeat": "often"},
            "knn_repeat: 'often' \\(str\\) is not allowed; allowed: a number of at least 0",
        ),
        ({"knn_last_items": 0}, "knn_last_items: 0"),
        ({"student_neighbors": 3, "student_bytes": 900}, "student_bytes: .*one of the two"),
        ({"student_neighbors": 0}, "student_neighbors: 0"),
    ],
)
def test_bad_settings_are_named(tiny_path, parts, own, words):
    with pytest.raises(AlkdError, match=words):
        tiny_model(tiny_config(tiny_path, model="SessionKNN", **own), parts[0])


# RecBole


def test_it_runs_alone_and_its_checkpoint_is_safe_to_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path / "data")
    config = tiny_config(tmp_path / "data", model="SessionKNN").external_config_dict
    values = {**config, "student_neighbors": 4, "topk": [5], "valid_metric": "NDCG@5", "state": "ERROR"}
    with empty_argv():
        result = run_recbole_alkd(model="SessionKNN", dataset="tiny", config_dict=values)
        (file,) = tmp_path.glob("saved/SessionKNN*.pth")
        _, model, _, _, _, test_data = load_data_and_model(str(file))
    assert result["best_valid_score"] > 0
    state = load_checkpoint(str(file))["state_dict"]
    assert set(state) == {"indptr", "indices", "weights", "counts", "decay"}
    rows = test_data._dataset.inter_feat
    hits = model.full_sort_predict(rows)[:, 1:].topk(5).indices + 1 == rows["item_id"].unsqueeze(1)
    assert float(hits.any(1).float().mean()) == pytest.approx(result["test_result"]["recall@5"], abs=1e-4)


def test_a_checkpoint_from_before_direction_gap_and_repeats_loads(tiny_path, parts):
    config = tiny_config(tiny_path, model="SessionKNN", student_neighbors=3, **FIXED)
    before = tiny_model(config, parts[0])
    before.fit_table(parts[0])
    for key in ("knn_backward", "knn_gap_decay", "knn_repeat"):
        del config.final_config_dict[key]
    after = tiny_model(config, parts[0])
    after.load_state_dict(before.state_dict())
    rows = parts[2].inter_feat
    assert torch.equal(after.full_sort_predict(rows), before.full_sort_predict(rows))
    after.fit_table(parts[0])
    assert torch.equal(after.weights, before.weights), "and counts as it did"


def test_the_log_says_what_the_grid_cost_and_by_how_much_it_won(tiny_path, parts, caplog):
    caplog.set_level("INFO")
    model = tiny_model(tiny_config(tiny_path, model="SessionKNN"), parts[0])
    facts = count_model(model, parts[0], parts[1], getLogger())
    line = caplog.records[-1].getMessage()
    for name in ("repeat", "backward", "gap decay", "decay", "source exponent", "target exponent"):
        assert re.search(rf"{name} [\d.]+", line)
    words = rf"chosen on validation from {facts['tried']} settings in [\d.]+ CPU s \({facts['valid']:.4f}, "
    number = r"[+-]\d\.\d{4}"
    margin = rf"{number} \[{number}, {number}\] against "
    assert re.search(rf"{words}{margin}plain counting, {margin}the next best", line)
    assert facts["over_plain_low"] <= facts["over_plain"] <= facts["over_plain_high"]
    assert facts["over_next"] >= 0


# edges


def edges_to(part, answer):
    """Edges from the newest item of every row of a part to ``answer`` of the row's target."""
    n, rows = part.item_num, part.inter_feat
    newest = rows["item_id_list"].gather(1, rows["item_length"].unsqueeze(1) - 1).squeeze(1).numpy()
    matrix = csr_array(
        (np.ones(len(newest), dtype=np.float32), (newest, answer(rows["item_id"].numpy()))), shape=(n, n)
    )
    matrix.sum_duplicates()
    return matrix


@pytest.mark.parametrize("neighbors", [None, 4])
def test_edges_that_say_nothing_get_no_weight_and_those_that_do_get_one(tmp_path, neighbors):
    write_benchmark(tmp_path, counts=(150, 300, 10), n_items=400)
    config = tiny_config(tmp_path, model="SessionKNN", student_neighbors=neighbors, **FIXED)
    train, valid, _ = create_dataset(config).build()
    model, chance = tiny_model(config, train), []
    assert (
        model.fit_table(train, valid, {"text": lambda _: edges_to(valid, lambda target: target)})[
            "text_weight"
        ]
        > 0
    )
    plain = len(model.fit_table(train, valid) and model.weights)
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(train.item_num - 1) + 1
        made = edges_to(valid, lambda target, order=order: order[target - 1])
        chance.append(model.fit_table(train, valid, {"text": lambda _, made=made: made})["text_weight"])
        if not chance[-1]:
            assert len(model.weights) == plain
    assert sum(weight > 0 for weight in chance) <= 1


def test_it_is_a_teacher_recommender(tiny_path):
    config = tiny_config(tiny_path, teacher_model="SessionKNN", student_neighbors=2)
    part = training_part(create_dataset(config))
    view = tiny_view(config, part, "teacher")
    view.model.fit_table(part)
    assert int(torch.diff(view.model.indptr).max()) > 2, "student_neighbors is the student's"
    rows = part.inter_feat
    seen, length, target = rows["item_id_list"], rows["item_length"], rows["item_id"]
    best = top_candidates(view, seen, length, 5)
    scores = view.scores(seen, length).scatter(1, seen, -torch.inf)
    scores[:, 0] = -torch.inf
    assert torch.equal(best, scores.topk(5).indices)
    own = torch.sigmoid(view.scores(seen, length).gather(1, seen)) * (seen > 0)
    expected = -(own.sum(1) / length).numpy()
    np.testing.assert_allclose(difficulty("consistency", view, seen, length, target), expected, rtol=1e-6)
    rank = difficulty("rank", view, seen, length, target)
    assert rank.min() >= 1 and rank.max() <= part.item_num - 1
    assert seen.shape[1] == LENGTH


@pytest.mark.parametrize("what", ["encode", "item_table"])
def test_what_it_does_not_have_is_said(tiny_path, parts, what):
    config = tiny_config(tiny_path, teacher_model="SessionKNN")
    view = tiny_view(config, parts[0], "teacher")
    with pytest.raises(AlkdError, match=r"SessionKNN has no (session|item) vectors"):
        view.encode(*row([1])) if what == "encode" else view.item_table()
    with pytest.raises(AlkdError, match="no loss"):
        view.loss(parts[0].inter_feat)


def test_places_that_need_vectors_are_refused_before_the_run(tiny_path):
    with pytest.raises(AlkdError, match=r"kd_loss: 'ftd' needs teacher_vectors.*SessionKNN"):
        tiny_config(tiny_path, teacher_model="SessionKNN", kd_loss="ftd", kd_rec_weight=1.0)
