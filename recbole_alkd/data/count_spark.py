"""Partial counts of clicks that lie on a cluster: Spark brings the clicks of a session to one task, and every
task counts its sessions as ``recbole-alkd count`` does and writes a file of counts, for ``recbole-alkd
merge``.

    spark-submit --py-files ... -m recbole_alkd.data.count_spark --inter hdfs:///clicks --out /shared/counts

Executors need this package, and a folder ``--out`` that all of them and you can see. Spark 4, Python 3.10 and
later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recbole_alkd.data.click_blocks import ClickColumns, Items, arrow_block
from recbole_alkd.data.count_arguments import add_count_arguments, columns_and_settings
from recbole_alkd.data.count_sessions import count_blocks
from recbole_alkd.data.partial_counts import CountSettings
from recbole_alkd.settings.error import AlkdError


def count_spark(
    spark: Any,
    inter: str,
    out: Path,
    columns: ClickColumns,
    settings: CountSettings,
    tasks: int | None = None,
) -> list[Path]:
    """Count the clicks of a Parquet data set.

    Args:
        spark: a SparkSession. inter: a path that Spark reads. out: a folder that all executors see.
        columns, settings: as for ``count_file``. tasks: files of counts; None: as many as Spark shuffles to.

    Returns:
        the files, of the tasks that had sessions. A task that is tried again writes nothing twice.

    Raises:
        AlkdError: columns that are missing or of a type that is no id or time, or no session at all.
    """
    clicks = spark.read.parquet(inter)
    names = list(dict.fromkeys((columns.session, columns.item, columns.time)))
    for name in names:
        if name not in clicks.columns:
            raise AlkdError(f"{inter}: no column {name!r}; it has {', '.join(clicks.columns)}")
    out = out.resolve()

    def count(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow as pa
        from pyspark import TaskContext

        task = TaskContext.get()
        items, name = Items(), f"task-{task.partitionId() if task else 0:05}"
        blocks = (arrow_block(batch, columns, items, f"{inter}, {name}") for batch in batches)
        file = count_blocks(blocks, items, name, out, settings, again=True)
        yield pa.RecordBatch.from_pydict(
            {"file": [str(file)] if file else []}, pa.schema([("file", pa.string())])
        )

    tasks = tasks or int(spark.conf.get("spark.sql.shuffle.partitions"))
    whole = clicks.select(*names).repartition(tasks, columns.session)  # all clicks of a user are in one task
    try:
        files = sorted(Path(row.file) for row in whole.mapInArrow(count, "file string").collect())
    except Exception as error:
        said = [line for line in str(error).splitlines() if "AlkdError: " in line]
        if said:
            raise AlkdError(said[-1].partition("AlkdError: ")[2]) from None
        raise
    if not files:
        raise AlkdError(f"{inter}: no session of {settings.min_length} clicks or more in it")
    return files


def main() -> None:
    """``python -m recbole_alkd.data.count_spark``."""
    parser = argparse.ArgumentParser(prog="python -m recbole_alkd.data.count_spark", description=__doc__)
    add_count_arguments(parser, "a Parquet data set that Spark reads")
    parser.add_argument("--tasks", type=int, help="files of counts (default: spark.sql.shuffle.partitions)")
    args = parser.parse_args()
    try:
        how = columns_and_settings(args)
        if args.tasks is not None and args.tasks < 1:
            raise AlkdError(f"--tasks: {args.tasks} is not allowed; allowed: a whole number of at least 1")
        from pyspark.sql import SparkSession

        files = count_spark(SparkSession.builder.getOrCreate(), args.inter, args.out, *how, args.tasks)
    except AlkdError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(files)} files of counts in {args.out}; add them: recbole-alkd merge {args.out} --out all")


if __name__ == "__main__":
    main()
