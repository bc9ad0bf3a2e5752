"""The LLM teacher, and LoRA of a local one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import FILLED, above, at_least, between, setting
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.rules import NAMES
from recbole_alkd.settings.secrets import environment_name, web_addresses


def _null_by_name(value: Any) -> Any:
    """YAML reads the name of the control ``null`` as no value."""
    return "null" if value is None else value


@dataclass(frozen=True)
class TeacherSettings(Group):
    """The LLM teacher: who is asked, what it is shown, where answers are kept."""

    heading = "LLM teacher"
    llm_teacher: str = setting("local", str, read=_null_by_name, help="local, replay, ...")
    llm_model: str = setting(
        "smollm2-135m-instruct",
        str,
        help="The bundled model, or any Hugging Face id or folder of a causal LM.",
    )
    llm_scoring: str = setting(
        "title",
        str,
        choices=("title", "index", "generate"),
        help="title (likelihood of each title), index, generate.",
    )
    llm_candidates: int = setting(50, int, check=at_least(2), help="Candidates from the teacher recommender.")
    llm_top_n: int = setting(25, int, check=at_least(1), help="Ranks that are kept and distilled.")
    llm_inject_target: bool = setting(
        True,
        bool,
        help="Whether the true next item of a training session is put among its candidates.",
    )
    llm_history: int = setting(8, int, check=at_least(1), help="Last items of the session that the LLM sees.")
    llm_title_tokens: int = setting(8, int, check=at_least(1), help="Titles are cut to this many tokens.")
    llm_seed: int = setting(2020, int, check=at_least(0), help="Seed of everything the LLM teacher draws.")
    llm_hints: bool = setting(True, bool, help="The paper's hints; used by generate and api only.")
    llm_hint_cases: int = setting(
        10,
        int,
        check=at_least(1),
        help="Training sessions that the LLM sums up into hints (the paper's L).",
    )
    llm_prompt: str | None = setting(
        None,
        str,
        help="Prompt: a name in properties/prompt or a YAML file. ~: by the data set.",
    )
    llm_replay_file: str | None = setting(
        None,
        str,
        help="Recorded rankings for `replay` and lora_target replay. ~: NAME.llm.jsonl (alkd_unit item: "
        "NAME.items.jsonl) in the data folder.",
    )
    llm_device: str | None = setting(
        None,
        str,
        decides=False,
        help="cpu, cuda, cuda:1, or auto (spread over all that is there). ~: the recommender's device.",
    )
    llm_dtype: str | None = setting(
        None,
        str,
        choices=("float32", "bfloat16", "float16"),
        help="float32, bfloat16, float16. ~: bfloat16 where the hardware has it.",
    )
    llm_quantize: str | None = setting(
        None,
        str,
        choices=("4bit", "8bit"),
        help="4bit or 8bit weights (needs bitsandbytes). ~: none.",
    )
    llm_trust_remote_code: str | None = setting(
        None,
        str,
        help="llm_model once more, where it brings code of its own and you trust it. ~: no such code is run.",
    )
    llm_batch_size: int | None = setting(
        None,
        int,
        check=at_least(1),
        decides=False,
        help="Sessions in one forward pass. ~: chosen by the device.",
    )
    llm_threads: int | None = setting(
        None,
        int,
        check=between(1, 1024),  # more than a system gives ends torch without a word
        decides=False,
        help="CPU threads of the LLM. ~: torch's.",
    )
    llm_base_url: str | list[str] | None = setting(
        None,
        str,
        list,
        check=web_addresses,
        secret=True,
        decides=False,
        help="For `api`: an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, or a list of servers "
        "of the same model. ~: OpenAI.",
    )
    llm_api_key_env: str | None = setting(
        None,
        str,
        check=environment_name,
        secret=True,
        decides=False,
        help="The NAME of the environment variable with the API key. ~: OPENAI_API_KEY for OpenAI, no key "
        "for others.",
    )
    llm_concurrency: int = setting(
        8, int, check=at_least(1), decides=False, help="Requests in flight, over all servers."
    )
    llm_requests_per_minute: int | None = setting(
        None,
        int,
        check=at_least(1),
        decides=False,
        help="~: no limit but the server's own.",
    )
    llm_timeout: float = setting(
        120.0,
        float,
        check=above(0),
        decides=False,
        help="Seconds to wait for one answer.",
    )
    llm_max_tokens: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="Tokens of one answer at most. ~: as many as the list needs; models that think before they "
        "answer need more.",
    )
    llm_price_file: str | None = setting(
        None,
        str,
        help="YAML with prices in USD per million tokens. ~: properties/prices.yaml.",
    )
    label_store: str = setting(
        "alkd_labels/labels.sqlite",
        str,
        decides=False,
        help="Where labels are kept, relative to the working directory.",
    )
    label_engine: str = setting(
        "local",
        str,
        choices=("local", "ray"),
        help="Where a local LLM answers: local (this process), or ray (actors of a Ray cluster; Python 3.12 "
        "and later).",
    )
    ray_address: str | None = setting(
        None,
        str,
        check=FILLED,
        decides=False,
        help="The cluster of label_engine: ray, such as auto or HOST:6379. ~: one of this machine alone.",
    )


@dataclass(frozen=True)
class LoraSettings(Group):
    """LoRA of a local LLM teacher."""

    heading = "LoRA of a local LLM teacher"
    lora: bool = setting(True, bool, help="Tune the LLM on sessions of this data set before it is asked.")
    lora_rank: int = setting(16, int, check=at_least(1), help="Rank of the adapter.")
    lora_alpha: int = setting(32, int, check=at_least(1), help="Its scale is lora_alpha / lora_rank.")
    lora_dropout: float = setting(
        0.0,
        float,
        check=between(0, 1, "[)"),
        help="Dropout in front of the adapter.",
    )
    lora_targets: list[str] = setting(
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        list,
        check=NAMES,
        help="Modules that get an adapter.",
    )
    lora_examples: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="Training examples, made from session prefixes. ~: as many as budget_labels, at most 1000, "
        "and what there is.",
    )
    lora_inserted: bool = setting(
        False,
        bool,
        help="Whether examples whose target the recommender had not found are trained on too (it is "
        "inserted); False: natural ones only, fewer than lora_examples where there are no more.",
    )
    lora_candidates: int | None = setting(
        None,
        int,
        check=at_least(2),
        help="Candidates in the loss of an example: the recommender's best, and the target. ~: "
        "llm_candidates.",
    )
    lora_scale: str = setting(
        "learnt",
        str,
        choices=("learnt", "fixed"),
        help="What scores are divided by in the loss: learnt (fitted to the first examples, "
        "then trained with the adapter), or fixed, as in earlier versions.",
    )
    lora_learning_rate: float = setting(5e-4, float, check=above(0), help="Learning rate of the adapter.")
    lora_epochs: int = setting(
        1,
        int,
        check=at_least(1),
        help="More than one: a tenth of the examples is held out, and the best epoch's adapter is kept.",
    )
    lora_patience: int = setting(
        1,
        int,
        check=at_least(1),
        help="How many epochs may pass without a better held-out loss before training ends.",
    )
    lora_target: str = setting(
        "next_item",
        str,
        choices=("next_item", "replay"),
        help="next_item, or replay: imitate recorded rankings (llm_replay_file) of a stronger LLM.",
    )
    lora_checkpointing: bool = setting(
        False,
        bool,
        help="Gradient checkpointing: less memory, about a third more time.",
    )
    lora_batch_size: int = setting(4, int, check=at_least(1), help="Sessions a step.")
    lora_held_out: int | None = setting(
        None,
        int,
        check=at_least(0),
        help="Examples apart from training, with a target that the recommender found itself, that judge "
        "the adapter; each is read twice. ~: half of lora_examples, 10 to 200. 0: none.",
    )
    lora_use: str = setting(
        "if_better",
        str,
        choices=("if_better", "always"),
        help="if_better: labels are the plain LLM's unless the held-out MRR with the adapter is higher, "
        "with a 95 % interval above 0. always: the adapter is used.",
    )
    lora_folds: int = setting(
        2,
        int,
        check=at_least(2),
        help="Candidate lists are cross-fitted over this many folds of the training sessions.",
    )

    @property
    def only_natural(self) -> bool:
        """Whether examples whose target would be inserted are left out; recorded rankings have no target."""
        return self.lora_target == "next_item" and not self.lora_inserted
