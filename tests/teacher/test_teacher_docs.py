"""Every settings file of docs/teachers.md is valid, and runs on the tiny data set with small models in place
of large ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from process import ROOT
from test_teacher_runs import SETTINGS, api, go, home, script  # noqa: F401  (the fixture)
from tiny import N_ITEMS, tiny_config
from tiny_llm import tiny_llm

from recbole_alkd.plugin import settings_of
from recbole_alkd.registry import teachers
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.settings.text import read_yaml
from recbole_alkd.teacher.base import Instance, TeacherContext, most_of

PAGE = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
BLOCKS = [
    (section.splitlines()[0], block)
    for section in PAGE.split("\n## ")[1:]
    for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
]
IDS = [f"{k} {title}" for k, (title, _) in enumerate(BLOCKS)]


def test_every_teacher_is_on_the_page() -> None:
    shown = {read_yaml(block)["llm_teacher"] for _, block in BLOCKS}
    assert shown == {"local", "api", "replay", "recommender", "text", "null"}
    scorings = {read_yaml(block).get("llm_scoring") for _, block in BLOCKS}
    assert {"title", "index", "generate"} <= scorings


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=IDS)
def test_a_block_is_a_settings_file(
    tiny_path: Path, tmp_path: Path, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(block)
    monkeypatch.chdir(tmp_path)
    if values.get("llm_replay_file"):  # read before anything is trained
        Path(values["llm_replay_file"]).parent.mkdir()
        Path(values["llm_replay_file"]).write_text('{"session_id": "s", "ranking": ["b"]}\n')
    assert set(values) <= set(FIELDS)
    settings = settings_of(tiny_config(tiny_path, **values))
    assert settings == read_settings(values | {k: v for k, v in settings.flat().items() if k not in values})
    if settings.teacher.llm_teacher == "replay":
        (tmp_path / "tiny.llm.jsonl").write_text('{"session_id": "s", "ranking": ["b"]}\n')
    titles = {"a": "A", "b": "B", "c": "C"}
    context = TeacherContext(settings, "tiny", tmp_path, titles, tmp_path / "cache", hint_key="k")
    teacher = teachers.get(settings.teacher.llm_teacher)(context)
    instance = Instance(0, "s", ("a",), ("b", "c"))
    assert teacher.identity and isinstance(teacher.prompt(instance), str)
    most = most_of(teacher, instance)
    assert most.tokens >= 0 and (most.usd is None) == (values.get("budget_usd") is None)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=IDS)
def test_a_block_runs(home: Path, block: str) -> None:  # noqa: F811
    values = read_yaml(block)
    small: dict[str, Any] = {"budget_labels": 5, "llm_candidates": 8, "llm_top_n": 4, "llm_hint_cases": 2}
    (home / "gpt").mkdir()
    rankings = [
        json.dumps({"session_id": f"s{n}", "ranking": [f"i{1 + (n + k) % N_ITEMS}" for k in range(9)]}) + "\n"
        for n in range(40)
    ]
    for file in ("gpt/rankings.jsonl", "data/tiny/tiny.llm.jsonl"):
        (home / file).write_text("".join(rankings))
    if values["llm_teacher"] == "local":
        small |= {"llm_model": str(tiny_llm(home / "llm")), "llm_dtype": "float32"}
    if values.get("lora", True):
        small["lora_examples"] = 16
    with ChatServer(script) as server:
        if values["llm_teacher"] == "api":
            small |= {"llm_base_url": server.url, "llm_requests_per_minute": None, "llm_api_key_env": None}
        if values.get("llm_scoring") == "generate":
            # an LLM with random weights writes no ranking; what can be asked of it is that it writes
            with pytest.raises(ValueError, match="gave no usable label for 5 instances, 5 failed"):
                go(**{**values, **small})
            return
        report = go(**{**values, **small})
    assert report["labels"]["asked"] == 5 and report["labels"]["failed"] == 0
    assert (report["lora"] is not None) == (values["llm_teacher"] == "local" and values.get("lora", True))
