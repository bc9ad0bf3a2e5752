"""``llm_scoring: generate``: an instruction-following LM reads the ranking prompt and writes the ranking.

The prompt is the paper's in what it holds (Module 1): role, hints, session, candidates. The answer is parsed
as any other LLM's. A model of 135M parameters cannot follow it; it is meant for larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.llm.adapters import first_line
from recbole_alkd.llm.likelihood import Tokens, build_tree
from recbole_alkd.llm.messages import without_system
from recbole_alkd.llm.model_kind import positions
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.answers.parse import read_ranking
from recbole_alkd.teacher.base import Answer, Instance
from recbole_alkd.teacher.local.scorer import Case, Scorer
from recbole_alkd.teacher.prompt import ranking_request, shown_order

_OPENING = "[<ID"  # how an answer in the form that is asked for begins
HINT_TOKENS = 400  # of the LM's answer
_MORE = 16  # tokens that an answer may have beside its list


def check_template(tokenizer: Any, settings: TeacherSettings) -> None:
    """AlkdError where the tokenizer has no chat template."""
    if tokenizer.chat_template is None:
        raise AlkdError(
            f"llm_scoring: 'generate' needs a model with a chat template, which {settings.llm_model} has "
            "not; "
            "allowed with this model: title | index"
        )


class GenerateScorer(Scorer):
    """Writes rankings; with LoRA, it is trained to begin them with the true next item."""

    hints = ""

    def case(self, instance: Instance) -> Case:
        return self._fitting(instance, partial(self._case, instance), self._answer_tokens(instance))

    def judging_case(self, instance: Instance) -> Case:
        """By the likelihood of each candidate as the first of the list: scores of what is written there are
        none."""
        return self.training_case(instance, 0)

    def _case(self, instance: Instance, history: int) -> Case:
        return Case((build_tree(self._chat(self._request(instance, history)), []),))

    def _training_case(self, instance: Instance, epoch: int, history: int) -> Case:
        """The likelihood of each candidate as the first of the list."""
        prefix = [*self._chat(self._request(instance, history)), *self._encode(_OPENING)]
        return Case((build_tree(prefix, [self._encode(f"{item}>") for item in instance.candidates]),))

    def _combine(self, parts: list[Tensor], case: Case) -> Tensor:
        return parts[0]

    def _answers(self, instances: Sequence[Instance], cases: Sequence[Case]) -> list[Answer]:
        """``raw`` is what the LM wrote."""
        prompts = [tuple(case.trees[0].tokens.tolist()) for case in cases]
        longest = max(self._answer_tokens(instance) for instance in instances)
        answers = []
        for instance, case, (text, count) in zip(
            instances, cases, self._write(prompts, longest), strict=True
        ):
            shown = shown_order(instance, self.settings.llm_seed)
            parsed = read_ranking(text, shown, self.settings.llm_top_n, self.titles)
            answers.append(
                Answer(
                    parsed.items,
                    raw=text,
                    repairs=parsed.repairs,
                    prompt_tokens=case.tokens,
                    completion_tokens=count,
                    status="ok" if parsed.items else "failed",
                )
            )
        return answers

    def chat(self, messages: Sequence[Mapping[str, str]]) -> Answer:
        """The LM's answer to other messages, such as those that ask for hints; ``raw`` is what it wrote."""
        tokens = self._chat(messages)
        room = positions(self.model.config)
        if room is not None and len(tokens) + HINT_TOKENS > room:
            raise AlkdError(
                f"llm_hint_cases: {self.settings.llm_hint_cases} cases make a prompt of {len(tokens)} "
                f"tokens, and {HINT_TOKENS} "
                f"for the answer, more than the {room} that {self.settings.llm_model} reads; "
                "lower llm_hint_cases, or set "
                "llm_hints: False"
            )
        ((text, count),) = self._write([tokens], HINT_TOKENS)
        return Answer((), raw=text, prompt_tokens=len(tokens), completion_tokens=count)

    def _request(self, instance: Instance, history: int) -> tuple[dict[str, str], ...]:
        settings = replace(self.settings, llm_history=history)
        return ranking_request(self.prompt, instance, self.titles, settings, self.hints).messages

    def _answer_tokens(self, instance: Instance) -> int:
        """Tokens of an answer in the form that is asked for, with the longest ids, and a few more."""
        ids = sorted(instance.candidates, key=len, reverse=True)[: self.settings.llm_top_n]
        return len(self._encode("[" + ", ".join(f"<ID{item}>" for item in ids) + "]")) + _MORE

    def _chat(self, messages: Sequence[Mapping[str, str]]) -> Tokens:
        check_template(self.tokenizer, self.settings)
        system = [message["content"] for message in messages if message["role"] == "system"]
        try:
            text = self._fill(messages)
            if all(part in text for part in system):
                return self._encode(text)
        except Exception as error:  # raised by the template, which knows no system role
            if not system:
                raise self._unusable(error) from None
        try:
            return self._encode(self._fill(without_system(messages)))
        except Exception as error:
            raise self._unusable(error) from None

    def _fill(self, messages: Sequence[Mapping[str, str]]) -> str:
        # models that can think before they answer are asked not to; other templates ignore the switch
        how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        return str(self.tokenizer.apply_chat_template([dict(message) for message in messages], **how))

    def _unusable(self, error: Exception) -> AlkdError:
        return AlkdError(
            f"llm_model: the chat template of {self.settings.llm_model} cannot be used ({first_line(error)})"
        )

    def _write(self, prompts: Sequence[Tokens], limit: int) -> list[tuple[str, int]]:
        """Greedy continuations of at most ``limit`` tokens, and their numbers of tokens."""
        from transformers import GenerationConfig

        width = max(len(prompt) for prompt in prompts)
        room = positions(self.model.config)
        # each fits with an answer of its own; the longest of both may be of two sessions
        if room is not None:
            limit = max(1, min(limit, room - width))
        ends: Any = self.model.generation_config.eos_token_id
        ends = [*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id]
        stops = {end for end in ends if isinstance(end, int)}
        rows = self.model.get_input_embeddings().weight.shape[0]
        marks = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        # masked, whatever it is
        padding = next((token for token in marks if token is not None and token < rows), 0)
        ids = torch.full((len(prompts), width), padding)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
        device = next(self.model.parameters()).device
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=padding,
            eos_token_id=sorted(stops) or None,
        )
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
        texts = []
        for row in written[:, width:].tolist():
            length = next((k for k, token in enumerate(row) if token in stops), len(row))
            texts.append(
                (self.tokenizer.decode(row[:length], skip_special_tokens=True), min(length + 1, len(row)))
            )
        return texts
