"""A causal LM with random weights and a byte tokenizer, small enough for the fast suite, and a catalogue to use it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recbole_alkd.config import Settings, read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext

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


def tiny_llm(folder: Path, seed: int = 0, layers: int = 2, width: int = 32) -> Path:
    """Write the model to ``folder``; every byte is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: k for k, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.3,  # far from uniform, so that scores differ clearly
            eos_token_id=fast.eos_token_id,
            bos_token_id=None,
            pad_token_id=fast.pad_token_id,
            tie_word_embeddings=True,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def settings(model: Path, **values: Any) -> Settings:
    """Settings of the local teacher on ``model``; without LoRA unless said otherwise."""
    values = {"lora": False, "llm_dtype": "float32", "llm_candidates": 8, "llm_top_n": 8, **values}
    return read_settings({"llm_model": str(model), **values})


def context(model: Path, tmp_path: Path, values: dict[str, Any] | None = None, **own: Any) -> TeacherContext:
    """The context of a teacher on the catalogue ``TITLES``: settings in ``values``, fields of the context in ``own``."""
    fields = {
        "settings": settings(model, **(values or {})),
        "dataset": "ml-tiny",
        "data_path": tmp_path,
        "titles": TITLES,
        "cache": tmp_path / "alkd_labels",
    }
    return TeacherContext(**{**fields, **own})


def instances() -> list[Instance]:
    """Three instances with histories and candidate lists of different lengths."""
    return [
        Instance(7, "s7", ("a1", "b1"), ("a3", "b3", "b2", "c1", "c2")),
        Instance(3, "s3", ("c1",), ("a1", "b1", "b2")),
        Instance(5, "s5", ("a1", "a2", "a3", "c1", "c2", "c3"), ("b1", "b2", "b3")),
    ]
