"""Spark as a second maker of counts: the sum of its files is what ``count`` gives."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from test_partial_counts import COLUMNS, name_of, toy, write_clicks

from recbole_alkd import AlkdError
from recbole_alkd.data.click_blocks import ClickColumns
from recbole_alkd.data.count_sessions import count_file
from recbole_alkd.data.partial_counts import CountSettings, PartialCounts
from recbole_alkd.data.sum_counts import Sum

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    sql = pytest.importorskip(
        "pyspark.sql", reason="pyspark is not installed (pip install pyspark pyarrow; Java 17)"
    )
    pytest.importorskip("pyarrow")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers
    folder = tmp_path_factory.mktemp("spark")
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.warehouse.dir", str(folder)).config(
        "spark.sql.shuffle.partitions", "3"
    )
    session = builder.getOrCreate()
    yield session
    session.stop()


def parquet_of(folder, sessions, keys):
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        (k, name_of(item), 1000 + at)
        for k, one in zip(keys, sessions, strict=True)
        for at, item in enumerate(one)
    ]
    names = ("session_id", "item_id", "timestamp")
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    folder.mkdir()
    for k in range(4):
        parquet.write_table(table.slice(k * 80, 80), folder / f"{k}.parquet")
    assert table.num_rows <= 320
    return folder


def test_its_counts_are_those_of_count(tmp_path, spark):
    from recbole_alkd.data.count_spark import count_spark

    sessions, keys = toy()
    clicks = parquet_of(tmp_path / "clicks", sessions, keys)
    files = count_spark(spark, str(clicks), tmp_path / "counts", COLUMNS, CountSettings())
    assert len(files) == 3
    summed = Sum([PartialCounts.read(file) for file in files]).counts()
    plain = write_clicks(tmp_path / "plain.inter", sessions, keys)
    wanted = PartialCounts.read(count_file(plain, tmp_path / "own", COLUMNS, CountSettings()))
    assert summed.ids == wanted.ids and summed.sessions.tolist() == wanted.sessions.tolist()
    for x, y in zip(summed.pairs, wanted.pairs, strict=True):
        assert np.array_equal(x, y)
    assert sum(part.sessions for part in summed.parts) == wanted.parts[0].sessions == 60
    # a second try of the tasks writes nothing twice
    assert count_spark(spark, str(clicks), tmp_path / "counts", COLUMNS, CountSettings()) == files
    with pytest.raises(AlkdError, match="no column 'user_id'; it has session_id, item_id, timestamp"):
        count_spark(spark, str(clicks), tmp_path / "counts", ClickColumns(), CountSettings())
    other = ClickColumns("session_id", "item_id", "item_id", None)
    with pytest.raises(AlkdError, match="is not a number that can be kept exactly"):
        count_spark(spark, str(clicks), tmp_path / "other", other, CountSettings())
