"""A causal LM with random weights and a byte tokenizer, small enough for the fast suite,
and a catalogue to use it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, Materials, TeacherContext

TITLES = {
    "a1": "Toy story",
    "a2": "Jumanji",
    "a3": "Toy soldiers",
    "b1": "Heat",
    "b2": "Heat",  # a title that two items share
    "b3": "Heat and dust",
    "c1": "Casino",
    "c2": "Sabrina",
    "c3": 'The "other" <one>, part {2}',
}


def tiny_tokenizer(folder: Path, template: str | None = None) -> Any:
    """Write a tokenizer to ``folder``: every byte is a token, and ``<end>`` is token 256."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: k for k, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = template or PLAIN_TEMPLATE
    fast.save_pretrained(folder)
    return fast


PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# as Gemma's: no system role, and user and assistant in turn
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


def tiny_llm(folder: Path, seed: int = 0, layers: int = 2, width: int = 32, **more: Any) -> Path:
    """Write the model to ``folder``; every byte is a token. ``more``: of its config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = tiny_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        values: dict[str, Any] = {
            "vocab_size": len(fast),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.3,  # far from uniform, so that scores differ clearly
            "eos_token_id": fast.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": fast.pad_token_id,
            "tie_word_embeddings": True,
        }
        LlamaForCausalLM(LlamaConfig(**{**values, **more})).save_pretrained(folder)
    return folder


# constructor of the config, and what makes it tiny; scales are far from uniform where the model has such a
# setting
_IDS = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
_USUAL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    **_IDS,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256,
                            "initializer_range": 0.3, **_IDS}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3,
                              **_IDS}),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3, **_IDS}),
    "falcon_alibi": ("FalconConfig", {**_USUAL, "alibi": True}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
                              "initializer_range": 0.3, **_IDS}),
    "opt": ("OPTConfig", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
                          "init_std": 0.3,
                          "word_embed_proj_dim": 32, "max_position_embeddings": 256, **_IDS}),
    "gpt_neo": ("GPTNeoConfig", {"hidden_size": 32, "num_layers": 2, "num_heads": 4,
                                 "attention_types": [[["global", "local"], 1]],
                                 "window_size": 16, "max_position_embeddings": 256, "initializer_range": 0.3,
                                 **_IDS}),
    "neox": ("GPTNeoXConfig", {**_USUAL, "intermediate_size": 64}),
    "mistral": ("MistralConfig", {**_USUAL, "intermediate_size": 64, "num_key_value_heads": 2,
                                  "sliding_window": 24}),
    "gemma2": ("Gemma2Config", {**_USUAL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8,
                                "sliding_window": 24}),
}  # fmt: skip


def tiny_model(
    folder: Path, family: str, kind: str = "AutoModelForCausalLM", template: str | None = None, **more: Any
) -> Path:
    """Write a tiny model of another family than ``tiny_llm``'s, with the same tokenizer, to ``folder``.

    Args:
        family: a key of ``FAMILIES``, or the name of a transformers config.
            kind: the class whose weights are written.
    """
    import transformers

    tiny_tokenizer(folder, template)
    name, values = FAMILIES.get(family, (family, {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, name)(**{"vocab_size": 257, **values, **more})
        made = getattr(transformers, kind)
        (made.from_config if kind.startswith("Auto") else made)(config).save_pretrained(folder)
    return folder


def settings(model: Path, **values: Any) -> Settings:
    """Settings of the local teacher on ``model``; without LoRA unless said otherwise."""
    values = {"lora": False, "llm_dtype": "float32", "llm_candidates": 8, "llm_top_n": 8, **values}
    return read_settings({"llm_model": str(model), **values})


def context(model: Path, tmp_path: Path, values: dict[str, Any] | None = None, **own: Any) -> TeacherContext:
    """The context of a teacher on the catalogue ``TITLES``: settings in ``values``,
    fields of the context in ``own``."""
    fields = {
        "settings": settings(model, **(values or {})),
        "dataset": "ml-tiny",
        "data_path": tmp_path,
        "titles": TITLES,
        "cache": tmp_path / "alkd_labels",
    }
    return TeacherContext(**{**fields, **own})


def with_examples(teacher: Any, examples: Any = None, held_out: Any = None) -> Any:
    """``teacher``, whose ``prepare`` is given LoRA examples: functions that make them,
    called where it needs them."""
    real = teacher.prepare

    def prepare(_: Any = None) -> None:
        made = None if not examples or not teacher.needs() else tuple(examples())
        judges = None if not held_out else tuple(held_out())
        real(Materials(lora_examples=made, lora_held_out=judges))

    teacher.prepare = prepare
    return teacher


def instances() -> list[Instance]:
    """Three instances with histories and candidate lists of different lengths."""
    return [
        Instance(7, "s7", ("a1", "b1"), ("a3", "b3", "b2", "c1", "c2")),
        Instance(3, "s3", ("c1",), ("a1", "b1", "b2")),
        Instance(5, "s5", ("a1", "a2", "a3", "c1", "c2", "c3"), ("b1", "b2", "b3")),
    ]
