"""`local`: a causal LM on this machine ranks the candidates by the likelihood of their titles, after LoRA if asked for.

``title`` scoring: the score of a candidate is

    log p(title | prompt, titles of the session) - log p(title | prompt)

in nats, the pointwise mutual information of title and session; without the second term, which the LM without its adapter
gives, long and rare titles would lose to short and common ones. Nothing depends on the order of the candidates.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.config import AlkdError, TeacherSettings
from recbole_alkd.registry import teachers
from recbole_alkd.teacher import lora
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, TeacherContext
from recbole_alkd.teacher.likelihood import Tokens, TokenTree, build_tree, log_likelihoods
from recbole_alkd.teacher.models import load_causal_lm, model_identity, threads
from recbole_alkd.teacher.prompt import Prompt, load_prompt, session_titles, shown_order, title_of, title_prefix

_NULL_CHUNK = 64  # titles in one forward pass without a session


class TitleScorer:
    """PMI of titles under one causal LM, with or without an adapter.

    Args:
        model, tokenizer: as ``load_causal_lm`` gives them; ``model`` may be set to a PEFT model around it later.
        titles: item token -> title, of all items.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: Prompt, titles: Mapping[str, str], settings: TeacherSettings) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.titles, self.settings = titles, settings
        self._head = self._encode(title_prefix(prompt, []), start=True)
        self._line_end = self._encode("a\n")[len(self._encode("a")) :]
        self._tokens = self._encode_titles(titles)
        # fixed groups, so that a title's null does not depend, in the last bits, on what else a run asks for
        distinct = sorted(set(self._tokens.values()))
        self._chunks = [distinct[k : k + _NULL_CHUNK] for k in range(0, len(distinct), _NULL_CHUNK)]
        self._chunk_of = {title: k for k, chunk in enumerate(self._chunks) for title in chunk}
        self._null: dict[Tokens, float] = {}

    def _encode(self, text: str, start: bool = False) -> Tokens:
        ids = self.tokenizer(text, add_special_tokens=start)["input_ids"]
        if start and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return tuple(ids)

    def _encode_titles(self, titles: Mapping[str, str]) -> dict[str, Tokens]:
        texts = sorted(set(titles.values()))
        limit = self.settings.llm_title_tokens
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return {text: tuple(tokens[:limit]) for text, tokens in zip(texts, ids, strict=True)}

    def tree(self, history: Sequence[str], candidates: Sequence[str]) -> TokenTree:
        """The token tree of item tokens ``candidates`` after the last ``llm_history`` items of ``history``."""
        prefix = list(self._head)
        for token in history[-self.settings.llm_history :]:
            prefix.extend((*self._tokens[title_of(token, self.titles)], *self._line_end))
        return build_tree(prefix, self.title_tokens(candidates))

    def title_tokens(self, items: Iterable[str]) -> list[Tokens]:
        return [self._tokens[title_of(item, self.titles)] for item in items]

    def null(self, items: Sequence[str]) -> Tensor:
        """(N,) log-likelihood of the items' titles without a session, by the LM without its adapter."""
        titles = self.title_tokens(items)
        wanted = sorted({self._chunk_of[title] for title in titles if title not in self._null})
        for chunk in (self._chunks[k] for k in wanted):
            with torch.inference_mode(), lora.without_adapter(self.model):
                self._null.update(zip(chunk, log_likelihoods(self.model, [build_tree(self._head, chunk)])[0].tolist(), strict=True))
        return torch.tensor([self._null[title] for title in titles])

    def scores(self, trees: Sequence[TokenTree], nulls: Sequence[Tensor]) -> list[Tensor]:
        """(N,) PMI of every tree's texts, in nats; with gradients if they are enabled."""
        likelihoods = log_likelihoods(self.model, trees)
        return [found - null.to(found.device) for found, null in zip(likelihoods, nulls, strict=True)]


@teachers.register("local")
class LocalTeacher(LLMTeacher):
    """A causal LM of this machine, with a LoRA adapter unless ``lora: False``."""

    def __init__(self, context: TeacherContext) -> None:
        super().__init__(context)
        self.settings = context.settings.teacher
        if self.settings.llm_scoring != "title":
            raise AlkdError(f"llm_scoring: {self.settings.llm_scoring!r} is not available for llm_teacher 'local'; allowed: title")
        self._prompt = load_prompt(self.settings.llm_prompt, context.dataset)
        self._scorer: TitleScorer | None = None
        self._report: dict[str, Any] | None = None

    @property
    def identity(self) -> str:
        """``llm_dtype`` counts as it is set: what ~ stands for depends on the machine, and hardly changes a ranking."""
        s = self.settings
        parts = [
            f"local|{model_identity(s.llm_model)}|{s.llm_scoring}",
            f"title_tokens={s.llm_title_tokens}|history={s.llm_history}|dtype={s.llm_dtype or 'auto'}",
            f"top_n={s.llm_top_n}|seed={s.llm_seed}",
        ]
        return "|".join([*parts, f"adapter:{self._adapter_hash()}" if self.context.settings.lora.lora else "adapter:none"])

    def _adapter_hash(self) -> str:
        """Of everything that decides the adapter."""
        s, texts = self.settings, self._prompt
        decides = {
            "examples": self.context.lora_key,
            "lora": asdict(self.context.settings.lora),
            "model": model_identity(s.llm_model),
            "scoring": [s.llm_scoring, s.llm_title_tokens, s.llm_history, s.llm_dtype, s.llm_seed],
            "prompt": texts["title"],
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _adapter_folder(self) -> Path:
        return self.context.cache / "adapters" / self._adapter_hash()

    def prompt(self, instance: Instance) -> str:
        titles = self.context.titles
        prefix = title_prefix(self._prompt, session_titles(instance, titles, self.settings.llm_history))
        return prefix + "\n".join(["", *(title_of(token, titles) for token in instance.candidates)])

    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        """A title has at most ``llm_title_tokens`` tokens and one for its line's end; of the head every byte may be one."""
        s = self.settings
        lines = min(len(instance.history), s.llm_history) * (s.llm_title_tokens + 1)
        return len(self._prompt["title"].encode()) + 2 + lines + len(instance.candidates) * s.llm_title_tokens, None

    def prepare(self) -> None:
        """Load the model; make the adapter or find it."""
        if self._scorer is not None:
            return
        s = self.settings
        with threads(s.llm_threads), lora.kept_random_state():
            model, tokenizer = load_causal_lm(s.llm_model, s.llm_device or self.context.device, s.llm_dtype)
            scorer = TitleScorer(model, tokenizer, self._prompt, self.context.titles, s)
            if self.context.settings.lora.lora:
                folder = self._adapter_folder
                reused = folder.is_dir()
                if not reused:
                    self._train(scorer, folder)
                scorer.model = lora.load_adapter(model, folder)
                self._report = {**lora.read_report(folder), "adapter": str(folder), "reused": reused}
        self._scorer = scorer

    def _train(self, scorer: TitleScorer, folder: Path) -> None:
        if self.context.lora_examples is None:
            raise AlkdError("lora: True needs training sessions to make examples of, and there are none here; set lora: False")
        examples = self.context.lora_examples()
        context = self.context
        lora.train_adapter(
            scorer, examples, context.settings, folder, show_progress=context.show_progress, log_metric=context.log_metric
        )

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """Sessions of like length are scored together; the answer's ``raw`` holds the scores.

        The titles' likelihoods without a session are found beforehand and, like the training of the adapter, are in no
        answer's tokens and seconds.
        """
        self.prepare()
        scorer = self._scorer
        assert scorer is not None
        with threads(self.settings.llm_threads):
            began = time.perf_counter()
            nulls = {i.row: scorer.null(i.candidates) for i in instances}
            logging.getLogger(__name__).debug("likelihoods without a session: %.1f s", time.perf_counter() - began)
        trees = [(scorer.tree(i.history, i.candidates), i) for i in instances]
        trees.sort(key=lambda pair: len(pair[0].tokens))
        size = self.settings.llm_batch_size or (1 if next(scorer.model.parameters()).device.type == "cpu" else 8)
        for start in range(0, len(trees), size):
            batch = trees[start : start + size]
            began = time.perf_counter()
            with threads(self.settings.llm_threads), torch.inference_mode():
                scores = scorer.scores([tree for tree, _ in batch], [nulls[i.row] for _, i in batch])
                values = [part.tolist() for part in scores]
            seconds = (time.perf_counter() - began) / len(batch)
            for (tree, instance), found in zip(batch, values, strict=True):
                yield instance, self._answer(instance, found, len(tree.tokens), seconds)

    def _answer(self, instance: Instance, scores: list[float], tokens: int, seconds: float) -> Answer:
        raw = json.dumps({token: round(score, 4) for token, score in zip(instance.candidates, scores, strict=True)})
        if any(score != score for score in scores):  # nan, as half precision can give
            return Answer((), raw=raw, prompt_tokens=tokens, seconds=seconds, status="failed")
        place = {token: k for k, token in enumerate(shown_order(instance, self.settings.llm_seed))}
        score_of = dict(zip(instance.candidates, scores, strict=True))
        ranking = sorted(instance.candidates, key=lambda token: (-score_of[token], place[token]))
        return Answer(tuple(ranking[: self.settings.llm_top_n]), raw=raw, prompt_tokens=tokens, seconds=seconds)

    @property
    def lora_report(self) -> dict[str, Any] | None:
        return self._report

    def close(self) -> None:
        if self._scorer is None:
            return
        self._scorer = None
        gc.collect()  # modules and hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
