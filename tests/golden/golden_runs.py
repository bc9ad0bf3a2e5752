"""Small runs whose results are written down: what is run, and what of a result is kept.

``expected.json`` beside this file holds one entry a case.
``python tests/golden/golden_runs.py --write [CASE]`` makes all entries, or those of the cases named, anew:
only where results are meant to change, which the changelog then says.
With ``--show`` a case's entry is printed instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alkd import run_recbole_alkd
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.labels import LabelStore
from recbole_alkd.labels.hints import all_hints

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"
# a causal LM of random weights whose tokens are bytes, kept as files so that its identity never changes
LLM = HERE / "llm"
COLOURS = ("crimson rose", "emerald leaf", "sapphire sea")
N_ITEMS, COUNTS = 45, {"train": 48, "valid": 24, "test": 24}
# what differs from run to run, or from machine to machine
VOLATILE = ("seconds", "peak_mb")
# from ranks and target groups; upper less value; words of the LLM teacher
DERIVED = ("test_groups", "gap", "origin")

TEACHER = '''
from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import Answer, LLMTeacher


@teachers.register("golden")
class Golden(LLMTeacher):
    """Ranks candidates by their numbers, and dies after ``DIES`` answers."""

    needs_titles = False
    identity = "golden"
    dies = -1

    def prompt(self, instance):
        return " ".join(instance.history)

    def estimate(self, instance):
        return 9, None

    def ask(self, instances):
        for instance in instances:
            if Golden.dies == 0:
                raise KeyboardInterrupt
            Golden.dies -= 1
            ranking = sorted(instance.candidates, key=lambda token: (int(token[1:]) * 7 % 45, token))
            kept = tuple(ranking[: self.context.settings.teacher.llm_top_n])
            yield instance, Answer(kept, prompt_tokens=7, completion_tokens=2)
'''

BASE: dict[str, Any] = {
    "data_path": "data", "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 3,
    "show_progress": False, "state": "ERROR", "use_gpu": False, "topk": [5, 10], "valid_metric": "NDCG@10",
    "session_augmentation": "prefix", "softmax_negatives": 16, "student_embedding_size": 4,
    "teacher_embedding_size": 8, "learning_rate": 0.01, "budget_labels": 10, "llm_candidates": 8,
    "llm_top_n": 4,
    "lora": False,
    "alkd_plugins": ["golden_teacher"], "llm_teacher": "golden",
}  # fmt: skip
TEXT = {"item_text": "tfidf"}
KNN = {"student_model": "SessionKNN", "student_neighbors": 5, "student_config": {"knn_edge_weight": 1.0}}
STUDENTS: dict[str, dict[str, Any]] = {
    "SessionFPMC": {},
    "SessionSTAMP": {"student_model": "SessionSTAMP"},
    "AttMix": {"student_model": "AttMix", "student_config": {"last_k": 4}},
    "GRU4Rec": {"student_model": "GRU4Rec"},
    "SessionKNN": KNN,
}
OTHERS = (
    "BERT4Rec",
    "CORE",
    "FEARec",
    "GCSAN",
    "LightSANs",
    "NARM",
    "NextItNet",
    "SASRec",
    "SINE",
    "SLIST",
    "SRGNN",
    "STAMP",
    "VSTAN",
)
POLICIES: dict[str, dict[str, Any]] = {
    name: {"alkd_policy": name}
    for name in (
        "disagreement",
        "easiest",
        "hardest",
        "max_min",
        "paper",
        "paper_printed",
        "rad_bc",
        "random",
        "uncertainty",
    )
} | {"listed": {"alkd_policy": "listed", "alkd_picks": "picks.json#mine"}}
LOSSES = (
    "de",
    "dllm2rec",
    "dsl",
    "ftd",
    "htd",
    "link",
    "pairwise",
    "rd",
    "rrd",
    "text_pairs",
    "text_project",
    "tr",
    "unkd",
)
NEED_TITLES = ("text_pairs", "text_project")


@dataclass(frozen=True)
class Case:
    """One run, or several in a row on the same label store.

    Attributes:
        settings: laid over ``BASE``. slow: not in the fast suite.
        around: a context manager in which the run stands, and which may give further settings.
        before: what is done first, in the same working directory.
        needs: a package without which the case is skipped.
        norms: by how much the length of all weights may differ, as a share.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    around: Callable[[], contextlib.AbstractContextManager[Mapping[str, Any]]] | None = None
    before: Callable[[dict[str, Any]], None] | None = None
    needs: str | None = None
    norms: float = 1e-6


@contextlib.contextmanager
def chat_server() -> Iterator[Mapping[str, Any]]:
    """An OpenAI-compatible server that ranks by id, and gives two rules when it is asked for hints."""
    sys.path.append(str(HERE.parent / "teacher"))  # where this is no test
    from chat_server import ChatServer

    def script(number: int, body: dict[str, Any]) -> str | None:
        asked_for_hints = "Candidates" not in body["messages"][1]["content"]
        return "1. Odd things follow odd things.\n2. Nothing repeats." if asked_for_hints else None

    with ChatServer(script) as server:
        yield {"llm_base_url": server.url}


def killed_while_asking(settings: dict[str, Any]) -> None:
    """A run that ends after four answers."""
    import golden_teacher

    golden_teacher.Golden.dies = 4
    try:
        run(settings)
    except KeyboardInterrupt:
        return
    finally:
        golden_teacher.Golden.dies = -1
    raise AssertionError("the run was not interrupted")


def killed_after_steps(count: int) -> Callable[[dict[str, Any]], None]:
    """A run that ends in its ``count``-th step of gradient descent, whichever stage that is in."""

    def kill(settings: dict[str, Any]) -> None:
        backward, steps = torch.Tensor.backward, [0]

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            steps[0] += 1
            if steps[0] == count:
                raise KeyboardInterrupt
            return backward(self, *args, **kwargs)

        torch.Tensor.backward = counted  # type: ignore[method-assign]
        try:
            run(settings)
        except KeyboardInterrupt:
            return
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
        raise AssertionError(f"the run was not interrupted: it takes {steps[0]} steps")

    return kill


def one_before(**settings: Any) -> Callable[[dict[str, Any]], None]:
    """Another run first, on the same store."""
    return lambda own: run({**own, **settings}) and None


def all_cases() -> dict[str, Case]:
    """Name -> case."""
    cases: dict[str, Case] = {}
    fast_policies = {"SessionFPMC": set(POLICIES), "SessionKNN": {"max_min", "disagreement", "uncertainty"}}
    for student, own in STUDENTS.items():
        for policy, how in POLICIES.items():
            slow = policy not in fast_policies.get(student, {"max_min"})
            cases[f"{student} x {policy}"] = Case({**own, **how}, slow=slow)
    for student in OTHERS:
        both = {"student_model": student, "teacher_model": student, "epochs": 1}
        # the weights of two, and nothing else, differ by 5e-5 where torch runs without vector instructions
        cases[f"{student} as both"] = Case(
            both, slow=True, norms=1e-3 if student in ("CORE", "SINE") else 1e-6
        )
    for loss in LOSSES:
        titles = TEXT if loss in NEED_TITLES else {}
        cases[f"loss {loss}"] = Case({"kd_loss": loss, "kd_rec_weight": 1.0, **titles})
    cases["weight of edges chosen on validation"] = Case({**KNN, "student_config": {}})
    cases["loss tr, table"] = Case({**KNN, "kd_loss": "tr"})
    cases["losses added up, from scratch"] = Case(
        {"kd_loss": {"pairwise": 1, "ftd": 10, "unkd": 0.5}, "kd_rec_weight": 0.5, "kd_init": "scratch"}
    )
    for kind in ("shuffled", "permuted", "target"):
        cases[f"control {kind}"] = Case({"kd_lists": kind})
    cases["control kd_correct"] = Case({"kd_correct": 0.5})
    for draw in ("uniform", "candidates"):
        cases[f"kd_negatives {draw}"] = Case({"kd_negatives": draw})
    for difficulty in ("loss", "rank"):
        cases[f"difficulty {difficulty}"] = Case({"alkd_difficulty": difficulty})
    cases["drawn with pps"] = Case({"alkd_draw": "pps"})
    cases["pool of prefixes, filled up"] = Case(
        {"alkd_pool": "prefix", "alkd_fill": "next", "budget_labels": 16}
    )
    cases["another ratio and mu"] = Case({"alkd_ratio": [3, 2, 5], "alkd_mu": 2})
    cases["pilot"] = Case({"alkd_ratio": "pilot", "alkd_pilot": 5, "alkd_fill": "next"})
    cases["two rounds"] = Case({"alkd_rounds": 2})
    cases["two rounds after a pilot, table"] = Case(
        {**KNN, "alkd_ratio": "pilot", "alkd_pilot": 4, "alkd_rounds": 2}
    )
    cases["teacher recommender is a table"] = Case({"teacher_model": "SessionKNN"})
    cases["both are tables"] = Case({**KNN, "teacher_model": "SessionKNN"})
    cases["own losses, sessions masked, last rows"] = Case(
        {
            "train_loss": None,
            "mask_session_items": True,
            "session_augmentation": "last",
            "llm_inject_target": False,
        }
    )
    cases["rows read backwards"] = Case({"train_backwards": True})
    for teacher in ("null", "recommender", "text", "replay"):
        cases[f"teacher {teacher}"] = Case({"llm_teacher": teacher})
    local = {
        "llm_teacher": "local",
        "llm_model": "llm",
        "llm_dtype": "float32",
        "llm_threads": 1,
        "budget_labels": 6,
    }
    cases["teacher local"] = Case(local)
    cases["teacher local, by index"] = Case({**local, "llm_scoring": "index"})
    # as the first release trained adapters, and used them whatever held-out examples said
    lora = {
        **local,
        "lora": True,
        "lora_rank": 2,
        "lora_examples": 8,
        "lora_scale": "fixed",
        "lora_inserted": True,
        "lora_use": "always",
    }
    cases["teacher local, LoRA"] = Case(lora)
    cases["teacher local, LoRA on recordings"] = Case({**lora, "lora_target": "replay"})
    api = {"llm_teacher": "api", "llm_model": "m", "llm_hint_cases": 3, "budget_labels": 6}
    cases["teacher api with hints"] = Case(api, around=chat_server, needs="openai")
    cases["teacher api without hints"] = Case({**api, "llm_hints": False}, around=chat_server, needs="openai")
    cases["token budget"] = Case({"budget_tokens": 40})
    cases["tuned"] = Case({"student_tune": 2, "student_search": "space.yaml", "epochs": 2})
    cases["titles in a loss of the student"] = Case(
        {**TEXT, "item_text_loss": {"text_pairs": 1, "text_project": 1}}
    )
    cases["titles in a table"] = Case({**KNN, **TEXT, "report_tables": [5]})
    cases["titles permuted"] = Case({**KNN, **TEXT, "item_text_permuted": True})
    # all coordinates: of those that matter alike, the number of threads decides which are kept
    cases["late fusion"] = Case({**TEXT, "serve_text_dim": 64})
    cases["a second run on one store"] = Case(before=one_before())
    cases["a larger budget on one store"] = Case(before=one_before(budget_labels=6))
    cases["killed while asking"] = Case(before=killed_while_asking)
    alone = {"stage_cache": False, "checkpoint_dir": "alone"}
    cases["killed in the teacher recommender"] = Case(alone, before=killed_after_steps(5))
    cases["killed in the student"] = Case(alone, before=killed_after_steps(45))
    cases["killed in distillation"] = Case(alone, before=killed_after_steps(75))
    return cases


# a killed run is the unbroken one: the same settings, digit for digit
SAME = {
    "killed while asking": "SessionFPMC x max_min",
    "killed in the teacher recommender": "SessionFPMC x max_min",
    "killed in the student": "SessionFPMC x max_min",
    "killed in distillation": "SessionFPMC x max_min",
}


def write_home(folder: Path) -> None:
    """A working directory: sessions of items with like titles, recordings, a search space, a plug-in."""
    rng = np.random.default_rng(11)
    data = folder / "data" / "tiny"
    data.mkdir(parents=True)
    number, recorded = 0, []
    for part, count in COUNTS.items():
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for _ in range(count):
            kind, length = int(rng.integers(3)), int(rng.integers(2, 7))
            items = [3 * int(k) + kind + 1 for k in rng.permutation(N_ITEMS // 3)[: length + 1]]
            if rng.random() < 0.3:  # a click on something else
                items[int(rng.integers(length))] = int(rng.integers(1, N_ITEMS + 1))
            history, target = items[:-1], items[-1]
            lines.append(f"s{number}\t{' '.join(f'i{i}' for i in history)}\ti{target}")
            ranking = [f"i{target}", *(f"i{int(i)}" for i in rng.permutation(N_ITEMS)[:6] + 1)]
            recorded.append(json.dumps({"session_id": f"s{number}", "ranking": ranking}))
            number += 1
        (data / f"tiny.{part}.inter").write_text("\n".join(lines) + "\n")
    titles = [f"i{i}\t{COLOURS[i % 3]} no {i:02d}" for i in range(1, N_ITEMS + 1)]
    (data / "tiny.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")
    (data / "tiny.llm.jsonl").write_text("\n".join(recorded) + "\n")
    (folder / "golden_teacher.py").write_text(TEACHER)
    (folder / "picks.json").write_text(json.dumps({"mine": [f"s{k}" for k in range(3, 43, 4)]}))
    (folder / "space.yaml").write_text(
        "common:\n  learning_rate: [0.003, 0.03]\n  softmax_dropout: [0.0, 0.3]\n"
        "student_longer:\n  kd_learning_rate: [0.01, 0.03]\n"
    )
    shutil.copytree(LLM, folder / "llm")


@contextlib.contextmanager
def home(folder: Path) -> Iterator[Path]:
    """``write_home`` in an empty ``folder``, which is then the working directory and on Python's path."""
    write_home(folder)
    before, words = os.getcwd(), sys.argv
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["run"]
    try:
        import golden_teacher  # noqa: F401

        yield folder
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        sys.argv = words
        sys.modules.pop("golden_teacher", None)


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    return run_recbole_alkd(dataset="tiny", config_dict={**BASE, **settings})


def run_case(name: str) -> dict[str, Any]:
    """What is kept of case ``name``, run in the working directory of ``home``."""
    case = all_cases()[name]
    store = Path("stores") / name.replace(" ", "_") / "labels.sqlite"
    with (case.around or contextlib.nullcontext)() as given:  # type: ignore[attr-defined]
        settings = {"label_store": str(store), **case.settings, **(given or {})}
        if case.before:
            case.before(settings)
        report = run(settings)
    return kept(report, store, whole=name == "SessionFPMC x max_min" or "report_tables" in settings)


def kept(report: Mapping[str, Any], store: Path, whole: bool) -> dict[str, Any]:
    """What of a result must not change, as JSON holds it; ``whole``: with what is the same in nearly all
    cases."""
    folder = Path(report["run_folder"])
    text = (folder / "result.json").read_text(encoding="utf-8")
    written = json.loads(text, parse_constant=refused)
    result = {
        key: steady(written[key])
        for key in ("stages", "labels", "policy", "comparisons", "tuned", "lora", "item_text")
    }
    result["metrics"] = list(written["stages"]["distilled"]["test"])
    result["verdict"] = written["comparison"]["verdict"]
    result["labels"]["ended"] = written["labels"]["ended"] is not None  # in whatever words
    if written["lora"]:
        result["lora"]["adapter"] = Path(written["lora"]["adapter"]).name  # by which a second run finds it
    for name, stage in result["stages"].items():
        for part in ("valid", "test"):
            assert list(stage[part]) == result["metrics"]
            stage[part] = list(stage[part].values())
        file = folder / f"{name}.stage.pth"  # a table is not trained longer
        stage["norm"] = norm(load_checkpoint(str(file))["state"]) if file.exists() else None
    with np.load(folder / "ranks.npz") as ranks:
        result["mean_reciprocal_ranks"] = {
            name: float((1 / ranks[name]).mean())
            for name in ranks
            if not name.startswith(("sessions_", "groups_"))
        }
    if whole:
        result |= {key: steady(written[key]) for key in ("baselines", "targets")}
        result["keys"] = sorted(written)
    if store.exists():
        with LabelStore(store) as labels:
            by_key = sorted(labels, key=lambda one: one.key)
            result["store"] = [f"{one.key[:24]} {one.status} {' '.join(one.ranking)}" for one in by_key]
            result["hints"] = [[one.key, *one.rules] for one in all_hints(labels)]
    return json.loads(json.dumps(result))


def refused(word: str) -> None:
    raise AssertionError(f"{word} in result.json, which JSON has not")


def steady(value: Any) -> Any:
    """``value`` without times, memory, and what follows from the rest."""
    if isinstance(value, dict):
        return {key: steady(one) for key, one in value.items() if key not in (*VOLATILE, *DERIVED)}
    return [steady(one) for one in value] if isinstance(value, list) else value


def norm(state: Mapping[str, Any]) -> float:
    """The length of all weights as one vector."""
    return float(sum(float((tensor.double() ** 2).sum()) for tensor in state.values()) ** 0.5)


def differences(got: Any, expected: Any, place: str = "", norms: float = 1e-6) -> list[str]:
    """Where ``found`` is not ``expected``.

    Integers, text, lists of keys and picks must be equal. Floats may differ by one part in a million: another
    processor, another number of threads or another build of torch adds numbers up in another order, and the
    last digits of a float32 follow from that.
    """
    if isinstance(expected, float) and isinstance(got, float):
        # worst-case gains are tiny numbers; others are about one, and a difference of two may be nothing
        nothing = 0.0 if place.endswith((".value", ".upper")) else 1e-12
        share = norms if place.endswith(".norm") else 1e-6
        near = abs(got - expected) <= share * max(abs(got), abs(expected)) + nothing or (
            math.isnan(got) and math.isnan(expected)
        )
        return [] if near else [f"{place}: {got!r}, not {expected!r}"]
    if type(got) is not type(expected):
        return [f"{place}: {got!r}, not {expected!r}"]
    if isinstance(expected, dict):
        lines = [
            f"{place}.{key}: {'new' if key in got else 'missing'}" for key in got.keys() ^ expected.keys()
        ]
        for key in expected.keys() & got.keys():
            lines += differences(got[key], expected[key], f"{place}.{key}", norms)
        return sorted(lines)
    if isinstance(expected, list):
        if len(got) != len(expected):
            return [f"{place}: {len(got)} entries, not {len(expected)}: {got!r}, not {expected!r}"]
        return [
            line
            for k, pair in enumerate(zip(got, expected, strict=True))
            for line in differences(*pair, f"{place}[{k}]", norms)
        ]
    return [] if got == expected else [f"{place}: {got!r}, not {expected!r}"]


def read_expected() -> dict[str, Any]:
    return json.loads(EXPECTED.read_text(encoding="utf-8"))


def write_expected(entries: Mapping[str, Any]) -> None:
    """One line a part of an entry, so that a change can be read."""
    lines = []
    for name in sorted(entries):
        parts = [
            f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
            for key, value in sorted(entries[name].items())
        ]
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(parts) + "\n }")
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("cases", nargs="*")
    words = parser.parse_args()
    cases = all_cases()
    names = words.cases or list(cases)
    unknown = [name for name in names if name not in cases]
    if unknown or not (words.write or words.show):
        sys.exit(f"unknown: {unknown}" if unknown else "nothing to do; give --write or --show")
    entries = {
        name: entry for name, entry in (read_expected() if EXPECTED.exists() else {}).items() if name in cases
    }
    with tempfile.TemporaryDirectory() as folder, home(Path(folder)):
        for name in names:
            begin = time.perf_counter()
            entry = run_case(name)
            print(f"{time.perf_counter() - begin:5.1f} s  {name}", file=sys.stderr)
            if words.show:
                print(json.dumps({name: entry}, indent=1))
            entries[name] = entry
    if words.write:
        write_expected(entries)


if __name__ == "__main__":
    main()
