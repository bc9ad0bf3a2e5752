"""How fast the label store is.

``pytest tests/labels/test_store_speed.py -m benchmarks -s`` prints the table of docs/performance.md.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbole_alkd.labels import Label, LabelStore, tools

MILLION = 1_000_000
TEACHER = (
    "local|smollm2-135m-instruct|title|title_tokens=8|history=8|top_n=25|seed=2020|dtype=auto|"
    "adapter:0123456789abcdef"
)


def made_up(start: int, end: int) -> Iterator[Label]:
    """Labels of the usual size: 50 candidates, 25 ranks, the raw answer."""
    rng = random.Random(start)
    items = [str(rng.randrange(10**5)) for _ in range(8000)]
    for number in range(start, end):
        candidates = tuple(dict.fromkeys(rng.sample(items, 50)))
        raw = "[" + ", ".join(f"<ID{token}>" for token in candidates[:25]) + "]"
        key = f"{number * 0x9E3779B97F4A7C15 % 2**256:064x}"  # spread like a hash
        yield Label(
            key,
            candidates[:25],
            candidates,
            raw,
            {},
            812,
            202,
            1.5,
            0.01,
            teacher=TEACHER,
            time=1.7e9 + number,
        )


@pytest.mark.benchmarks
def test_store_speed(tmp_path: Path) -> None:
    rows: list[tuple[str, str]] = []
    with LabelStore(tmp_path / "labels.sqlite") as store:
        for size, count in ((1, 2000), (100, 50_000), (1000, 100_000)):
            labels = list(made_up(len(store), len(store) + count))
            began = time.perf_counter()
            for start in range(0, count, size):
                store.put_many(labels[start : start + size])
            rows.append(
                (
                    f"durable puts, {size} in a transaction",
                    f"{count / (time.perf_counter() - began):,.0f} a second",
                )
            )
        for start in range(len(store), MILLION, 10_000):
            store.put_many(made_up(start, min(MILLION, start + 10_000)))
        rows.append(("size of 1,000,000 labels", f"{store.path.stat().st_size / 1e9:.2f} GB"))
        keys = [label.key for label in made_up(500_000, 500_500)]
        for name, what in {
            "`counts()` of 1,000,000": store.counts,
            "`recbole-alkd store list` of 1,000,000, without the printing": lambda: sum(
                1 for _ in tools.list_labels(store)
            ),
            "`recbole-alkd store stats` of 1,000,000": lambda: tools.stats(store),
            "`keys()` of 1,000,000": lambda: len(list(store.keys())),
            "looking up 500 of 1,000,000": lambda: store.get_many(keys),
            "`recbole-alkd store verify` of 1,000,000": lambda: tools.verify(store),
            "iterating over 1,000,000 `Label`": lambda: sum(1 for _ in store),
        }.items():
            began, cpu = time.perf_counter(), time.process_time()
            result = what()
            rows.append(
                (name, f"{time.perf_counter() - began:.2f} s, of which CPU {time.process_time() - cpu:.2f} s")
            )
            assert result in (MILLION, {"ok": MILLION, "failed": 0}, []) or len(result) in (1, 500)
    print("\n| what | |\n|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
