"""A process that dies anywhere in writing a checkpoint leaves a complete one, and nothing else that looks like one."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_monitor.base import files
from finetune_monitor.training import checkpoints, manifest
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.loop import make_optimizer
from finetune_monitor.training.trainable import make_trainable
from support.mortal import die_at, in_a_child
from support.tiny import stable_diffusion as tiny_pipeline

TOUCHES_THE_DISK = [
    (files, "fsync"),
    (checkpoints, "save_file"),
    (manifest, "sha256"),
    (shutil, "rmtree"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "write_text"),
]
STEPS = (2, 4)


@pytest.mark.slow
def test_killed_at_every_point_of_a_save(tmp_path):
    config = TrainConfig(rank=2)
    trainable = make_trainable(tiny_pipeline(), config, 0)
    optimizer = make_optimizer(trainable, config)

    def save(folder: Path, step: int) -> None:
        for parameter in trainable.parameters.values():
            parameter.data.fill_(float(step))
        checkpoints.save(folder, step, trainable, optimizer, {}, {}, keep=1)

    whole = tmp_path / "whole"
    save(whole, STEPS[0])
    point, seen = 0, set()
    lived = False
    while not lived:
        point += 1
        folder = tmp_path / str(point)
        shutil.copytree(whole, folder)

        def attempt(folder: Path = folder, point: int = point) -> None:
            torch.set_num_threads(1)
            die_at(point, TOUCHES_THE_DISK)
            save(folder, STEPS[1])

        lived = in_a_child(attempt)
        found = checkpoints.find(folder, "auto")
        assert found is not None
        weights = load_file(found.folder / "weights.safetensors")
        assert all(tensor.eq(found.step).all() for tensor in weights.values())
        seen.add(found.step)
    assert found.step == STEPS[1]
    assert seen == set(STEPS)
    assert point > 10
