"""``labelled.jsonl`` in a run folder: the labelled sessions, the LLM's rankings, and the lists of every stage
beside them.

It stays in the run folder, since it holds sessions of users; a bundle has none.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.files import json_text, write_whole
from recbole_alkd.serving.labelled import LABELLED

_ROWS_AT_ONCE = 256
_MOST = 2_000  # labelled sessions that are written
_LONGEST = 10  # items of a list


def write_labelled(
    folder: Path,
    train: Any,
    labels: Mapping[int, Any],
    stages: Mapping[str, tuple[Any, dict[str, Any]]],
    names: Any = None,
    unit: str = "session",
) -> Path:
    """Write a line for each labelled session: ``session``, ``history``, ``target``, ``key`` (of the label in
    the store), ``llm`` (its ranking) and, by the names of the stages, the first items of their lists. Of
    labelled items ``session`` is the item, and a line has ``unit`` too.

    Args:
        folder: the run folder. train: the training part, or that of labelled items. labels: row -> label.
        names: what each row is called; None: its session. unit: what is labelled (``alkd_unit``).
        stages: stage -> its model and its state, which is put into the model; the last one stays in it.
    """
    import torch

    rows = np.array(sorted(labels)[:_MOST], dtype=np.int64)
    tokens, sessions = (
        np.asarray(train.field2id_token[field]) for field in (train.iid_field, train.uid_field)
    )
    lists: dict[str, list[list[str]]] = {}
    for name, (model, state) in stages.items():
        model.load_state_dict(state, strict=False)
        model.eval()
        ranked = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            batch = train.inter_feat[torch.from_numpy(rows[start : start + _ROWS_AT_ONCE])]
            batch = batch.to(next(itertools.chain(model.parameters(), model.buffers())).device)
            with torch.no_grad():
                scores = model.full_sort_predict(batch).view(len(batch), -1)
            scores[:, 0] = -torch.inf  # the padding
            best = scores.topk(min(_LONGEST, scores.shape[1] - 1), dim=1)[1]
            ranked += [tokens[row].tolist() for row in best.cpu().numpy()]
        lists[name] = ranked
    feat, text = train.inter_feat[torch.from_numpy(rows)], io.StringIO()
    history = feat[train.iid_field + train.config["LIST_SUFFIX"]].numpy()
    length = feat[train.config["ITEM_LIST_LENGTH_FIELD"]].numpy()
    for k, row in enumerate(rows.tolist()):
        label, target = labels[row], int(feat[train.iid_field][k])
        line = {
            "session": str(sessions[int(feat[train.uid_field][k])] if names is None else names[row]),
            "history": tokens[history[k, : length[k]]].tolist(),
            "target": str(tokens[target]) if target else "",  # an item may have none
            "key": label.key,
            "llm": list(label.ranking),
            **{name: ranked[k] for name, ranked in lists.items()},
            **({} if unit == "session" else {"unit": unit}),
        }
        text.write(json_text(line) + "\n")
    return write_whole(folder / LABELLED, text.getvalue())
