"""ALKDRecDataset: the instances of make_sessions inside RecBole."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.quick_start import run_recbole
from recbole.utils import get_model
from recbole.utils.case_study import full_sort_topk
from session_files import BENCHMARK, read_rows, shared_data, token_rows, write_inter

from recbole_alkd.data.dataset import ALKDRecDataset
from recbole_alkd.data.sessions import make_sessions
from recbole_alkd.settings.error import AlkdError

PARTS = ("train", "valid", "test")
DAY = 86400
START = 1_291_191_960 // DAY * DAY


def some_clicks(seed: int, users: int = 12, items: int = 15, rows: int = 400) -> list[tuple[object, ...]]:
    """Clicks over four days, in no order, with ties and times one second apart at 1.29e9 (float32: 128 s)."""
    rng = random.Random(seed)
    return [
        (
            f"u{rng.randrange(users)}",
            f"i{rng.randrange(items)}",
            START + rng.randrange(4) * DAY + rng.randrange(20),
        )
        for _ in range(rows)
    ]


@pytest.mark.parametrize("order", ["RO", "TO"])
@pytest.mark.parametrize("augmentation", ["prefix", "last"])
def test_same_instances_as_make_sessions(
    tmp_path: Path, config_of, build, order: str, augmentation: str
) -> None:
    raw = write_inter(tmp_path / "toy" / "toy.inter", some_clicks(1))
    names = {"RO": "random", "TO": "time"}
    written = tmp_path / "written"
    make_sessions(
        raw,
        written,
        min_length=6,
        max_length=7,
        split=(0.5, 0.2, 0.3),
        order=names[order],
        augmentation=augmentation,
        seed=11,
    )
    config = config_of(
        "toy",
        session_min_length=6,
        MAX_ITEM_LIST_LENGTH=7,
        session_augmentation=augmentation,
        seed=11,
        eval_args={"split": {"RS": [5, 2, 3]}, "order": order, "group_by": "none", "mode": "full"},
    )
    for name, part in zip(PARTS, build(config), strict=True):
        assert token_rows(part) == read_rows(written, name)
    # the same from the files, whatever augmentation they were written with
    config = config_of("written", **BENCHMARK, MAX_ITEM_LIST_LENGTH=7, session_augmentation=augmentation)
    for name, part in zip(PARTS, build(config), strict=True):
        assert token_rows(part) == read_rows(written, name)


def test_same_instances_on_ml_100k(tmp_path: Path, config_of, build) -> None:
    config = config_of("ml-100k", MAX_ITEM_LIST_LENGTH=50)
    parts = build(config)
    counts = make_sessions(Path(config["data_path"]) / "ml-100k.inter", tmp_path / "ml")
    assert [counts[f"{part}_sessions"] for part in PARTS] == [986, 328, 328]
    assert (counts["sessions"], counts["interactions"]) == (1_642, 98_350)
    for name, part in zip(PARTS, parts, strict=True):
        assert token_rows(part) == read_rows(tmp_path / "ml", name)


@pytest.mark.parametrize("augmentation", ["prefix", "last"])
def test_stock_recbole_reads_the_same_instances(tmp_path: Path, config_of, build, augmentation: str) -> None:
    raw = write_inter(tmp_path / "toy" / "toy.inter", some_clicks(2))
    make_sessions(raw, tmp_path / "made", augmentation=augmentation, max_length=9)
    ours = build(config_of("toy", session_augmentation=augmentation, MAX_ITEM_LIST_LENGTH=9))
    config = config_of("made", **BENCHMARK)
    # stock RecBole asks for it, and splits by file all the same
    config["eval_args"] = {**config["eval_args"], "order": "TO"}
    stock = SequentialDataset(config).build()
    for one, other in zip(ours, stock, strict=True):
        assert token_rows(one) == token_rows(other)


def test_stock_model_trains_on_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_sessions(write_inter(tmp_path / "raw.inter", some_clicks(3)), tmp_path / "made")
    settings = {
        **BENCHMARK,
        "data_path": str(tmp_path),
        "train_neg_sample_args": None,
        "epochs": 1,
        "embedding_size": 4,
        "hidden_size": 4,
        "use_gpu": False,
        "show_progress": False,
    }
    result = run_recbole(model="GRU4Rec", dataset="made", config_dict=settings, saved=False)
    assert 0 <= result["test_result"]["recall@10"] <= 1


def test_no_prefix_of_a_test_session_in_training(tmp_path: Path, config_of, build) -> None:
    # every item belongs to one session, so a shared item is a leak
    clicks = [
        (u, f"{u}-{day}-{k}", START + day * DAY + k) for u in range(9) for day in range(3) for k in range(5)
    ]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    train, valid, test = (token_rows(part) for part in build(config_of("toy")))
    seen = {item for _, history, target in train for item in [*history, target]}
    assert len(train) > len(test) > 0
    for _, history, target in valid + test:
        assert not seen & {*history, target}


def test_row_numbers_survive_shuffling(tmp_path: Path, config_of) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(4))
    config = config_of("toy", train_batch_size=16)
    dataset = ALKDRecDataset(config)
    loaders = data_preparation(config, dataset)
    for loader in loaders:
        part = loader._dataset
        seen = []
        for batch in loader:
            batch = batch[0] if isinstance(batch, tuple) else batch
            rows = batch["alkd_row"].numpy()
            for field in ("user_id", "item_id_list", "item_id", "item_length"):
                assert torch.equal(batch[field], part.inter_feat[field][rows])
            seen += rows.tolist()
        assert sorted(seen) == list(range(len(part)))
    assert [row for batch in loaders[0] for row in batch["alkd_row"].tolist()] != list(
        range(len(loaders[0]._dataset))
    )


def test_batches_hold_nothing_else(tmp_path: Path, config_of, build) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(5))
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\tTitle {k}\n" for k in range(15))
    )
    (tmp_path / "toy" / "toy.user").write_text("user_id:token\tage:float\nu0\t3\n")
    columns = {
        "inter": ["user_id", "item_id", "timestamp"],
        "item": ["item_id", "title"],
        "user": ["user_id", "age"],
    }
    config = config_of("toy", load_col=columns)
    dataset = ALKDRecDataset(config)
    for part in [*dataset.build(), dataset]:
        assert part.item_feat is None and part.user_feat is None
        assert set(part[torch.tensor([1])].columns) == {
            "user_id",
            "item_id_list",
            "item_id",
            "item_length",
            "alkd_row",
        }
    make_sessions(tmp_path / "toy" / "toy.inter", tmp_path / "made")
    (tmp_path / "made" / "made.item").write_text((tmp_path / "toy" / "toy.item").read_text())
    dataset = ALKDRecDataset(
        config_of(
            "made", **{**BENCHMARK, "load_col": {**BENCHMARK["load_col"], "item": ["item_id", "title"]}}
        )
    )
    assert set(dataset.build()[0][[0]].columns) == {
        "session_id",
        "item_id_list",
        "item_id",
        "item_length",
        "alkd_row",
    }


def test_last_rows_and_full_sessions(tmp_path: Path, config_of, build) -> None:
    clicks = [(u, f"{u}-{k}", START + k) for u in range(10) for k in range(8)]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    train, valid, test = build(config_of("toy", MAX_ITEM_LIST_LENGTH=3))
    assert valid.row_is_last.all() and test.row_is_last.all() and train.row_is_last.sum() == 6
    for row, last in zip(token_rows(train), train.row_is_last, strict=True):
        assert last == row[2].endswith("-7")
    for session in np.unique(train.inter_feat["user_id"].numpy()):
        user = train.id2token("user_id", session).split("@")[0]
        assert list(train.id2token("item_id", train.session_items(session))) == [
            f"{user}-{k}" for k in range(8)
        ]
    several = np.unique(train.inter_feat["user_id"].numpy())[::-1]
    items, begins = train.items_of_sessions(several)
    assert begins[-1] == len(items) and len(begins) == len(several) + 1
    for session, part in zip(several, np.split(items, begins[1:-1]), strict=True):
        assert part.tolist() == train.session_items(session).tolist()
    assert train.items_of_sessions(several[:0])[1].tolist() == [0]
    with pytest.raises(AlkdError, match="is not a training session"):
        test.session_items(int(test.inter_feat["user_id"][0]))
    with pytest.raises(AlkdError, match="is not a training session"):
        test.items_of_sessions(np.append(several, test.inter_feat["user_id"][0]))


# benchmark files


def write_benchmark(folder: Path, **parts: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True)
    for part, rows in parts.items():
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token", *("\t".join(row) for row in rows)]
        (folder / f"{folder.name}.{part}.inter").write_text("\n".join(lines) + "\n")


def test_benchmark_expansion_golden(tmp_path: Path, config_of, build) -> None:
    write_benchmark(
        tmp_path / "b",
        train=[("s1", "a b c", "d"), ("s2", "e", "f")],
        valid=[("s3", "a b c d e", "f")],
        test=[("s4", "f e d", "c")],
    )
    train, valid, test = build(config_of("b", **BENCHMARK, MAX_ITEM_LIST_LENGTH=2))
    assert token_rows(train) == [
        ("s1", ["a"], "b"),
        ("s1", ["a", "b"], "c"),
        ("s1", ["b", "c"], "d"),
        ("s2", ["e"], "f"),
    ]
    assert train.row_is_last.tolist() == [False, False, True, True]
    assert token_rows(valid) == [("s3", ["d", "e"], "f")]
    assert token_rows(test) == [("s4", ["e", "d"], "c")]
    assert list(train.id2token("item_id", train.session_items(train.token2id("session_id", "s1")))) == [
        "a",
        "b",
        "c",
        "d",
    ]
    train, _, _ = build(config_of("b", **BENCHMARK, session_augmentation="last"))
    assert token_rows(train) == [("s1", ["a", "b", "c"], "d"), ("s2", ["e"], "f")]


def test_rows_of_one_session_are_put_together(tmp_path: Path, config_of, build) -> None:
    # cut to two items when they were written, and with another session between them
    rows = [("s1", "a", "b"), ("s2", "x", "y"), ("s1", "a b", "c"), ("s1", "b c", "d")]
    write_benchmark(tmp_path / "b", train=rows, valid=[("s3", "a", "b")], test=[("s4", "a", "b")])
    train, _, _ = build(config_of("b", **BENCHMARK))
    assert token_rows(train) == [
        ("s1", ["a"], "b"),
        ("s1", ["a", "b"], "c"),
        ("s1", ["a", "b", "c"], "d"),
        ("s2", ["x"], "y"),
    ]
    train, _, _ = build(config_of("b", **BENCHMARK, session_augmentation="last"))
    assert token_rows(train) == [("s1", ["a", "b", "c"], "d"), ("s2", ["x"], "y")]


def test_list_field_needs_no_alias(tmp_path: Path, config_of, build) -> None:
    rows = [("s1", "a b c", "d")]
    write_benchmark(tmp_path / "b", train=rows, valid=rows, test=rows)
    for part in build(config_of("b", **{**BENCHMARK, "alias_of_item_id": None}, session_augmentation="last")):
        assert token_rows(part) == [("s1", ["a", "b", "c"], "d")] and part.item_num == 5


def test_rows_that_are_no_prefixes_are_refused(tmp_path: Path, config_of, build) -> None:
    rows = [("s1", "a b", "c"), ("s1", "x y", "z")]
    write_benchmark(tmp_path / "b", train=rows, valid=[("s3", "a", "b")], test=[("s4", "a", "b")])
    with pytest.raises(AlkdError, match="session 's1'"):
        build(config_of("b", **BENCHMARK))


def test_bad_benchmarks(tmp_path: Path, config_of) -> None:
    rows = [("s1", "a", "b")]
    write_benchmark(tmp_path / "b", train=rows, valid=rows, test=rows)
    with pytest.raises(AlkdError, match=r"benchmark_filename: \['train', 'test'\].*three"):
        ALKDRecDataset(config_of("b", **{**BENCHMARK, "benchmark_filename": ["train", "test"]}))
    with pytest.raises(AlkdError, match=r"seq_len.*MAX_ITEM_LIST_LENGTH"):
        ALKDRecDataset(config_of("b", **BENCHMARK, seq_len={"item_id_list": 2}))
    with pytest.raises(
        AlkdError, match="no column visit; it has session_id, item_id_list, item_id: set USER_ID_FIELD"
    ):
        ALKDRecDataset(config_of("b", **{**BENCHMARK, "USER_ID_FIELD": "visit"}))
    with pytest.raises(
        AlkdError,
        match=r"no file b\.dev\.inter in .*; there are b\.test\.inter, b\.train\.inter, b\.valid\.inter",
    ):
        ALKDRecDataset(config_of("b", **{**BENCHMARK, "benchmark_filename": ["train", "dev", "test"]}))
    write_benchmark(tmp_path / "e", train=[("s1", "", "b"), *rows], valid=rows, test=rows)
    with pytest.raises(AlkdError, match="1 empty histories"):
        ALKDRecDataset(config_of("e", **BENCHMARK))


def test_alkdrec_ml(config_of, build) -> None:
    folder = shared_data("alkdrec-ml")
    config = config_of("alkdrec-ml", **BENCHMARK, MAX_ITEM_LIST_LENGTH=10, session_augmentation="last")
    config["data_path"] = str(folder)
    parts = build(config)
    assert [len(part) for part in parts] == [7_393, 2_465, 2_465]
    for name, part in zip(PARTS, parts, strict=True):
        assert token_rows(part) == [
            (s, history[-10:], target) for s, history, target in read_rows(folder, name)
        ]


# settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {"LS": "valid_and_test"}}, "split.*prefixes of valid and test sessions"),
        ({"group_by": "user"}, "group_by 'user'.*prefixes"),
        ({"order": "XO"}, "order 'XO'"),
        ({"split": {"RS": [0.8, 0.2]}}, "three positive numbers"),
        ({"split": {"RS": [0.8, 0.3, -0.1]}}, "three positive numbers"),
        ({"split": {"RS": "0.8"}}, "three positive numbers"),
    ],
)
def test_eval_args(tmp_path: Path, config_of, change: dict, message: str) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(6))
    config = config_of("toy")
    config["eval_args"] = {**config["eval_args"], **change}
    with pytest.raises(AlkdError, match=message):
        ALKDRecDataset(config)


def test_bad_plain_files(tmp_path: Path, config_of) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(7))
    with pytest.raises(AlkdError, match="no column 'visit'"):
        ALKDRecDataset(config_of("toy", USER_ID_FIELD="visit"))
    with pytest.raises(AlkdError, match="no column 'when'"):
        ALKDRecDataset(config_of("toy", TIME_FIELD="when"))
    with pytest.raises(AlkdError, match="no session is left with 99 records"):
        ALKDRecDataset(config_of("toy", session_min_length=99))
    clicks = [(s, k, k) for s in range(9) for k in range(6)]
    write_inter(tmp_path / "places" / "places.inter", clicks)
    config = config_of("places", session_window=None)
    assert len(ALKDRecDataset(config).build()) == 3
    config["eval_args"] = {**config["eval_args"], "order": "TO"}
    with pytest.raises(AlkdError, match=r"positions.*order: RO"):
        ALKDRecDataset(config)


def test_time_unit(tmp_path: Path, config_of, build) -> None:
    clicks = [(f"u{u}", f"i{k}", f"{START}{k:03d}") for u in range(4) for k in (3, 1, 2, 0, 4)]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    with pytest.raises(AlkdError, match="session_time_unit"):
        ALKDRecDataset(config_of("toy"))
    train, _, _ = build(config_of("toy", session_time_unit="ms", session_augmentation="last"))
    assert [row[1:] for row in token_rows(train)] == [(["i0", "i1", "i2", "i3"], "i4")] * 2


def test_columns_recbole_does_not_load(tmp_path: Path, config_of, build) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(8))
    with_time = build(config_of("toy"))
    without = build(config_of("toy", load_col={"inter": ["user_id", "item_id"]}))
    assert [token_rows(part) for part in with_time] == [token_rows(part) for part in without]


# RecBole's own filters


def sessions_of(parts: list[ALKDRecDataset]) -> dict[str, list[str]]:
    return {s: [*history, target] for part in parts for s, history, target in token_rows(part)}


def test_filters_keep_exact_times(tmp_path: Path, config_of, build) -> None:
    clicks = some_clicks(9, items=8)
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    kept = [click for click in clicks if START + 3 <= click[2] % DAY + START <= START + 15]
    write_inter(tmp_path / "less" / "less.inter", kept)
    days = ";".join(f"[{START + day * DAY + 3},{START + day * DAY + 15}]" for day in range(4))
    filtered = build(config_of("toy", val_interval={"timestamp": days}, session_augmentation="last"))
    assert sessions_of(filtered) == sessions_of(build(config_of("less", session_augmentation="last")))


@pytest.mark.parametrize("keep", ["first", "last"])
def test_duplicates_are_those_of_a_session(tmp_path: Path, config_of, build, keep: str) -> None:
    clicks = [
        (u, item, START + k)
        for u in range(6)
        for k, item in ((1, "b"), (2, "a"), (3, "c"), (0, "a"), (4, "d"))
    ]
    clicks += [(u, item, START + DAY + k) for u in range(6) for k, item in enumerate("abcd")]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    sessions = sessions_of(
        build(config_of("toy", rm_dup_inter=keep, session_min_length=4, session_augmentation="last"))
    )
    first_day = {"first": list("abcd"), "last": list("bacd")}[keep]
    for session, items in sessions.items():
        assert items == (first_day if session.endswith(f"@{START // DAY}") else list("abcd"))
    assert len(sessions) == 12


def test_session_length_after_item_filter(tmp_path: Path, config_of, build) -> None:
    # without the rare item, the session of u0 has four records
    clicks = [(f"u{u}", f"i{k}", START + k) for u in range(6) for k in range(6 if u else 4)] + [
        ("u0", "rare", START + 9)
    ]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    assert len(sessions_of(build(config_of("toy")))) == 6
    assert not any(
        s.startswith("u0") for s in sessions_of(build(config_of("toy", item_inter_num_interval="[2,inf)")))
    )
    longest = sessions_of(build(config_of("toy", user_inter_num_interval="[6,inf)")))
    assert len(longest) == 5


def test_filter_by_item_file(tmp_path: Path, config_of, build) -> None:
    clicks = [(f"u{u}", f"i{k}", START + k) for u in range(6) for k in range(7)]
    write_inter(tmp_path / "toy" / "toy.inter", clicks)
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\tyear:float\n" + "".join(f"i{k}\t{1990 + k}\n" for k in range(6))
    )
    columns = {"inter": ["user_id", "item_id"], "item": ["item_id", "year"]}
    sessions = sessions_of(build(config_of("toy", load_col=columns, val_interval={"year": "[1991,inf)"})))
    assert set(map(tuple, sessions.values())) == {("i1", "i2", "i3", "i4", "i5")}


# RecBole's own machinery


def test_save_and_reuse(tmp_path: Path, config_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole.data.dataset.GRU4RecDataset", ALKDRecDataset, raising=False)
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(10))
    config = config_of("toy", save_dataset=True, trust_checkpoint=True)
    first = token_rows(create_dataset(config).build()[0])
    monkeypatch.setattr(ALKDRecDataset, "_load_data", lambda *_: pytest.fail("loaded again"))
    assert token_rows(create_dataset(config).build()[0]) == first
    for change in (
        {"session_window": 3600},
        {"session_augmentation": "last"},
        {"session_min_length": 4},
        {"session_time_unit": "s"},
    ):
        with pytest.raises(BaseException, match="loaded again"):
            create_dataset(config_of("toy", trust_checkpoint=True, **change))


def test_pickled_parts(tmp_path: Path, config_of, build) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(11))
    for part in build(config_of("toy")):
        again = pickle.loads(pickle.dumps(part))
        assert token_rows(again) == token_rows(part) and np.array_equal(again.row_is_last, part.row_is_last)


def test_flops_and_case_study(tmp_path: Path, config_of) -> None:
    from recbole.data.transform import construct_transform
    from recbole.utils import get_flops, init_seed

    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(12))
    config = config_of("toy", embedding_size=4, hidden_size=4)
    init_seed(1, True)
    dataset = ALKDRecDataset(config)
    train, _, test = data_preparation(config, dataset)
    model = get_model("GRU4Rec")(config, train._dataset)
    assert get_flops(model, dataset, config["device"], None, construct_transform(config)) > 0
    part = test._dataset
    sessions = part.inter_feat["user_id"].numpy()[[2, 0]]
    scores, items = full_sort_topk(sessions, model, test, 3)
    assert items.shape == (2, 3)
    for session, row in zip(sessions, scores, strict=True):
        at = int((part.inter_feat["user_id"] == int(session)).nonzero())
        model.eval()
        wanted = model.full_sort_predict(part[[at]]).view(-1)
        wanted[0] = -torch.inf
        assert torch.allclose(row, wanted.topk(3).values)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clicks=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 3 * DAY)), min_size=30, max_size=60
    ),
    length=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_against_make_sessions(tmp_path: Path, config_of, build, clicks, length: int, seed: int) -> None:
    clicks = [(u, i, t + START) for u, i, t in clicks]
    raw = write_inter(tmp_path / "toy" / "toy.inter", clicks)
    chosen = {"min_length": 2, "max_length": length, "seed": seed}
    try:
        make_sessions(raw, tmp_path / "made", **chosen)
    except AlkdError:
        with pytest.raises(AlkdError):
            build(config_of("toy", session_min_length=2, MAX_ITEM_LIST_LENGTH=length, seed=seed))
        return
    parts = build(config_of("toy", session_min_length=2, MAX_ITEM_LIST_LENGTH=length, seed=seed))
    assert [token_rows(part) for part in parts] == [read_rows(tmp_path / "made", part) for part in PARTS]


def test_a_data_set_that_is_nowhere_is_named(tmp_path: Path, config_of) -> None:
    config = config_of("nosuch", data_path=str(tmp_path))
    with pytest.raises(AlkdError, match=r"no folder '.*nosuch'.*data_path is the folder above"):
        ALKDRecDataset(config)
