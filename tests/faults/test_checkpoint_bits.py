"""A bit flipped anywhere in a checkpoint, other files in it, another name: refused, or without effect."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import list_images
from finetune_monitor.training import checkpoints
from finetune_monitor.training.config import TrainConfig, load_config
from finetune_monitor.training.loop import identity, make_optimizer
from finetune_monitor.training.manifest import FORMAT, MANIFEST, UNHASHED
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.run import run
from finetune_monitor.training.trainable import average, make_trainable
from support.tiny import stable_diffusion as tiny_pipeline
from support.tiny import tiny_config

OFF = "monitor.enabled=false"
NEWEST, OLDER = "step-000030", ["step-000020", "step-000010"]
SAMPLED = 300
"""Bits of each file, besides the manifest, whose bits are all flipped."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_model, photos) -> Path:
    """Three checkpoints of a training with a moving average."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(tiny_config(folder, tiny_model, photos))
    found = [TrainingPhoto(path, "a photo of sks person") for path in list_images(photos)]
    settings = identity(load_config(folder / "config.yaml", []), found)
    config = TrainConfig(rank=1, optimizer="prodigy", learning_rate=1.0)
    trainable = make_trainable(tiny_pipeline(), config, 0)
    trainable.ema, optimizer = average(trainable, 0.9), make_optimizer(trainable, config)
    for step in (10, 20, 30):
        for parameter in trainable.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        trainable.ema.step(trainable.parameters.values())
        checkpoints.save(folder / "checkpoints", step, trainable, optimizer, settings, {"scale": 2.0}, keep=3)
    return folder / "checkpoints"


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def _refused(checkpoint: Path, expected: checkpoints.Checkpoint) -> bool:
    """Whether a checkpoint is refused; otherwise its content must be the expected one."""
    try:
        found = checkpoints.read(checkpoint)
    except UserError:
        return True
    assert found == expected
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", [MANIFEST, checkpoints.WEIGHTS, checkpoints.OPTIMIZER, checkpoints.AVERAGE])
def test_a_flipped_bit_is_refused_or_without_effect(name, folder):
    expected = checkpoints.read(folder / NEWEST)
    path = folder / NEWEST / name
    content = path.read_bytes()
    bits = range(8 * len(content))
    if name != MANIFEST:
        bits = random.Random(0).sample(bits, SAMPLED)
    refused = 0
    with path.open("r+b") as file:
        for bit in bits:
            _put(file, bit // 8, content[bit // 8] ^ (1 << bit % 8))
            refused += _refused(folder / NEWEST, expected)
            _put(file, bit // 8, content[bit // 8])
    assert not _refused(folder / NEWEST, expected)
    assert refused == len(bits) if name != MANIFEST else refused > 0.99 * len(bits)  # 1E-6 is 1e-6


def _put(file, place: int, byte: int) -> None:
    file.seek(place)
    file.write(bytes([byte]))
    file.flush()


def _manifest(folder: Path, **changes: object) -> None:
    path = folder / NEWEST / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


ALTERED = {
    "another step": lambda folder: _manifest(folder, step=20),
    "no hashes": lambda folder: _manifest(folder, sha256={}),
    "no hash of itself": lambda folder: _manifest(folder, manifest_sha256=None),
    "the earlier format": lambda folder: _manifest(folder, format=UNHASHED),
    "a later format": lambda folder: _manifest(folder, format=FORMAT + 1),
    "other settings": lambda folder: _manifest(folder, identity={}),
    "one file more": lambda folder: (folder / NEWEST / "ema_2.safetensors").write_bytes(b""),
    "a folder more": lambda folder: (folder / NEWEST / "deep").mkdir(),
    "no weights": lambda folder: (folder / NEWEST / checkpoints.WEIGHTS).unlink(),
    "no average": lambda folder: (folder / NEWEST / checkpoints.AVERAGE).unlink(),
    "weights of another step": lambda folder: shutil.copy(
        folder / OLDER[0] / checkpoints.WEIGHTS, folder / NEWEST / checkpoints.WEIGHTS
    ),
    "no manifest": lambda folder: (folder / NEWEST / MANIFEST).unlink(),
    "a manifest that is a list": lambda folder: (folder / NEWEST / MANIFEST).write_text("[]"),
    "a deep manifest": lambda folder: (folder / NEWEST / MANIFEST).write_text("[" * 100_000),
    "the manifest of another step": lambda folder: shutil.copy(
        folder / OLDER[0] / MANIFEST, folder / NEWEST / MANIFEST
    ),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_an_altered_newest_is_passed_over_and_nothing_is_deleted(change, folder, caplog):
    change(folder)
    found = checkpoints.find(folder, "auto")
    assert (found.step, found.folder.name) == (20, OLDER[0])
    assert f"{NEWEST}" in caplog.text
    assert "trying the previous one" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == sorted([NEWEST, *OLDER])
    with pytest.raises(UserError, match=NEWEST):
        checkpoints.find(folder, str(folder / NEWEST))


@pytest.mark.parametrize("name", ["step-000040", "step-000005", "step-30"])
def test_a_renamed_checkpoint_is_refused(name, folder):
    (folder / NEWEST).rename(folder / name)
    assert checkpoints.find(folder, "auto").step == 20
    with pytest.raises(UserError, match="holds step 30, expected step-000030"):
        checkpoints.read(folder / name)


def test_files_of_the_file_system_do_not_matter(folder):
    (folder / NEWEST / ".nfs000001").write_bytes(b"")
    assert checkpoints.find(folder, "auto").step == 30


@pytest.mark.slow
def test_a_run_goes_on_from_an_older_one_and_deletes_only_after_loading_it(write_config, tmp_path, monkeypatch, caplog):
    config = load_config(write_config(), [OFF, "train.max_steps=6", "train.keep_checkpoints=3"])
    assert run(config) == 0
    folder = tmp_path / "run/checkpoints"
    weights = {path: path.read_bytes() for path in folder.glob("step-*/*")}
    manifest = folder / "step-000006" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"step": 6', b'"step": 2'))
    restore = checkpoints.restore

    def fails(*arguments):
        restore(*arguments)
        raise UserError("cannot be loaded")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "restore", fails)
        with pytest.raises(UserError, match="cannot be loaded"):
            run(config)
    assert sorted(folder.glob("step-*/*")) == sorted(weights)
    assert run(config) == 0
    assert "step-000006: removed because the run resumes from step 4" in caplog.text
    assert all(path.read_bytes() == weights[path] for path in weights if path.name != MANIFEST)
