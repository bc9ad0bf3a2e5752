"""What other programs are given says the same as the bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
import pytest
from served import serve
from service_process import named_table, until

from recbole_alkd import AlkdError
from recbole_alkd.cli import main
from recbole_alkd.serving import Recommender
from recbole_alkd.serving.export import FORMATS

STUDENTS = ["SessionKNN", "SessionFPMC", "AttMix", "GRU4Rec", "BERT4Rec"]
MORE = ["SessionSTAMP", "NARM", "STAMP", "SASRec", "NextItNet", "CORE", "LightSANs", "SINE"]
STUDENTS += [pytest.param(name, marks=pytest.mark.slow) for name in MORE]


def session_of(file):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def random_sessions(rng, batch, width, blocked):
    length = rng.integers(0, width + 1, size=batch)
    items = rng.integers(1, 31, size=(batch, width))
    items[np.arange(width) >= length[:, None]] = 0
    return items, length, rng.integers(0, 31, size=(batch, blocked))


@pytest.mark.parametrize("name", STUDENTS)
def test_the_graph_gives_the_same_items_and_scores(tmp_path, name):
    """1,000 sessions of any length in batches of any size, with and without their own items; ties by the
    item's number."""
    served = serve(tmp_path, name, fusion=name not in ("SessionKNN", "SASRec"), edges=name == "SessionKNN")
    recommender = Recommender.load(served.bundle)
    run = session_of(served.bundle / "model.onnx").run
    rng, count = np.random.default_rng(0), 0
    for batch, width, blocked in ((1, 1, 0), (1, 9, 1), (300, 6, 3), (498, 9, 0), (200, 2, 5)):
        items, length, never = random_sessions(rng, batch, width, blocked)
        mask, k = bool(count % 2), 7 if count % 3 else 40
        outputs = run(
            None, {"items": items, "blocked": never, "k": np.array([k]), "mask_session": np.array([mask])}
        )
        for row in range(batch):
            session = items[row, : length[row]]
            banned = np.concatenate([never[row], session]) if mask else never[row]
            wanted, scores = recommender.top(session, k, banned)
            top, best = (one[row, : len(wanted)] for one in outputs)
            assert (
                not outputs[0][row, len(wanted) :].any() and (outputs[1][row, len(wanted) :] == -np.inf).all()
            )
            np.testing.assert_allclose(best, scores, rtol=1e-5, atol=1e-5)
            moved = np.flatnonzero(top != wanted)  # only where rounding makes two items equal
            assert name != "SessionKNN" or not len(moved)
            every = recommender.student.scores(session[-recommender.max_length :]) if len(moved) else None
            assert not len(moved) or np.abs(every[top[moved]] - scores[moved]).max() < 1e-5
            assert (np.diff(best) <= 0).all()
            same = np.flatnonzero(np.diff(best) == 0)
            assert (top[same] < top[same + 1]).all()
        count += batch
    assert count == 1000


@pytest.mark.parametrize("name", ["SessionKNN", "SessionFPMC", "GRU4Rec"])
def test_the_graph_has_standard_operators_of_opset_18_only(tmp_path, name):
    served = serve(tmp_path, name, fusion=name != "SessionKNN")
    model = onnx.load(str(served.bundle / "model.onnx"), load_external_data=False)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert (
        served.bundle / "model.onnx"
    ).stat().st_size < 100_000  # its numbers are those of the safetensors files
    dims = {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in model.graph.input
    }
    assert dims == {
        "items": ["batch", "length"],
        "blocked": ["batch", "blocked"],
        "k": [1],
        "mask_session": [1],
    }


@pytest.mark.parametrize("form", ["onnx", "triton"])
@pytest.mark.parametrize("name", ["SessionKNN", "GRU4Rec"])
@pytest.mark.parametrize("made", [True, False], ids=["copied", "made now"])
def test_a_folder_for_onnx_runtime_or_triton_needs_nothing_else(tmp_path, form, name, made):
    served = serve(tmp_path, name)
    recommender = Recommender.load(served.bundle)
    if not made:  # as a bundle is that was written where the package onnx was missing
        (served.bundle / "model.onnx").unlink()
    out = FORMATS[form](recommender, tmp_path / "out")
    shutil.rmtree(served.bundle)
    folder = out / f"{name.lower()}_tiny" / "1" if form == "triton" else out
    run = session_of(folder / "model.onnx").run
    given = {"items": np.array([[3, 4]]), "blocked": np.zeros((1, 0), np.int64), "k": np.array([5])}
    top, _ = run(None, {**given, "mask_session": np.array([True])})
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert all(lines[item - 1]["id"] for item in top[0])
    if form == "triton":
        text = (folder.parent / "config.pbtxt").read_text()
        assert f'name: "{name.lower()}_tiny"' in text and 'platform: "onnxruntime_onnx"' in text
        for one in (
            *session_of(folder / "model.onnx").get_inputs(),
            *session_of(folder / "model.onnx").get_outputs(),
        ):
            kind = {"tensor(int64)": "INT64", "tensor(bool)": "BOOL", "tensor(float)": "FP32"}[one.type]
            assert f'name: "{one.name}" data_type: TYPE_{kind}' in text


@pytest.mark.parametrize("name", ["SessionFPMC", "GRU4Rec"])
def test_vectors_score_as_the_bundle_does(tmp_path, name):
    served = serve(tmp_path, name, fusion=True)
    recommender = Recommender.load(served.bundle)
    out = FORMATS["vectors"](recommender, tmp_path / "vectors")
    ids = (out / "ids.txt").read_text().splitlines()
    assert ids == served.tokens[1:].tolist()
    session, items = ["i3", "i9", "i4"], np.load(out / "items.npy")
    if name == "SessionFPMC":
        weight = json.loads((out / "session.json").read_text())["item_decay"] ** np.array([2, 1, 0])
        vector = weight @ np.load(out / "inputs.npy")[[ids.index(one) for one in session]] / weight.sum()
    else:
        width = recommender.max_length
        given = np.array([[*(1 + ids.index(one) for one in session), *([0] * (width - 3))]])
        vector = session_of(out / "encoder.onnx").run(["session"], {"items": given, "length": np.array([3])})[
            0
        ][0]
    np.testing.assert_allclose(items @ vector, recommender.scores(session)[1:], rtol=1e-5, atol=1e-6)


def commands(content):
    """The commands of a RESP file."""
    at = 0

    def line():
        nonlocal at
        end = content.index(b"\r\n", at)
        text, at = content[at:end], end + 2
        return text

    while at < len(content):
        head = line()
        assert head[:1] == b"*"
        words = []
        for _ in range(int(head[1:])):
            size = line()
            assert size[:1] == b"$"
            words.append(content[at : at + int(size[1:])])
            at += int(size[1:]) + 2
            assert content[at - 2 : at] == b"\r\n"
        yield words


def test_a_redis_file_holds_the_table(tmp_path):
    served = serve(tmp_path, "SessionKNN")
    recommender = Recommender.load(served.bundle)
    sent = list(commands(FORMATS["redis"](recommender, tmp_path / "table.resp").read_bytes()))
    assert {words[0] for words in sent} == {b"SET"} and len(sent) == 1 + 2 * 30
    held = {words[1].decode(): words[2] for words in sent}
    facts = json.loads(held["alkd:table"])
    scores = {}
    session = ["i3", "i9", "i4"]
    for age, item in enumerate(reversed(session)):
        packed = held[f"alkd:n:{item}"]
        count = len(packed) // 6
        numbers, weights = (
            np.frombuffer(packed[: 4 * count], "<i4"),
            np.frombuffer(packed[4 * count :], "<f2"),
        )
        for number, weight in zip(numbers.tolist(), weights.tolist(), strict=True):
            name = held[f"alkd:i:{number}"].decode()
            scores[name] = scores.get(name, 0) + weight * facts["recency"][age]
    for item, title, score in recommender.recommend(session, 5, exclude_history=False):
        assert scores[item] == pytest.approx(score, rel=1e-5) and title


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_a_redis_server_takes_the_file(tmp_path):
    """``redis-cli --pipe`` sends it, and items are read back from the server, whatever their ids hold."""
    ids = ["plain", "two words", 'quo"te', "line\nfeed", "ünï \U0001f600", "$5\r\n", "{tag}*"]
    bundle = named_table(tmp_path / "bundle", ids)
    recommender = Recommender.load(bundle)
    file = FORMATS["redis"](recommender, tmp_path / "table.resp")
    place = tempfile.mkdtemp()  # a short path: the socket's may have 108 characters
    words = ["redis-server", "--port", "0", "--unixsocket", f"{place}/r", "--save", "", "--dir", place]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ask_redis(place, "PING") == b"PONG\n")
        with open(file, "rb") as stream:
            pipe = ["redis-cli", "-s", f"{place}/r", "--pipe"]
            said = subprocess.run(pipe, stdin=stream, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0 and f"errors: 0, replies: {1 + 2 * len(ids)}" in said.stdout, said
        table = recommender.student
        for number, item in enumerate(ids, 1):
            row = slice(int(table.starts[number]), int(table.starts[number + 1]))
            packed = ask_redis(place, "GET", f"alkd:n:{item}")[:-1]
            count = len(packed) // 6
            assert np.frombuffer(packed[: 4 * count], "<i4").tolist() == table.neighbours[row].tolist()
            assert np.frombuffer(packed[4 * count :], "<f2").tolist() == table.weights[row].tolist()
            assert ask_redis(place, "GET", f"alkd:i:{number}")[:-1] == item.encode()
        assert json.loads(ask_redis(place, "GET", "alkd:table"))["items"] == len(ids)
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(place)


def ask_redis(place, *words):
    return subprocess.run(["redis-cli", "-s", f"{place}/r", *words], capture_output=True, timeout=30).stdout


def test_the_configuration_for_triton_names_what_the_graph_has(tmp_path):
    """Every name, type and number of dimensions is that of the graph beside it."""
    recommender = Recommender.load(serve(tmp_path, "SessionKNN").bundle)
    folder = next(FORMATS["triton"](recommender, tmp_path / "models").iterdir())
    text = (folder / "config.pbtxt").read_text()
    assert f'name: "{folder.name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 0\n' in text
    told = {}
    for name, kind, dims in re.findall(r'name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([-\d, ]+) \]', text):
        told[name] = kind, [int(one) for one in dims.split(",")]
    graph = session_of(folder / "1" / "model.onnx")
    names = {"tensor(int64)": "INT64", "tensor(bool)": "BOOL", "tensor(float)": "FP32"}
    written = {
        one.name: (names[one.type], [size if isinstance(size, int) else -1 for size in one.shape])
        for one in (*graph.get_inputs(), *graph.get_outputs())
    }
    assert told == written


def test_a_format_that_does_not_fit_is_refused_by_name(tmp_path):
    table, vectors = (
        Recommender.load(serve(tmp_path, name).bundle) for name in ("SessionKNN", "SessionFPMC")
    )
    with pytest.raises(
        AlkdError, match="format vectors: SessionKNN is a table and has none; allowed for it: bundle"
    ):
        FORMATS["vectors"](table, tmp_path / "out")
    with pytest.raises(AlkdError, match="format redis: SessionFPMC is no table; allowed for it: bundle"):
        FORMATS["redis"](vectors, tmp_path / "out")
    (tmp_path / "out").mkdir()
    for form, recommender in (("onnx", table), ("triton", table), ("redis", table), ("vectors", vectors)):
        with pytest.raises(AlkdError, match="is there already"):
            FORMATS[form](recommender, tmp_path / "out")


def test_the_command_writes_every_format(tmp_path, capsys):
    served = serve(tmp_path, "SessionKNN")
    for form in ("bundle", "onnx", "redis", "triton"):
        with pytest.raises(SystemExit) as end:
            main(["export", "--bundle", str(served.bundle), "--out", str(tmp_path / form), "--format", form])
        assert end.value.code == 0 and str(tmp_path / form) in capsys.readouterr().out
        assert (tmp_path / form).exists()
