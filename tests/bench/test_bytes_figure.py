"""The pictures of docs/results/bytes.md are drawn from its own table."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from process import ROOT

FILE = ROOT / "docs" / "figures" / "bytes.py"
pytest.importorskip("matplotlib", reason="the extra bench is not installed")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bytes_figure", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dataset", ["alkdrec-ml", "online-retail"])
def test_every_row_of_the_table_is_drawn(script, dataset: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "results" / "bytes.md").read_text(encoding="utf-8")
    rows = script.rows_of(text, *script.SETS[dataset][:2])
    assert len(rows) == 16 and len({row.name for row in rows}) == 16
    line = next(line for line in text.splitlines() if line.startswith("| 10 neighbours | 487 |"))
    means = re.findall(r"([0-9.]+) ±", line)
    row = next(row for row in rows if row.name == "10 neighbours")
    assert float(row.values["ndcg@10"][0]) == float(means[dataset == "online-retail"])
    assert row.bytes == 1024 * (487 if dataset == "alkdrec-ml" else 182)
    assert script.draw(dataset, tmp_path).read_bytes()[1:4] == b"PNG"
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]
