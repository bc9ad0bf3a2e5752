"""Learning curves of LoRA: held-out ranks by the number, kind and length of examples,
beside what costs nothing.

Every result is a line of JSON, written when it is there; what a file has already is not done again.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alkd.bench.lora_file import StudyExamples
from recbole_alkd.bench.lora_lines import append_line, check_same, facts_of, is_done
from recbole_alkd.bench.lora_settings import settings_of_study
from recbole_alkd.llm.devices import threads
from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.statistics import paired_difference
from recbole_alkd.teacher.base import Instance, LoraExample, TeacherContext
from recbole_alkd.teacher.local import lora
from recbole_alkd.teacher.local.adapter import load_adapter, read_report
from recbole_alkd.teacher.local.judging import candidate_rank, ndcg
from recbole_alkd.teacher.local.scorer import Scorer
from recbole_alkd.teacher.local.teacher import SCORERS
from recbole_alkd.teacher.prompt import load_prompt
from recbole_alkd.teacher.text import WEIGHT, TextTeacher

BATCH = 16  # held-out sessions in one forward pass on a GPU


class Curve:
    """Trains on parts of a study's examples, one after the other, and judges all on the same held-out ones.

    Args:
        study: the examples. given: settings of the LLM other than the defaults. device: of the LLM.
    """

    def __init__(
        self, study: StudyExamples, given: Mapping[str, Any], device: str, group: Group | None = None
    ) -> None:
        self.study, self.group = study, group or Group()
        settings = settings_of_study(study, given, 1)
        began = time.perf_counter()
        one = settings.teacher
        model, tokenizer = load_causal_lm(
            one.llm_model, device, one.llm_dtype, one.llm_quantize, one.llm_trust_remote_code
        )
        prompt = load_prompt(one.llm_prompt, study.dataset)
        self.scorer: Scorer = SCORERS[one.llm_scoring](model, tokenizer, prompt, study.titles, one)
        self.load_seconds = time.perf_counter() - began
        self.on_gpu = torch.device(device).type == "cuda"
        self.instances = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(study.held_out)]
        self.places = [e.candidates.index(e.target) for e in study.held_out]
        self.zero_shot, self.judge_seconds = self._ranks()
        context = TeacherContext(settings, study.dataset, Path(), study.titles, Path())
        (text := TextTeacher(context)).prepare()
        similar = [text.similarity(instance) for instance in self.instances]
        self.plain = {
            "recommender": np.asarray(self.places, float) + 1,
            "title similarity": self._by(similar),
            "text": self._by([fused(scores) for scores in similar]),
        }

    def at(self, pool: str, count: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """What ``count`` examples of ``pool`` give; 0: the LLM without an adapter.
        ``given``: settings other than the defaults.

        Raises:
            AlkdError: the file has fewer.
        """
        if len(examples := self.study.pool(pool)[:count]) < count:
            raise AlkdError(f"--examples: {count} are more than the {len(examples)} {pool} ones of the file")
        result: dict[str, Any] = {
            "dataset": self.study.dataset,
            "pool": pool,
            "count": count,
            "given": dict(given),
            **facts_of(self.study, pool, count),
            "device": _device_name() if self.on_gpu else "cpu",
            "judge_seconds": round(self.judge_seconds, 2),
        }
        after = self.zero_shot
        if not self.group.leads:  # it only helps
            if count:
                self._tuned(examples, settings_of_study(self.study, given, count))
            return result
        if count:
            report, after = self._tuned(examples, settings_of_study(self.study, given, count))
            kept = ["seconds", "steps", "scale_start", "scale", "loss_start", "loss_first", "loss_last"]
            kept += ["natural", "inserted"]
            result |= {key: report[key] for key in kept}
        ranks = {**self.plain, "zero-shot": self.zero_shot[0], "zero-shot, fused": self.zero_shot[1]}
        ranks |= {"tuned": after[0], "tuned, fused": after[1]} if count else {}
        result["mrr"] = {name: round(float(np.mean(1 / values)), 4) for name, values in ranks.items()}
        result["ndcg10"] = {
            name: round(float(np.mean(ndcg(values, 10))), 4) for name, values in ranks.items()
        }
        own = "tuned" if count else "zero-shot"
        against = [(own, other) for other in ranks if other != own and "fused" not in other]
        against += [
            (f"{own}, fused", other)
            for other in ("recommender", "text", "zero-shot, fused")
            if other != f"{own}, fused"
        ]
        result["gains"] = {f"{a} - {b}": _gains(ranks[a], ranks[b]) for a, b in against}
        return result

    def _tuned(self, examples: Sequence[LoraExample], settings: Settings) -> tuple[dict[str, Any], Any]:
        folder = Path(tempfile.mkdtemp(prefix="alkd_lora_"))
        plain = self.scorer.model
        try:
            lora.train_adapter(self.scorer, examples, settings, folder / "adapter", group=self.group)
            if not self.group.leads:
                return {}, ()
            self.scorer.model = load_adapter(plain, folder / "adapter")
            return read_report(folder / "adapter"), self._ranks()[0]
        finally:
            if hasattr(self.scorer.model, "unload"):
                self.scorer.model = self.scorer.model.unload().eval()
            shutil.rmtree(folder, ignore_errors=True)
            gc.collect()

    def _ranks(self) -> tuple[tuple[np.ndarray, np.ndarray], float]:
        """Ranks of the held-out targets by the LLM as it is now, alone and fused with the recommender's
        order; seconds."""
        began = time.perf_counter()
        self.scorer.prepare({item for instance in self.instances for item in instance.candidates})
        cases = [self.scorer.judging_case(instance) for instance in self.instances]
        scores: list[np.ndarray] = []
        with torch.inference_mode():
            for part in _parts(cases, BATCH if self.on_gpu else 1):
                scores += [one.float().cpu().numpy() for one in self.scorer.scores(part)]
        seconds = time.perf_counter() - began
        return (self._by(scores), self._by([fused(one) for one in scores])), seconds

    def _by(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(scores, self.places, strict=True)
        return np.asarray([candidate_rank(torch.as_tensor(one).float(), place) for one, place in pairs])


def fused(scores: np.ndarray) -> np.ndarray:
    """Scores of candidates in the recommender's order, laid over that order as the control
    ``text`` does it."""
    deviation = scores.std()
    z = (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)
    return -np.log(np.arange(1, len(z) + 1)) + WEIGHT * z


def run_curve(
    study: StudyExamples,
    out: Path,
    counts: Sequence[int],
    pools: Sequence[str],
    variants: Sequence[Mapping[str, Any]],
    device: str,
    thread_count: int | None = None,
    group: Group | None = None,
) -> Iterator[dict[str, Any]]:
    """Append a line to ``out`` for every variant, pool and count that it has not yet, and give each back.

    ``variants``: settings other than the defaults. The LLM is loaded once for all that differ in ``lora_``
    settings alone. ``group``: processes that do so together; the leader writes.
    """
    group = group or Group()
    group.from_leader(lambda: check_same(out, study))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("ab").close()
    except OSError as error:
        raise AlkdError(f"--out: {str(out)!r} cannot be written: {error.strerror}") from None
    cut = out.is_file() and out.read_bytes()[-1:] not in (b"", b"\n")  # a kill has cut the last line
    if group.leads and cut:
        with out.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    wanted = [(pool, count) for count in counts for pool in (pools if count else pools[:1])]
    curve = loaded = None
    with threads(thread_count):
        for given in variants:
            for pool, count in wanted:
                asked = {"dataset": study.dataset, "pool": pool, "count": count, "given": dict(given)}
                # read anew: another command may add to the same file
                if group.from_leader(partial(is_done, out, asked)):
                    continue
                own = {key: value for key, value in given.items() if key.startswith("llm_")}
                if curve is None or own != loaded:
                    curve, loaded = None, own  # the former one's memory first
                    curve = Curve(study, own, device, group)
                result = curve.at(pool, count, given)
                if group.leads:
                    append_line(out, result)
                yield result


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Results as a table in Markdown: one row a result, MRR with its gain over zero-shot."""
    rows = [
        "| data set | examples | settings | loss: start, first, last quarter | seconds | MRR | gain over "
        "zero-shot [95 %] "
        "| NDCG@10 | fused MRR |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        own = "tuned" if line["count"] else "zero-shot"
        gain = line["gains"].get("tuned - zero-shot")
        loss = ", ".join(
            "-" if line.get(k) is None else f"{line[k]:.2f}"
            for k in ("loss_start", "loss_first", "loss_last")
        )
        given = ", ".join(f"`{key}: {value}`" for key, value in line["given"].items())
        what = f"{line['count']:,} {line['pool']}" if line["count"] else "none"
        rows.append(
            f"| {line['dataset']} | {what} | {given} | {loss if line['count'] else ''} | "
            f"{line['seconds']:.0f} | "
            if line["count"]
            else f"| {line['dataset']} | none | {given} | | | "
        )
        shown = f"{gain['mrr'][0]:+.3f} [{gain['mrr'][1]:+.3f}, {gain['mrr'][2]:+.3f}]" if gain else ""
        rows[-1] += (
            f"{line['mrr'][own]:.3f} | {shown} | {line['ndcg10'][own]:.3f} | "
            f"{line['mrr'][own + ', fused']:.3f} |"
        )
    return "\n".join(rows)


def _gains(a: np.ndarray, b: np.ndarray) -> dict[str, list[float]]:
    """a - b in MRR and NDCG@10 on the same sessions, each with its 95 % interval: [difference, low, high]."""
    of = {"mrr": (1 / a, 1 / b), "ndcg10": (ndcg(a, 10), ndcg(b, 10))}
    return {name: [round(value, 4) for value in paired_difference(*pair)[:3]] for name, pair in of.items()}


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _device_name() -> str:
    return torch.cuda.get_device_name()
