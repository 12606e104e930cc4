"""Checkpoints: whole or not at all, the newest whole one wins, never a silent restart."""

import json
import shutil

import pytest
import torch

from conftest import tiny_pipeline
from finetune_monitor import files
from finetune_monitor.errors import UserError
from finetune_monitor.training import checkpoints
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.loop import make_optimizer
from finetune_monitor.training.models import average, make_trainable

IDENTITY = {"model": "x", "train.rank": 2}


def trained(seed: int, ema_decay: float | None = 0.9):
    """LoRA layers after three updates on noise."""
    config = TrainConfig(rank=2, ema_decay=ema_decay)
    trainable = make_trainable(tiny_pipeline(), config, seed)
    trainable.ema = average(trainable, ema_decay)
    optimizer = make_optimizer(trainable, config)
    torch.manual_seed(seed)
    for _ in range(3):
        for parameter in trainable.parameters.values():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        if trainable.ema is not None:
            trainable.ema.step(trainable.parameters.values())
    return trainable, optimizer


@pytest.fixture
def folder(tmp_path):
    trainable, optimizer = trained(1)
    for step in (2, 4, 10):
        checkpoints.save(tmp_path, step, trainable, optimizer, IDENTITY, {"scale": 2.0}, keep=2)
    return tmp_path


def test_weights_optimiser_and_average_come_back_bit_for_bit(folder):
    expected, expected_optimizer = trained(1)
    found, optimizer = trained(2)
    checkpoint = checkpoints.find(folder, "auto")
    checkpoints.restore(checkpoint, found, optimizer)
    for name, parameter in expected.parameters.items():
        assert torch.equal(found.parameters[name], parameter)
    for mine, theirs in zip(found.ema.shadow_params, expected.ema.shadow_params, strict=True):
        assert torch.equal(mine, theirs)
    assert found.ema.optimization_step == 3
    mine, theirs = optimizer.state_dict()["state"], expected_optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[i][k], theirs[i][k]) for i in theirs for k in theirs[i])
    assert checkpoint.scaler == {"scale": 2.0}


def test_only_the_newest_are_kept_and_order_is_by_step(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["step-000004", "step-000010"]
    assert checkpoints.find(folder, "auto").step == 10


def test_nothing_in_a_checkpoint_is_a_pickle(folder):
    assert {path.suffix for path in (folder / "step-000010").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "ema.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_newest_is_passed_over_and_said(folder, name, damage, caplog):
    path = folder / "step-000010" / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    assert checkpoints.find(folder, "auto").step == 4
    assert "step-000010" in caplog.text


def test_when_every_checkpoint_is_damaged_it_is_an_error(folder):
    for path in folder.glob("*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint is whole"):
        checkpoints.find(folder, "auto")


def test_a_named_checkpoint_that_is_missing_is_an_error(folder):
    with pytest.raises(UserError, match="step-000006"):
        checkpoints.find(folder, str(folder / "step-000006"))
    assert checkpoints.find(folder, str(folder / "step-000004")).step == 4


def test_an_empty_folder_starts_anew(tmp_path):
    assert checkpoints.find(tmp_path / "none", "auto") is None
    assert checkpoints.find(tmp_path / "none", "never") is None


def test_never_beside_old_checkpoints_is_refused(folder):
    with pytest.raises(UserError, match="holds step-000010"):
        checkpoints.find(folder, "never")


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="a checkpoint in"):
        checkpoints.find(tmp_path / "other", str(folder / "step-000004"))


def test_steps_about_to_be_repeated_are_dropped(folder, caplog):
    checkpoints.drop_after(folder, 4)
    assert [path.name for path in folder.iterdir()] == ["step-000004"]
    assert "step-000010" in caplog.text


def test_litter_of_an_interrupted_write_is_no_checkpoint(folder):
    shutil.copytree(folder / "step-000010", folder / f"{files.STAGING}step-000012")
    assert checkpoints.find(folder, "auto").step == 10


def test_a_disk_that_fills_up_leaves_the_old_checkpoints(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(folder, 12, *trained(1), IDENTITY, {}, keep=1)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000004", "step-000010"]


def test_other_settings_are_refused_with_both_values(folder):
    checkpoint = checkpoints.find(folder, "auto")
    checkpoints.check_identity(checkpoint, IDENTITY)
    with pytest.raises(UserError, match=r"train.rank: 2 in the checkpoint, 8 in the config"):
        checkpoints.check_identity(checkpoint, {**IDENTITY, "train.rank": 8})


def test_a_manifest_cannot_lead_out_of_its_folder(folder):
    path = folder / "step-000010/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["../../outside"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="step-000010/outside"):
        checkpoints.read(folder / "step-000010")
