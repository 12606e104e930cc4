"""Checkpoints: whole or not at all, the newest whole one wins, never a silent restart."""

import json
import shutil

import pytest
import torch

from finetune_monitor.base import files
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.training import checkpoints
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.loop import make_optimizer
from finetune_monitor.training.trainable import average, make_trainable
from support import needs
from support.manifests import as_of_an_earlier_version
from support.tiny import stable_diffusion as tiny_pipeline

STEADY = [7] * 20
"""Gradients that point one way, so that Prodigy's estimate grows."""
IDENTITY = {"model": "x", "train.rank": 2}


def started(seed: int, ema_decay: float | None = 0.9, **settings):
    """What is trained, before the first update; layouts as in training."""
    pipeline = tiny_pipeline()
    pipeline.unet.to(memory_format=torch.channels_last)
    config = TrainConfig(rank=2, ema_decay=ema_decay, **settings)
    trainable = make_trainable(pipeline, config, seed)
    trainable.ema = average(trainable, ema_decay)
    return trainable, make_optimizer(trainable, config)


def update(trainable, optimizer, seeds) -> None:
    """An update on noise for every seed."""
    for seed in seeds:
        torch.manual_seed(seed)
        for parameter in trainable.parameters.values():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        if trainable.ema is not None:
            trainable.ema.step(trainable.parameters.values())


def trained(seed: int, ema_decay: float | None = 0.9):
    """LoRA layers after three updates on noise."""
    trainable, optimizer = started(seed, ema_decay)
    update(trainable, optimizer, range(10 * seed, 10 * seed + 3))
    return trainable, optimizer


class EightBit(torch.optim.SGD):
    """Keeps what bitsandbytes keeps, in its form: bytes, a map shared by all parameters, a step that is a number."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.map = torch.linspace(-1, 1, 256)

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state.update(step=0, state1=torch.zeros_like(parameter, dtype=torch.uint8), qmap1=self.map)
            state["step"] += 1
            state["state1"] += (parameter.grad * 10).abs().to(torch.uint8)
            parameter.data -= 0.01 * state["qmap1"][state["state1"].long()] / state["step"]

    def state_dict(self):
        content = super().state_dict()
        content["state"] = {
            i: {"step": s["step"], "quantized": {k: s[k] for k in ("state1", "qmap1")}}
            for i, s in content["state"].items()
        }
        return content

    def load_state_dict(self, content):
        for index, parameter in enumerate(self.param_groups[0]["params"]):
            self.state[parameter] = {"step": content["state"][index]["step"], **content["state"][index]["quantized"]}


@pytest.fixture
def folder(tmp_path):
    trainable, optimizer = trained(1)
    for step in (2, 4, 10):
        checkpoints.save(tmp_path, step, trainable, optimizer, IDENTITY, {"scale": 2.0}, keep=2)
    return tmp_path


def test_weights_optimizer_and_average_come_back_bit_for_bit(folder):
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", ["adamw", "prodigy", pytest.param("adamw8bit", marks=needs.bitsandbytes), "eight_bit"])
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, name, method):
    layers = ["attention", "feed_forward", "convolution"]

    def start(seed):
        optimizer = {"optimizer": "adamw" if name == "eight_bit" else name, "learning_rate": 0.5}
        trainable, chosen = started(seed, method=method, lora_layers=layers, **optimizer)
        return trainable, EightBit(trainable.parameters.values()) if name == "eight_bit" else chosen

    whole = start(1)
    update(*whole, STEADY)
    checkpoints.save(tmp_path, 3, *whole, IDENTITY, {}, keep=1)
    kept = read_tensors(whole[0])
    update(*whole, range(3, 6))
    again = start(2)
    checkpoints.restore(checkpoints.find(tmp_path, "auto"), *again)
    assert all(torch.equal(kept[name], value) for name, value in read_tensors(again[0]).items())
    update(*again, range(3, 6))
    assert all(torch.equal(read_tensors(whole[0])[name], value) for name, value in read_tensors(again[0]).items())
    assert not all(torch.equal(kept[name], value) for name, value in read_tensors(again[0]).items())


def read_tensors(trainable) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable.parameters.items()}


def test_prodigys_estimate_comes_back_and_the_configs_rate_wins(tmp_path):
    prodigy = {"optimizer": "prodigy", "learning_rate": 1.0}
    trainable, optimizer = started(1, **prodigy)
    update(trainable, optimizer, STEADY)
    checkpoints.save(tmp_path, 4, trainable, optimizer, IDENTITY, {}, keep=1)
    _, again = found = started(2, optimizer="prodigy", learning_rate=0.5)
    checkpoints.restore(checkpoints.find(tmp_path, "auto"), *found)
    expected, restored = optimizer.param_groups[0], again.param_groups[0]
    assert restored["lr"] == 0.5
    assert restored["d"] == expected["d"] > expected["d0"]
    assert (restored["k"], restored["d_numerator"]) == (len(STEADY), expected["d_numerator"])


def test_a_checkpoint_of_another_version_is_refused_and_says_what_to_do(folder):
    path = folder / "step-000010/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(UserError, match="format 1, expected 3; resume with the version"):
        checkpoints.read(folder / "step-000010")


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
    with pytest.raises(UserError, match="no checkpoint is complete"):
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
    earlier = as_of_an_earlier_version(json.loads(path.read_text()))
    earlier["sha256"]["../step-000004/weights.safetensors"] = sha256(folder / "step-000004/weights.safetensors")
    path.write_text(json.dumps(earlier))
    with pytest.raises(UserError, match="missing or damaged"):
        checkpoints.read(folder / "step-000010")


def test_a_checkpoint_of_an_earlier_version_goes_on_and_says_what_is_not_verified(folder, caplog):
    path = folder / "step-000010/manifest.json"
    path.write_text(json.dumps(as_of_an_earlier_version(json.loads(path.read_text()))))
    assert checkpoints.find(folder, "auto").step == 10
    assert "the weights are verified, the step and the settings are not" in caplog.text


def test_other_layers_than_the_models_are_refused_and_nothing_is_loaded(folder):
    config = TrainConfig(rank=3)
    trainable = make_trainable(tiny_pipeline(), config, 0)
    before = read_tensors(trainable)
    with pytest.raises(UserError, match="its layers differ from those of the model"):
        checkpoints.restore(checkpoints.find(folder, "auto"), trainable, make_optimizer(trainable, config))
    assert all(torch.equal(before[name], value) for name, value in read_tensors(trainable).items())
