"""LoRA: it learns, only the adapter moves, every example is seen, and what is written can be loaded again."""

import json
import random
import socket
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_llm import context, tiny_llm, with_examples

from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Instance, LoraExample
from recbole_alkd.teacher.local import lora
from recbole_alkd.teacher.local import teacher as local_teacher
from recbole_alkd.teacher.local.scorers import TitleScorer

# what is chosen next is always of the family of the last item, and one of each family is offered
FAMILIES = "abcdef"
ITEMS = {f"{family}{k}": f"{family * 3} {k}" for family in FAMILIES for k in range(4)}


def examples(count, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        family = str(rng.choice(list(FAMILIES)))
        target, *history = (f"{family}{n}" for n in rng.permutation(4)[:3])
        others = [f"{f}{rng.integers(4)}" for f in FAMILIES if f != family]
        candidates = tuple(str(item) for item in rng.permutation([*others, target]))
        made.append(LoraExample(tuple(history), candidates, target, natural=k % 4 != 0))
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture
def no_network(monkeypatch):
    """What was tried to be reached; nothing can be."""
    tried = []

    def refuse(*what, **how):
        tried.append(what)
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def recorded(count, seed=0):
    """The same examples with a list to imitate: the target, then the others by name."""
    return [
        replace(e, ranking=(e.target, *sorted(set(e.candidates) - {e.target})[:3]))
        for e in examples(count, seed)
    ]


def teacher(model, tmp_path, made=16, wanted=16, log_metric=None, make=examples, held_out=None, **values):
    values = {
        "lora": True,
        "lora_examples": wanted,
        "lora_batch_size": 4,
        "lora_learning_rate": 1e-2,
        "llm_candidates": 6,
        "llm_top_n": 6,
        "lora_scale": "fixed",
        "lora_held_out": len(held_out or ()),
        **values,
    }
    own = {"titles": ITEMS, "lora_key": "k", "log_metric": log_metric}
    one = teachers.get("local")(context(model, tmp_path, values, **own))
    return with_examples(one, lambda: make(made), lambda: held_out or ())


def accuracy(one, asked):
    instances = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(asked)]
    first = {instance.row: answer.ranking[0] for instance, answer in one.ask(instances)}
    return np.mean([first[k] == e.target for k, e in enumerate(asked)])


def loss_of(answer, target, temperature=8):  # the default of llm_title_tokens
    scores = {item: score / temperature for item, score in json.loads(answer.raw).items()}
    return np.logaddexp.reduce(list(scores.values())) - scores[target]


def adapter_of(one):
    return one.lora_report["adapter"]


def test_it_learns_what_can_be_learned(model, tmp_path):
    held_out = examples(40, seed=9)
    plain = teacher(model, tmp_path, lora=False)
    tuned = teacher(model, tmp_path, made=160, wanted=160, lora_learning_rate=2e-2)
    tuned.prepare()
    report = tuned.lora_report
    assert report["loss_last"] < 0.5 * report["loss_first"]
    assert accuracy(tuned, held_out) > max(0.8, accuracy(plain, held_out) + 0.3)


def test_the_report_counts(model, tmp_path):
    logged = []
    one = teacher(model, tmp_path, made=18, wanted=18, log_metric=lambda *entry: logged.append(entry))
    assert one.lora_report is None
    one.prepare()
    report = one.lora_report
    assert report["examples"] == 18
    assert report["steps"] == 5  # the last of 2 examples
    assert (report["natural"], report["inserted"]) == (13, 5)
    assert report["reused"] is False
    assert report["settings"]["lora_rank"] == 16
    assert [(name, step) for name, _, step in logged] == [("lora/loss", step) for step in range(1, 6)]
    assert report["loss_first"] == pytest.approx(logged[0][1])
    assert report["loss_last"] == pytest.approx(logged[-1][1])


def test_training_starts_from_the_scores_without_an_adapter(model, tmp_path):
    logged = []
    one = teacher(model, tmp_path, log_metric=lambda *entry: logged.append(entry[1]), made=4, wanted=4)
    one.prepare()
    plain = teacher(model, tmp_path, lora=False)
    losses = []
    for e, (_, answer) in (
        (e, next(plain.ask([Instance(0, "s", e.history, e.candidates)]))) for e in examples(4)
    ):
        losses.append(loss_of(answer, e.target))
    assert logged[0] == pytest.approx(np.mean(losses), abs=1e-3)


def test_an_adapter_is_found_again_and_scores_the_same(model, tmp_path):
    asked = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(examples(6, seed=5))]
    first = teacher(model, tmp_path)
    wanted = {i.row: a.raw for i, a in first.ask(asked)}
    again = teacher(model, tmp_path, made=0)  # no example could be made now
    assert again.identity == first.identity
    assert {i.row: a.raw for i, a in again.ask(asked)} == wanted
    assert again.lora_report == {**first.lora_report, "reused": True}


def test_the_adapter_is_peft_s_own_format(model, tmp_path):
    from peft import PeftModel

    one = teacher(model, tmp_path)
    one.prepare()
    base, _ = load_causal_lm(str(model), "cpu", "float32")
    loaded = PeftModel.from_pretrained(base, adapter_of(one)).eval()
    e = examples(1, seed=3)[0]
    case = one._scorer.case(Instance(0, "s", e.history, e.candidates))
    with torch.no_grad():
        wanted = one._scorer.scores([case])[0]
        one._scorer.model = loaded
        assert torch.equal(one._scorer.scores([case])[0], wanted)


def test_only_the_adapter_is_trained(model, tmp_path):
    one = teacher(model, tmp_path)
    one.prepare()
    before, _ = load_causal_lm(str(model), "cpu", "float32")
    base = one._scorer.model.get_base_model().state_dict()
    for name, value in before.state_dict().items():
        parts = name.split(".")
        wrapped = ".".join([*parts[:-1], "base_layer", parts[-1]])
        assert torch.equal(base[wrapped if wrapped in base else name], value), name
    written = load_file(f"{adapter_of(one)}/adapter_model.safetensors")
    assert written and all("lora_" in name for name in written)
    assert any(value.abs().max() > 0 for name, value in written.items() if "lora_B" in name)


def test_the_null_is_taken_without_the_adapter(model, tmp_path):
    one, plain = teacher(model, tmp_path), teacher(model, tmp_path, lora=False)
    one.prepare()
    plain.prepare()
    one._scorer._null.clear()
    assert torch.equal(one._scorer.null(list(ITEMS)), plain._scorer.null(list(ITEMS)))


def test_the_same_seed_gives_the_same_adapter(model, tmp_path):
    written = []
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        random.seed(name)
        torch.manual_seed(len(written))
        one = teacher(model, tmp_path / name, llm_seed=seed, lora_dropout=0.1)
        one.prepare()
        written.append(load_file(f"{adapter_of(one)}/adapter_model.safetensors"))
    x, y, z = written
    assert all(torch.equal(x[name], y[name]) for name in x)
    assert not all(torch.equal(x[name], z[name]) for name in x)


def test_random_numbers_outside_are_left_alone(model, tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(4)
        np.random.seed(4)
        torch.manual_seed(4)

    seed()
    wanted = draw()
    seed()
    teacher(model, tmp_path).prepare()
    assert draw() == wanted


def test_too_few_examples_are_an_error(model, tmp_path):
    with pytest.raises(AlkdError, match="lora_examples: 16 are wanted and only 15 were made"):
        teacher(model, tmp_path, made=15, lora_inserted=True).prepare()
    one = teacher(model, tmp_path, made=15)  # all whose target the recommender found
    one.prepare()
    assert one.lora_report["examples"] == 15


def test_a_training_that_ends_early_is_an_error_and_leaves_nothing(model, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    from recbole_alkd.teacher.local import lora_trainer

    original = lora_trainer.build_trainer

    def stops_early(*args):
        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = True

        trainer = original(*args)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(lora_trainer, "build_trainer", stops_early)
    one = teacher(model, tmp_path)
    with pytest.raises(AlkdError, match="saw 4 examples instead of 16 in each of 1 epochs"):
        one.prepare()
    assert [path for path in (tmp_path / "alkd_labels" / "adapters").iterdir() if path.is_dir()] == []


def test_a_loss_that_is_no_number_is_an_error(model, tmp_path, monkeypatch):
    original = TitleScorer.scores
    monkeypatch.setattr(
        TitleScorer, "scores", lambda *args: [part * float("nan") for part in original(*args)]
    )
    with pytest.raises(AlkdError, match="loss is nan in step 1"):
        teacher(model, tmp_path).prepare()


def test_it_is_judged_by_ranks_of_held_out_targets(model, tmp_path, caplog):
    caplog.set_level("INFO")
    held_out = [replace(e, natural=True) for e in examples(20, seed=9)]
    values = {"made": 160, "wanted": 160, "lora_learning_rate": 2e-2}
    one = teacher(model, tmp_path, **values, held_out=held_out)
    one.prepare()
    ranks = one.lora_report["ranks"]
    assert (ranks["examples"], ranks["candidates"]) == (20, 6)

    def by_hand(which):
        ranks = []
        for e in held_out:
            ((_, answer),) = which.ask([Instance(0, "s", e.history, e.candidates)])
            scores = json.loads(answer.raw)
            own = scores[e.target]
            ranks.append(
                1 + sum(s > own for s in scores.values()) + (sum(s == own for s in scores.values()) - 1) / 2
            )
        return ranks

    for name, which in (("before", teacher(model, tmp_path, lora=False)), ("after", one)):
        wanted = by_hand(which)
        assert ranks[f"mean_rank_{name}"] == pytest.approx(np.mean(wanted), abs=0.06)
        assert ranks[f"mrr_{name}"] == pytest.approx(np.mean([1 / rank for rank in wanted]), abs=0.02)
    assert ranks["mean_rank_after"] < ranks["mean_rank_before"]
    assert "mean rank of the true next item" in caplog.text
    assert "LoRA: 160 examples, about" in caplog.text  # said before it began
    plain = teacher(model, tmp_path / "other", **values)
    plain.prepare()
    assert plain.lora_report["ranks"] is None
    a, b = (load_file(f"{adapter_of(which)}/adapter_model.safetensors") for which in (one, plain))
    assert all(torch.equal(a[name], b[name]) for name in a)  # being judged teaches nothing


def test_the_adapter_s_folder_can_be_moved_and_has_a_card(model, tmp_path):
    import shutil

    one = teacher(model, tmp_path)
    one.prepare()
    folder = Path(adapter_of(one))
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            assert str(model.parent) not in file.read_text(encoding="utf-8"), file.name
            assert "More Information Needed" not in file.read_text(encoding="utf-8")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    card = (folder / "README.md").read_text()
    assert "16 examples, 4 steps" in card and "modules q_proj" in card
    # elsewhere, beside its base model, it is an LLM of its own
    shutil.copytree(model, tmp_path / "away" / "tiny")
    shutil.copytree(folder, tmp_path / "away" / "mine")
    merged, _ = load_causal_lm(str(tmp_path / "away" / "mine"), "cpu", "float32")
    e = examples(1, seed=3)[0]
    case = one._scorer.case(Instance(0, "s", e.history, e.candidates))
    with torch.no_grad():
        wanted = one._scorer.scores([case])[0]
        one._scorer.model = merged
        assert torch.allclose(one._scorer.scores([case])[0], wanted, atol=1e-3)


def test_an_adapter_on_an_adapter_is_trained_on_both(model, tmp_path):
    first = teacher(model, tmp_path, lora_learning_rate=5e-2)
    first.prepare()
    mine = tmp_path / "mine"
    Path(adapter_of(first)).rename(mine)
    (tmp_path / "tiny").symlink_to(model)
    logged = []
    second = teacher(
        mine, tmp_path / "second", made=4, wanted=4, log_metric=lambda *entry: logged.append(entry[1])
    )
    second.prepare()
    # it starts from the scores of the first one, whose titles without a session are the first one's too
    plain = teacher(mine, tmp_path / "third", lora=False)
    losses = []
    for e in examples(4):
        ((_, answer),) = plain.ask([Instance(0, "s", e.history, e.candidates)])
        losses.append(loss_of(answer, e.target))
    assert logged[0] == pytest.approx(np.mean(losses), abs=1e-3)
    nulls = [which._scorer.null(list(ITEMS)) for which in (second, plain)]
    assert torch.equal(*nulls)


def test_what_a_killed_training_of_other_settings_left_is_removed_after_days(model, tmp_path, caplog):
    import os

    caplog.set_level("INFO")
    adapters = tmp_path / "alkd_labels" / "adapters"
    for name, days in (("old", 4), ("young", 1), ("done", 0)):
        part = adapters / f".{name}.partial" / "checkpoints"
        part.mkdir(parents=True)
        for path in (part, part.parent):
            os.utime(path, (time.time() - days * 86400,) * 2)
    (adapters / "done").mkdir()
    teacher(model, tmp_path, made=4, wanted=4).prepare()
    assert [path.name for path in adapters.glob(".*.partial")] == [".young.partial"]
    assert ".young.partial: an unfinished LoRA training" in caplog.text


def test_examples_by_themselves_go_with_the_budget(model, tmp_path):
    def wanted(**values):
        return context(model, tmp_path, {"lora": True, **values}).settings.lora_examples

    assert [wanted(budget_labels=n) for n in (7, 100, 1000, 5000)] == [7, 100, 1000, 1000]
    assert wanted(budget_labels=7, lora_examples=12) == 12
    # fewer sessions than that are no error, and given numbers keep the adapters that were trained with them
    one = teacher(model, tmp_path, made=4, lora_examples=None, budget_labels=6)
    one.prepare()
    assert one.lora_report["examples"] == 4
    assert (
        teacher(model, tmp_path, lora_examples=None, budget_labels=6).identity
        == teacher(model, tmp_path, wanted=6).identity
    )


def test_wrong_targets_are_named(model, tmp_path):
    with pytest.raises(AlkdError, match=r"lora_targets: \['q_prj'\]"):
        teacher(model, tmp_path, lora_targets=["q_prj"]).prepare()


def test_lora_without_sessions_is_an_error(model, tmp_path):
    with pytest.raises(AlkdError, match="lora: True needs training sessions"):
        teachers.get("local")(context(model, tmp_path, {"lora": True}, titles=ITEMS)).prepare()


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", lora.REPORT])
@pytest.mark.parametrize("content", [b"", b"not what it should be", None])
def test_a_damaged_adapter_is_named(model, tmp_path, file, content):
    one = teacher(model, tmp_path, made=4, wanted=4)
    one.prepare()
    path = Path(adapter_of(one), file)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(AlkdError, match="delete that folder") as error:
        teacher(model, tmp_path, made=4, wanted=4).prepare()
    assert "\n" not in str(error.value)
    assert str(path.parent) in str(error.value)


def test_progress_is_drawn_only_when_asked_for(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("recbole_alkd.bars.on_terminal", lambda: True)
    teacher(model, tmp_path).prepare()
    assert "LoRA" not in capsys.readouterr().err
    one = teachers.get("local")(
        context(
            model,
            tmp_path,
            {"lora": True, "lora_examples": 8},
            titles=ITEMS,
            show_progress=True,
        )
    )
    with_examples(one, lambda: examples(8))
    one.prepare()
    shown = capsys.readouterr().err
    assert "8/8" in shown and "loss=" in shown


def test_an_adapter_is_trained_and_saved_without_asking_the_hub(model, tmp_path, monkeypatch, no_network):
    """Checkpoints too, of a model that was named by its id."""
    load = local_teacher.load_causal_lm

    def named(*args):
        loaded, tokenizer = load(*args)
        loaded.name_or_path = loaded.config._name_or_path = "nobody/such-a-model"
        return loaded, tokenizer

    monkeypatch.setattr(local_teacher, "load_causal_lm", named)
    one = teacher(model, tmp_path)
    one.prepare()
    assert no_network == []
    tensors = load_file(Path(adapter_of(one), "adapter_model.safetensors"))
    assert tensors and not any("embed_tokens" in name or "lm_head" in name for name in tensors)
    assert lora.targets_embeddings(["q_proj", "embed_tokens"]) and not lora.targets_embeddings(["q_proj"])
    assert lora.targets_embeddings(".*embed_tokens") and not lora.targets_embeddings(None)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"]], ids=["attention", "embeddings"])
def test_an_adapter_is_merged_without_asking_the_hub(model, tmp_path, monkeypatch, no_network, targets):
    """Its base is named by the last part of a path, which might be the id of a model there."""
    first = teacher(model, tmp_path, lora_targets=targets, lora_learning_rate=5e-2)
    first.prepare()
    Path(adapter_of(first)).rename(tmp_path / "mine")
    (tmp_path / "tiny").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "mine", "mine"):
        merged, _ = load_causal_lm(str(name), "cpu", "float32")
        assert no_network == [] and not hasattr(merged, "peft_config")
    plain, _ = load_causal_lm(str(model), "cpu", "float32")
    changed = [
        name for name, value in merged.state_dict().items() if not value.equal(plain.state_dict()[name])
    ]
    assert changed and all(any(target in name for target in [*targets, "lm_head"]) for name in changed)


def test_an_adapter_without_weights_is_named_without_asking_the_hub(model, tmp_path, monkeypatch, no_network):
    first = teacher(model, tmp_path, made=4, wanted=4)
    first.prepare()
    monkeypatch.chdir(tmp_path)
    Path("some").mkdir()
    Path(adapter_of(first)).rename(tmp_path / "some" / "one")
    (tmp_path / "some" / "tiny").symlink_to(model)
    (tmp_path / "some" / "one" / "adapter_model.safetensors").unlink()
    with pytest.raises(
        AlkdError, match=r"llm_model: the adapter 'some/one' has no weights; allowed: a folder"
    ):
        load_causal_lm("some/one", "cpu", "float32")
    assert no_network == []


def test_progress_in_a_file_is_a_line_a_minute(model, tmp_path, capsys):
    values = {"lora": True, "lora_examples": 8}
    one = teachers.get("local")(context(model, tmp_path, values, titles=ITEMS, show_progress=True))
    with_examples(one, lambda: examples(8))
    one.prepare()
    assert capsys.readouterr().err == ""


def test_training_ends_when_the_held_out_loss_rises(model, tmp_path):
    logged: list = []
    values = {"lora_epochs": 9, "lora_learning_rate": 0.1, "log_metric": lambda *entry: logged.append(entry)}
    one = teacher(model, tmp_path, made=40, wanted=40, **values)
    one.prepare()
    report = one.lora_report
    held_out = [value for name, value, _ in logged if name == "lora/loss_held_out"]
    assert report["held_out"] == 4
    assert report["loss_held_out"] == pytest.approx(held_out)
    assert report["epochs"] == len(held_out) < 9
    assert report["steps"] == 9 * report["epochs"]
    assert held_out[-1] >= min(held_out[:-1])
    # what is kept is the best epoch's adapter: its held-out loss, recomputed
    from recbole_alkd.teacher.local.lora_trainer import split_rows

    rows = split_rows(40, one.context.settings)[1]
    losses = []
    for e in (examples(40)[row] for row in rows):
        ((_, answer),) = one.ask([Instance(0, "s", e.history, e.candidates)])
        losses.append(loss_of(answer, e.target))
    assert np.mean(losses) == pytest.approx(min(held_out), abs=1e-3)


def test_patience_waits_for_a_better_epoch(model, tmp_path):
    losses = {}
    for patience in (1, 3):
        one = teacher(
            model, tmp_path, made=40, wanted=40, lora_epochs=9, lora_learning_rate=0.1, lora_patience=patience
        )
        one.prepare()
        losses[patience] = one.lora_report["loss_held_out"]
        assert one.lora_report["epochs"] == len(losses[patience])
    stopped = len(losses[1])
    assert stopped < 9 and losses[1][-1] >= min(losses[1][:-1])
    assert losses[3][:stopped] == pytest.approx(losses[1])
    assert len(losses[3]) >= min(9, stopped + 2)


def test_the_loss_of_a_list_is_that_of_drawing_it(model, tmp_path):
    from recbole_alkd.teacher.local.lora_trainer import list_loss

    rng = np.random.default_rng(3)
    for size, count in ((5, 3), (4, 4), (6, 1)):
        scores, order = rng.normal(size=size), rng.permutation(size)[:count]
        left, expected = list(range(size)), 0.0
        for item in order:
            expected -= np.log(np.exp(scores[item]) / sum(np.exp(scores[k]) for k in left)) / count
            left.remove(item)
        assert list_loss(torch.tensor(scores), torch.tensor(order)).item() == pytest.approx(expected)
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: list_loss(s, torch.tensor([2, 0, 4])), scores)


def test_a_scale_that_is_learnt_starts_where_the_loss_is_lowest_and_learns(model, tmp_path):
    plain = teacher(model, tmp_path, lora=False)
    values = {"made": 160, "wanted": 160, "lora_learning_rate": 2e-2, "lora_scale": "learnt"}
    logged = []
    one = teacher(model, tmp_path, **values, log_metric=lambda *entry: logged.append(entry[1]))
    one.prepare()
    report = one.lora_report
    asked = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(examples(32))]
    answers = {instance.row: answer for instance, answer in plain.ask(asked)}

    def mean_loss(scale):
        return np.mean([loss_of(answers[k], e.target, scale) for k, e in enumerate(examples(32))])

    tried = {times: mean_loss(8 * 2 ** (times / 2)) for times in range(-8, 5)}
    assert report["loss_start"] == pytest.approx(min(tried.values()), abs=1e-3)
    assert report["scale_start"] == pytest.approx(8 * 2 ** (min(tried, key=tried.get) / 2))
    assert report["loss_start"] <= np.log(6) + 0.02 and logged[0] < np.log(6) + 0.3
    assert report["scale"] < 0.9 * report["scale_start"]  # it grows sure of itself
    held_out = examples(40, seed=9)
    assert accuracy(one, held_out) > accuracy(plain, held_out) + 0.3


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_scale_changes_no_ranking_without_an_adapter(model, tmp_path, scale, monkeypatch):
    """Zero-shot scores are the same whatever the loss divides them by."""
    asked = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(examples(6, seed=5))]
    wanted = {i.row: a.raw for i, a in teacher(model, tmp_path, lora=False).ask(asked)}
    monkeypatch.setattr(TitleScorer, "temperature", scale)
    one = teacher(
        model, tmp_path, made=4, wanted=4, lora_scale="learnt", lora_learning_rate=1e-12, lora_use="always"
    )
    scores = {i.row: json.loads(a.raw) for i, a in one.ask(asked)}
    assert scores == {row: pytest.approx(json.loads(raw), abs=1e-3) for row, raw in wanted.items()}


def test_a_loss_over_fewer_candidates_keeps_what_is_taught(model, tmp_path):
    one = LoraExample(("h",), tuple("abcdef"), "e", True)
    assert lora.shortened(one, None) is one
    assert lora.shortened(one, 3).candidates == ("a", "b", "e")
    assert lora.shortened(replace(one, target="a"), 2).candidates == ("a", "b")
    assert lora.shortened(replace(one, ranking=("e", "f", "c"), target="e"), 2).candidates == ("c", "e", "f")
    short = teacher(model, tmp_path, made=8, wanted=8, lora_candidates=3)
    short.prepare()
    assert short.identity != teacher(model, tmp_path, made=8, wanted=8).identity


def test_recorded_rankings_are_imitated(model, tmp_path):
    def agreement(one):
        asked = recorded(30, seed=9)
        answers = dict(one.ask([Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(asked)]))
        places = [(answer.ranking, asked[instance.row].ranking) for instance, answer in answers.items()]
        pairs = [
            ranking.index(a) < ranking.index(b) for ranking, wanted in places for a, b in pairwise(wanted)
        ]
        return np.mean(pairs)

    plain = teacher(model, tmp_path, lora=False)
    tuned = teacher(
        model, tmp_path, made=160, wanted=160, make=recorded, lora_target="replay", lora_learning_rate=2e-2
    )
    tuned.prepare()
    assert tuned.lora_report["imitated"] == 160
    assert tuned.lora_report["loss_last"] < tuned.lora_report["loss_first"]
    assert agreement(tuned) > max(0.7, agreement(plain) + 0.15)  # a random order agrees in half of the pairs


def test_checkpointing_changes_no_loss(model, tmp_path, monkeypatch):
    from recbole_alkd.teacher.local.lora_trainer import ListwiseTrainer

    seen, losses, plain = [], {}, ListwiseTrainer.compute_loss

    def compute_loss(self, model, *args, **kwargs):
        seen.append(any(getattr(module, "gradient_checkpointing", False) for module in model.modules()))
        return plain(self, model, *args, **kwargs)

    monkeypatch.setattr(ListwiseTrainer, "compute_loss", compute_loss)
    for on in (False, True):
        logged = []
        seen.clear()
        teacher(
            model,
            tmp_path,
            log_metric=lambda *entry, logged=logged: logged.append(entry),
            lora_checkpointing=on,
        ).prepare()
        losses[on] = [value for _, value, _ in logged]
        assert set(seen) == {on}
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


def test_lora_on_quantized_weights(tmp_path):
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    model = tiny_llm(tmp_path / "llm", width=128)
    one = teacher(model, tmp_path, made=64, wanted=64, llm_quantize="8bit")
    one.prepare()
    assert one.lora_report["loss_last"] < one.lora_report["loss_first"]
    assert one.identity != teacher(model, tmp_path, made=64, wanted=64).identity
    with pytest.raises(AlkdError, match="no LoRA through '4bit' weights on a CPU"):
        teacher(model, tmp_path, llm_quantize="4bit").prepare()


def test_held_out_examples_are_a_tenth_and_only_where_epochs_repeat(model, tmp_path):
    from recbole_alkd.teacher.local.lora_trainer import split_rows

    one = teacher(model, tmp_path).context.settings
    assert split_rows(50, one) == (list(range(50)), [])
    several = teacher(model, tmp_path, lora_epochs=2).context.settings
    train, held_out = split_rows(50, several)
    assert len(held_out) == 5
    assert sorted(train + held_out) == list(range(50))
