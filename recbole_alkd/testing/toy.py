"""Toy data with a pattern, and a whole run on it: for tests of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("crimson rose", "emerald leaf", "sapphire sea")
N_ITEMS = 45
COUNTS = {"train": 48, "valid": 24, "test": 24}

# a run of a second or two on one core
TOY_SETTINGS: Mapping[str, Any] = {
    "benchmark_filename": ["train", "valid", "test"],
    "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6,
    "use_gpu": False,
    "show_progress": False,
    "epochs": 3,
    "train_batch_size": 16,
    "softmax_negatives": 16,
    "student_embedding_size": 4,
    "teacher_embedding_size": 8,
    "budget_labels": 10,
    "llm_candidates": 8,
    "llm_top_n": 4,
    "llm_teacher": "recommender",
    "lora": False,
}


def write_toy_data(folder: Path, name: str = "toy", seed: int = 11) -> Path:
    """Write a data set of 96 sessions on 45 items: of three kinds of items, a session keeps to one most of
    the time.

    Args:
        folder: RecBole's ``data_path``; the files are ``folder/name/name.{train,valid,test}.inter`` and
            ``name.item``, with a title for every item.
        name: of the data set. seed: of the sessions.

    Returns:
        ``folder``.
    """
    rng = np.random.default_rng(seed)
    target_folder = folder / name
    target_folder.mkdir(parents=True)
    number = 0
    for part, count in COUNTS.items():
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for _ in range(count):
            kind, length = int(rng.integers(len(KINDS))), int(rng.integers(2, 7))
            items = [3 * int(k) + kind + 1 for k in rng.permutation(N_ITEMS // 3)[: length + 1]]
            if rng.random() < 0.3:  # a click on something else
                items[int(rng.integers(length))] = int(rng.integers(1, N_ITEMS + 1))
            history = " ".join(f"i{item}" for item in items[:-1])
            lines.append(f"s{number}\t{history}\ti{items[-1]}")
            number += 1
        (target_folder / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = [f"i{item}\t{KINDS[item % 3]} no {item:02d}" for item in range(1, N_ITEMS + 1)]
    content = "\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n"
    (target_folder / f"{name}.item").write_text(content, encoding="utf-8")
    return folder


def run_toy(folder: Path, model: str = "ALKDRec", **settings: Any) -> dict[str, Any]:
    """Run ``run_recbole_alkd`` on toy data, which is written into ``folder/data`` where it is not there.

    RecBole writes its logs below the working directory, so a test changes into a folder of its own first::

        def test_a_run(tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            report = run_toy(tmp_path, alkd_plugins="my_policy", alkd_policy="mine")
            assert report["labels"]["asked"] == 10

    Args:
        folder: where data, run folders and label store are. model: ALKDRec, or another model.
        settings: laid over ``TOY_SETTINGS``.

    Returns:
        What ``run_recbole_alkd`` returns.
    """
    from recbole_alkd import run_recbole_alkd
    from recbole_alkd.plugin import empty_argv

    data = folder / "data"
    if not (data / "toy").is_dir():
        write_toy_data(data)
    own = {"data_path": str(data), "checkpoint_dir": str(folder / "saved")}
    ours = {"label_store": str(folder / "labels.sqlite")} if model == "ALKDRec" else {}
    toy = TOY_SETTINGS if model == "ALKDRec" else {key: TOY_SETTINGS[key] for key in list(TOY_SETTINGS)[:10]}
    with empty_argv():
        return run_recbole_alkd(model=model, dataset="toy", config_dict={**toy, **own, **ours, **settings})
