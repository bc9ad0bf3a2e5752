"""How many requests a second the API teacher keeps going.
``pytest tests/teacher/test_api_speed.py -m benchmarks -s``."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.registry import teachers
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.testing.teachers import TITLES

SECONDS, IN_FLIGHT, REQUESTS = 0.2, 32, 1600


def _serve(address: Any) -> None:
    with ChatServer(lambda number, body: {"sleep": SECONDS}) as server:
        address.put(server.url)
        time.sleep(600)


@pytest.mark.benchmarks
def test_requests_a_second(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra `api`")
    context = multiprocessing.get_context("fork")
    address = context.Queue()
    process = context.Process(target=_serve, args=(address,), daemon=True)
    process.start()
    values = {"llm_model": "x", "llm_base_url": address.get(timeout=30), "llm_concurrency": IN_FLIGHT}
    teacher = teachers.get("api")(
        TeacherContext(read_settings(values), "ml-tiny", tmp_path, TITLES, tmp_path)
    )
    candidates = tuple(sorted(TITLES))[:50]
    instances = [Instance(row, f"s{row}", (f"{row % 10}A",), candidates) for row in range(REQUESTS)]
    try:
        with LabelStore(tmp_path / "labels.sqlite") as store:
            teacher.prepare()
            collected = collect_labels(teacher, instances, store, Budget(REQUESTS), show_progress=False)
    finally:
        teacher.close()
        process.kill()
    assert len(collected.labels) == REQUESTS
    rate, most = REQUESTS / collected.bill.seconds, IN_FLIGHT / SECONDS
    print(f"\n{rate:.1f} requests a second, stored durably; {most:g} are possible ({rate / most:.1%})")
