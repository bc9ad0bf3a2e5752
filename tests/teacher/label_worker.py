"""A process that labels with the API teacher: ``python label_worker.py '{"url": ..., "store": ..., ...}'``.

It ends with one JSON line: what ``label`` gives.

A copy of its own of the run's budget, ledger and store, as `recbole-alkd label` has them;
killed, stopped and starved by tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from recbole_alkd.labels import Budget, LabelStore, claims  # noqa: E402
from recbole_alkd.labels.ledger import Ledger  # noqa: E402
from recbole_alkd.registry import teachers  # noqa: E402
from recbole_alkd.settings.error import AlkdError  # noqa: E402
from recbole_alkd.settings.reading import read_settings  # noqa: E402
from recbole_alkd.teacher import api, chat_client, labelling  # noqa: E402
from recbole_alkd.teacher.base import TeacherContext  # noqa: E402
from recbole_alkd.testing.teachers import TITLES, some_instances  # noqa: E402


def label(
    url: str,
    store: str,
    count: int,
    tokens: int | None = None,
    ledger: str | None = None,
    concurrency: int = 4,
    claim_seconds: float = 60.0,
    **values: Any,
) -> dict[str, Any]:
    """Label ``count`` instances; what came of it."""
    chat_client.FIRST_PAUSE = 0.01
    real = claims.Claims.__init__

    def short(
        self: Any, file: LabelStore, seconds: float = claim_seconds, retry_failed: bool = False
    ) -> None:
        real(self, file, claim_seconds, retry_failed)

    claims.Claims.__init__ = short  # type: ignore[method-assign]
    assert api.ApiTeacher  # registered
    settings = read_settings(
        {"llm_teacher": "api", "llm_model": "m", "llm_base_url": url, "lora": False, "llm_hints": False,
         "llm_top_n": 7,
         "llm_concurrency": concurrency, "llm_timeout": 60.0, **values}
    )  # fmt: skip
    teacher = teachers.get("api")(
        TeacherContext(settings, "ml-tiny", Path(store).parent, TITLES, Path(store).parent)
    )
    budget = Budget(count, tokens=tokens, ledger=Ledger(Path(ledger)) if ledger else None)
    ended = None
    try:
        with LabelStore(store) as opened:
            collected = labelling.collect_labels(
                teacher, questions(count), opened, budget, show_progress=False
            )
            ended = collected.ended
    except AlkdError as error:
        ended = str(error)
    finally:
        teacher.close()
    return {"spent": budget.spent.tokens, "ended": ended}


def questions(count: int) -> list[Any]:
    """``count`` instances that differ."""
    return [one for seed in range(-(-count // 6)) for one in _numbered(seed)][:count]


def _numbered(seed: int) -> list[Any]:
    from dataclasses import replace

    return [
        replace(one, row=100 + 6 * seed + k, session=f"s{seed}-{k}")
        for k, one in enumerate(some_instances(6, seed))
    ]


if __name__ == "__main__":
    print(json.dumps(label(**json.loads(sys.argv[1]))), flush=True)
