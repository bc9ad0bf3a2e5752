"""A bundle in the forms that other programs read: an ONNX graph, vectors, a Redis dump, a Triton model
repository."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recbole_alkd.files import PART, json_text, move_whole, whole_file
from recbole_alkd.serving.graphs import Encoder, Scorer
from recbole_alkd.serving.manifest import ENCODER, ITEMS, LOOKUP, ONNX, STUDENT
from recbole_alkd.serving.onnx_model import write_onnx
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.serving.students import Embeddings, Table
from recbole_alkd.settings.error import AlkdError

_AT_ONCE = 10_000  # items


def export_onnx(recommender: Recommender, out: Path) -> Path:
    """A folder with ``model.onnx`` and what it reads: nothing else is needed to serve it with ONNX Runtime.

    Raises:
        AlkdError: ``out`` is there, or the package onnx is missing.
    """
    return _whole(out, lambda folder: _put_model(recommender, folder))


def export_vectors(recommender: Recommender, out: Path) -> Path:
    """A folder that FAISS and usearch read: ``items.npy`` (n, d) float32, scored by inner product, and
    ``ids.txt``.

    The id on line k is that of row k. For SessionFPMC a session vector is the weighted mean of rows of
    ``inputs.npy``: of its newest ``max_length`` items each counts ``item_decay`` of the one after it
    (``session.json``). Another backbone brings the graph ``encoder.onnx``.

    Raises:
        AlkdError: a table, which has no vectors; ``out`` is there.
    """
    student = recommender.student
    if not isinstance(student, (Embeddings, Encoder)):
        name = recommender.manifest["student"]["backbone"]
        if isinstance(student, Table):
            what = "is a table and has none; allowed for it: bundle | onnx | redis | triton"
        else:
            what = "has only scores; allowed for it: bundle | onnx | triton"
        raise AlkdError(f"format vectors: {name} {what}")

    def fill(folder: Path) -> None:
        np.save(folder / "items.npy", student.output[1:])
        facts: dict[str, float] = {"max_length": recommender.max_length}
        if isinstance(student, Embeddings):
            np.save(folder / "inputs.npy", student.input[1:])
            facts |= {"item_decay": student.decay}
        else:
            shutil.copyfile(recommender.path / ENCODER, folder / ENCODER)
        (folder / "session.json").write_text(json_text(facts) + "\n", encoding="utf-8")
        with open(folder / "ids.txt", "w", encoding="utf-8", newline="\n") as stream:
            for ids in _ids(recommender):
                stream.writelines(f"{one}\n" for one in ids)

    return _whole(out, fill)


def export_redis(recommender: Recommender, out: Path, prefix: str = "alkd:") -> Path:
    """A file of SET commands in Redis's own protocol (RESP), for ``redis-cli --pipe < FILE``.

    ``alkd:n:ID`` holds the neighbours of an item: the number of each as little-endian int32, then the weight
    of each as little-endian float16. ``alkd:i:NUMBER`` is the id behind a number, and ``alkd:table`` says as
    JSON what each place of a session counts, the newest first.

    Raises:
        AlkdError: no table, or ``out`` is there.
    """
    student = recommender.student
    if not isinstance(student, Table):
        name = recommender.manifest["student"]["backbone"]
        vectors = "" if isinstance(student, Scorer) else "vectors | "
        raise AlkdError(f"format redis: {name} is no table; allowed for it: bundle | onnx | {vectors}triton")
    if os.path.lexists(out):
        raise AlkdError(f"{out} is there already; allowed: a file that is not there")
    facts = {
        "items": student.n_items - 1,
        "recency": student.recency.tolist(),
        "numbers": "<i4",
        "weights": "<f2",
    }
    with whole_file(out) as stream:
        _set(stream, f"{prefix}table", json_text(facts).encode())
        number = 1
        for ids in _ids(recommender):
            for item in ids:
                row = slice(int(student.starts[number]), int(student.starts[number + 1]))
                packed = (
                    student.neighbours[row].astype("<i4").tobytes()
                    + student.weights[row].astype("<f2").tobytes()
                )
                _set(stream, f"{prefix}n:{item}", packed)
                _set(stream, f"{prefix}i:{number}", item.encode())
                number += 1
    return out


def export_triton(recommender: Recommender, out: Path) -> Path:
    """A model repository for Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/1/model.onnx`` with
    its numbers.

    Raises:
        AlkdError: ``out`` is there, or the package onnx is missing.
    """
    facts = recommender.manifest
    words = f"{facts['student']['backbone']}_{facts.get('dataset', {}).get('name', '')}".lower()
    name = re.sub(r"[^a-z0-9]+", "_", words).strip("_")

    def fill(folder: Path) -> None:
        (folder / name / "1").mkdir(parents=True)
        _put_model(recommender, folder / name / "1")
        (folder / name / "config.pbtxt").write_text(_triton_config(name), encoding="utf-8")

    return _whole(out, fill)


FORMATS: dict[str, Callable[[Recommender, Path], Path]] = {
    "onnx": export_onnx, "vectors": export_vectors, "redis": export_redis, "triton": export_triton,
}  # fmt: skip


def _put_model(recommender: Recommender, folder: Path) -> None:
    for name in (STUDENT, LOOKUP, ITEMS):
        shutil.copyfile(recommender.path / name, folder / name)
    if (recommender.path / ONNX).exists():
        shutil.copyfile(recommender.path / ONNX, folder / ONNX)
        return
    if isinstance(recommender.student, (Encoder, Scorer)):
        shutil.copyfile(recommender.path / ENCODER, folder / ENCODER)
    write_onnx(folder, recommender.manifest["student"], recommender.items.n_items)
    (folder / ENCODER).unlink(missing_ok=True)


def _triton_config(name: str) -> str:
    def tensors(what: str, arrays: list[tuple[str, str, str]]) -> str:
        entries = (f'  {{ name: "{one}" data_type: {kind} dims: {dims} }}' for one, kind, dims in arrays)
        return f"{what} [\n" + ",\n".join(entries) + "\n]"

    given = [("items", "TYPE_INT64", "[ -1, -1 ]"), ("blocked", "TYPE_INT64", "[ -1, -1 ]")]
    given += [("k", "TYPE_INT64", "[ 1 ]"), ("mask_session", "TYPE_BOOL", "[ 1 ]")]
    outputs = [("top_items", "TYPE_INT64", "[ -1, -1 ]"), ("top_scores", "TYPE_FP32", "[ -1, -1 ]")]
    # a batch is a dimension of the inputs: sessions of one request are scored together
    head = f'name: "{name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 0\n'
    return head + tensors("input", given) + "\n" + tensors("output", outputs) + "\n"


def _ids(recommender: Recommender) -> Iterator[list[str]]:
    """The ids of all items, many at a time."""
    for start in range(1, recommender.items.n_items, _AT_ONCE):
        yield recommender.items.ids(np.arange(start, min(start + _AT_ONCE, recommender.items.n_items)))


def _set(stream: BinaryIO, key: str, value: bytes) -> None:
    words = (b"SET", key.encode("utf-8"), value)
    stream.write(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))


def _whole(out: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that appears when everything is in it."""
    if os.path.lexists(out):
        raise AlkdError(f"{out} is there already; allowed: a folder that is not there")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(3)}{PART}")
    work.mkdir()
    try:
        fill(work)
        move_whole(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out
