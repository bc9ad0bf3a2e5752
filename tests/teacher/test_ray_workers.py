"""``label_engine: ray``: answers are those of this process, and a node that is killed costs no label.

Slow: a Ray cluster of two nodes on this machine. It needs Python 3.12 and Ray 2.49 or later.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_llm import TITLES as TINY
from tiny_llm import context, tiny_llm

from recbole_alkd.labelling import ray_actors
from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labelling.ray_cluster import check_ray
from recbole_alkd.labelling.ray_titles import RayTitles
from recbole_alkd.labels import Budget, Label, LabelStore
from recbole_alkd.llm import text_vectors
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, LLMTeacher, LoraExample


def why_not() -> str:
    try:
        check_ray()
    except AlkdError as error:
        return str(error)
    return ""


needs_ray = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.mark.parametrize("python", [(3, 10, 2), (3, 11, 7)])
def test_an_old_python_is_told_why(python: tuple[int, ...]) -> None:
    with pytest.raises(AlkdError, match=r"needs Python 3\.12 or later, this is 3\.1[01]\.[27]: .*local"):
        check_ray(python)


def test_an_old_ray_and_none_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("ray")
    module.__version__ = "2.6.3"  # type: ignore[attr-defined]
    module.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(AlkdError, match=r"needs Ray 2\.49 or later, this is 2\.6\.3: pip install"):
        check_ray((3, 12, 1))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AlkdError, match=r"needs the ray package: pip install 'recbole_alkd\[ray\]'"):
        check_ray((3, 12, 1))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"label_engine": "ray", "llm_teacher": "api", "llm_model": "m"}, "several servers"),
        ({"label_engine": "ray", "llm_teacher": "null"}, "is for the LLM teacher local, not for 'null'"),
        ({"ray_address": "auto"}, "only used with label_engine: ray"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(AlkdError, match=words):
        read_settings(values)


def questions(number: int) -> list[Instance]:
    """Sessions no two of which are alike."""
    items = sorted(TINY)
    return [
        Instance(row, f"s{row}", (items[row % 9], items[row // 9 % 9], items[row // 81]), tuple(items[1:7]))
        for row in range(number)
    ]


def teacher_of(model: Path, folder: Path, engine: str, address: str | None = None, **own: Any) -> LLMTeacher:
    values = {"label_engine": engine, "llm_threads": 1, "llm_candidates": 6, "llm_top_n": 4, **own}
    return teachers.get("local")(context(model, folder, values | {"ray_address": address}))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def rankings(store: LabelStore) -> dict[str, tuple[str, ...]]:
    return {label.key: label.ranking for label in store}


@pytest.mark.slow
@needs_ray
def test_a_node_that_is_killed_in_the_middle_costs_no_label(
    cluster: Any, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes, second = cluster
    number = 200
    with LabelStore(tmp_path / "here.sqlite") as store:
        teacher = teacher_of(model, tmp_path / "here", "local")
        collect_labels(teacher, questions(number), store, Budget(number), show_progress=False)
        teacher.close()
        expected = rankings(store)
    assert len(expected) == number
    killed: list[Any] = []

    class Killing(LabelStore):
        """Kills a node when a part of the answers is stored."""

        def put_many(self, labels: Iterable[Label]) -> int:
            stored = super().put_many(labels)
            if not killed and len(self) >= 40:
                killed.append(second)
                nodes.remove_node(second, allow_graceful=False)
            return stored

    teacher = teacher_of(model, tmp_path / "there", "ray", nodes.address)
    budget = Budget(number)
    with Killing(tmp_path / "there.sqlite") as store:
        with caplog.at_level(logging.WARNING):
            collected = collect_labels(teacher, questions(number), store, budget, show_progress=False)
        teacher.close()
        assert killed and collected.missing == () and collected.bill.asked == number
        assert rankings(store) == expected  # to the last place, whoever answered
    assert budget.spent.labels == number
    assert any("is lost" in text for text in caplog.messages)


@pytest.mark.slow
@needs_ray
def test_an_actor_whose_process_dies_is_replaced(
    cluster: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    killed: list[int] = []
    send = ray_actors.RayActors._send

    def killing(self: Any, worker: Any, *more: Any) -> None:
        pid = ray.get(worker.actor.__ray_call__.remote(lambda _: os.getpid()))
        send(self, worker, *more)
        if worker.sent and len(killed) < 2:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(ray_actors.RayActors, "_send", killing)
    teacher = teacher_of(model, tmp_path / "there", "ray", cluster[0].address)
    with LabelStore(tmp_path / "labels.sqlite") as store:
        collected = collect_labels(teacher, questions(60), store, Budget(60), show_progress=False)
        assert len(killed) == 2 and len(set(killed)) == 2 and len(store) == 60
    assert collected.bill.asked == 60 and collected.missing == ()


@pytest.mark.slow
@needs_ray
def test_the_adapter_that_was_trained_here_answers_there(cluster: Any, model: Path, tmp_path: Path) -> None:
    from recbole_alkd.labelling.supplies import Supplies
    from recbole_alkd.teacher.base import Materials

    items = sorted(TINY)
    examples = tuple(LoraExample((items[k % 9],), tuple(items[:6]), items[k % 6], True) for k in range(40))

    class Examples(Supplies):
        def materials(self, teacher: LLMTeacher, hints: Any) -> Materials:
            return Materials(hints, examples, ())

    by_engine = {}
    for engine in ("local", "ray"):
        values = {"lora": True, "lora_examples": 40, "lora_batch_size": 4, "lora_learning_rate": 2e-2}
        address = cluster[0].address if engine == "ray" else None
        teacher = teacher_of(model, tmp_path / engine, engine, address, **values)
        with LabelStore(tmp_path / f"{engine}.sqlite") as store:
            supplies = Examples.__new__(Examples)
            collect_labels(teacher, questions(20), store, Budget(20), show_progress=False, supplies=supplies)
            assert teacher.lora_report and teacher.lora_report["examples"] == 40
            by_engine[engine] = rankings(store)
        teacher.close()
    assert by_engine["local"] == by_engine["ray"] and len(by_engine["ray"]) == 20


@pytest.mark.slow
@needs_ray
def test_titles_are_encoded_by_the_actors_though_a_node_is_killed(
    cluster: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, second = cluster
    monkeypatch.setattr(text_vectors, "_TITLES_AT_ONCE", 4)
    texts = [f"{title} {number}" for number in range(12) for title in TINY.values()]
    here = text_vectors.text_vectors(texts, str(model), 1, tmp_path / "here")
    settings = read_settings({"label_engine": "ray", "llm_threads": 1, "ray_address": nodes.address}).teacher
    monkeypatch.setattr(text_vectors, "load_text_model", lambda *_: pytest.fail("loaded in the driver"))
    batches, killed = [], []

    def killing(*asked: Any) -> Iterator[Any]:
        for answer in RayTitles(settings, "cpu")(*asked):
            batches.append(answer[0])
            if len(batches) == 5:
                killed.append(second)
                nodes.remove_node(second, allow_graceful=False)
            yield answer

    there = text_vectors.text_vectors(texts, str(model), 1, tmp_path / "there", elsewhere=killing)
    assert killed and sorted(batches) == list(range(-(-len(set(texts)) // 4)))  # each batch once
    assert (there.vectors == here.vectors).all() and there.tokens == here.tokens


@pytest.mark.slow
@needs_ray
def test_a_cluster_without_room_is_given_up(
    cluster: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_actors, "PATIENCE", 3.0)
    teacher = teacher_of(model, tmp_path, "ray", cluster[0].address, llm_threads=7)
    with LabelStore(tmp_path / "labels.sqlite") as store, pytest.raises(AlkdError, match="needed: 7 CPUs"):
        collect_labels(teacher, questions(2), store, Budget(2), show_progress=False)


@pytest.mark.slow
@needs_ray
def test_an_address_without_a_cluster_is_named(model: Path, tmp_path: Path) -> None:
    teacher = teacher_of(model, tmp_path, "ray", "127.0.0.1:9")
    words = r"ray_address: '127\.0\.0\.1:9': no cluster there"
    with LabelStore(tmp_path / "labels.sqlite") as store, pytest.raises(AlkdError, match=words):
        collect_labels(teacher, questions(2), store, Budget(2), show_progress=False)
