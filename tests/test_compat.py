"""RecBole on today's numpy, torch and setuptools: checkpoints, anomaly mode, the missing Ray."""

from __future__ import annotations

import http.server
import sys
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
import recbole.trainer.trainer
import recbole.utils.logger
import torch
from process import python
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataset import Dataset

from recbole_alkd import compat

STOCK = {
    "epochs": 1, "train_batch_size": 4096, "MAX_ITEM_LIST_LENGTH": 5, "embedding_size": 4, "hidden_size": 4,
    "train_neg_sample_args": None, "show_progress": False, "state": "ERROR",
    "user_inter_num_interval": "[200,inf)",
}  # fmt: skip


@pytest.fixture(scope="module")
def stock_checkpoint(tmp_path_factory):
    """A GRU4Rec checkpoint that RecBole's own run wrote after our import."""
    from recbole.quick_start import run_recbole

    folder = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["run"])
        result = run_recbole(model="GRU4Rec", dataset="ml-100k", config_dict=dict(STOCK))
    assert 0 <= result["test_result"]["recall@10"] <= 1
    return next(folder.glob("saved/GRU4Rec-*.pth"))


def test_a_stock_checkpoint_is_read_by_the_safe_reader(stock_checkpoint):
    content = torch.load(stock_checkpoint, weights_only=True)
    assert content["config"]["model"] == "GRU4Rec"
    assert content["config"].model_class.__name__ == "GRU4Rec"
    assert isinstance(content["best_valid_score"], float)


def test_load_data_and_model_reads_it_in_a_fresh_process(stock_checkpoint):
    code = f"""
import recbole_alkd
from recbole.quick_start import load_data_and_model
config, model, *_ = load_data_and_model({str(stock_checkpoint)!r})
print("loaded", type(model).__name__)
"""
    assert "loaded GRU4Rec" in python(code, stock_checkpoint.parents[1])


def test_an_older_checkpoint_is_refused_by_name_and_read_on_trust(stock_checkpoint, tmp_path, monkeypatch):
    from recbole_alkd import load_data_and_model

    old = tmp_path / "old.pth"
    torch.save(torch.load(stock_checkpoint, weights_only=True), old, pickle_protocol=4)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"old\.pth.*trust_checkpoint"):
        load_data_and_model(str(old))
    assert type(load_data_and_model(str(old), trust_checkpoint=True)[1]).__name__ == "GRU4Rec"
    with pytest.raises(ValueError, match=r"old\.pth"):  # the trust ended with the call
        load_data_and_model(str(old))


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"config": Bomb()}, tmp_path / "bomb.pth", pickle_protocol=2)
    with pytest.raises(ValueError, match=r"bomb\.pth"):
        compat.load_checkpoint(str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    compat.save_checkpoint({"x": torch.ones(3)}, str(path))

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        compat.save_checkpoint({"x": torch.zeros(3)}, str(path))
    assert torch.equal(compat.load_checkpoint(str(path))["x"], torch.ones(3))


def test_anomaly_mode_is_what_it_was_before_the_import(tmp_path):
    code = """
import torch
torch.autograd.set_detect_anomaly({before})
import recbole_alkd
from recbole.model.sequential_recommender import SINE
print("anomaly", torch.is_anomaly_enabled())
"""
    assert "anomaly False" in python(code.format(before=False), tmp_path)
    assert "anomaly True" in python(code.format(before=True), tmp_path)


def test_the_import_is_light_and_leaves_no_false_ray(tmp_path):
    code = """
import sys
import recbole_alkd
import recbole.quick_start
late = ("transformers", "peft", "openai", "matplotlib", "sklearn.feature_extraction")
heavy = [m for m in late if m in sys.modules]
ray = sys.modules.get("ray")
print("heavy", heavy, "ray", ray is None or bool(ray.__file__))
"""
    assert "heavy [] ray True" in python(code, tmp_path)


def test_numpy_has_the_names_recbole_asks_for():
    assert np.float_ is np.float64 and np.unicode_ is np.str_ and np.complex_ is np.complex128


@pytest.mark.parametrize("module", [recbole.utils, recbole.utils.logger, recbole.trainer.trainer])
def test_runs_that_begin_together_may_make_the_same_folder(module, tmp_path, monkeypatch):
    there = tmp_path / "saved"
    there.mkdir()
    # what a run sees when another one makes the folder right after it looked
    monkeypatch.setattr("os.path.exists", lambda path: False)
    module.ensure_dir(str(there))
    monkeypatch.undo()
    module.ensure_dir(str(there / "below" / "it"))
    assert (there / "below" / "it").is_dir()


def test_apply_may_be_called_again():
    from recbole.trainer import Trainer

    before = Trainer.evaluate
    compat.apply()
    assert Trainer.evaluate is before


def test_a_run_goes_on_after_a_download(tmp_path, monkeypatch):
    """A zip from a server on this machine, unpacked and loaded by RecBole in one process."""
    folder = tmp_path / "served"
    folder.mkdir()
    lines = [
        "user_id:token\titem_id:token\ttimestamp:float",
        *(f"u{i % 3}\ti{i % 5}\t{i}" for i in range(60)),
    ]
    with zipfile.ZipFile(folder / "far.zip", "w") as archive:
        archive.writestr("far.inter", "\n".join(lines) + "\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/far.zip"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    monkeypatch.setattr(Dataset, "_get_download_url", lambda self, url_file, allow_none=False: url)
    try:
        config = Config(
            model="GRU4Rec", dataset="far", config_dict={"train_neg_sample_args": None, "data_path": "data"}
        )
        dataset = create_dataset(config)
    finally:
        server.shutdown()
    assert dataset.inter_num == 60
    assert torch.distributed.barrier.__module__.startswith("torch.")  # the real one is back


@pytest.mark.parametrize(("use_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_use_gpu_decides_the_device(use_gpu, device, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Config(
        model="GRU4Rec", dataset="ml-100k", config_dict={"train_neg_sample_args": None, "use_gpu": use_gpu}
    )
    assert config["device"] == torch.device(device)
