"""What a training says before it starts."""

from pathlib import Path

import pytest
import torch

from finetune_monitor.training.compiling import Compiling
from finetune_monitor.training.config import load_config
from finetune_monitor.training.start_lines import before_loading, before_training
from support.places import ROOT


def config(*overrides: str):
    return load_config(ROOT / "configs/demo.yaml", overrides)


def test_it_says_on_what_it_trains_and_where_to_look():
    lines = list(before_loading(config("output_dir=my run"), 6, torch.device("cpu"), 0))
    assert [line.partition(":")[0].strip() for line in lines[:6]] == [
        "model",
        "photos",
        "device",
        "images",
        "output",
        "watch",
    ]
    assert lines[1] == "photos:    6 in assets/demo/photos/astronaut, and 16 class images in runs/demo-class-images"
    assert lines[2].startswith("device:    cpu (")
    assert lines[2].endswith("), fp32")
    assert lines[3].startswith(
        "images:    30 images per evaluation, DPMSolverMultistepScheduler, 8 steps, guidance 3, 64 x 64"
    )
    assert lines[4] == "output:    my run"
    assert lines[5] == "watch:     finetune-monitor watch 'my run'"
    assert lines[6] == "           tensorboard --logdir 'my run/tensorboard' --samples_per_plugin images=1000"
    assert lines[7] == f"           {Path('my run/page/index.html')} (after the first evaluation)"


def test_a_secret_in_a_path_is_not_shown():
    lines = list(before_loading(config("output_dir=runs/hub_token=abcdef123456"), 6, torch.device("cpu"), 0))
    assert "abcdef123456" not in "".join(lines)


def test_it_says_what_is_also_rendered_at_full_quality():
    fast = ("monitor.grid.quality=fast", "monitor.grid.steps=null")
    images = list(before_loading(config(*fast), 6, torch.device("cpu"), 0))[3]
    assert images.endswith("8 steps, guidance 3, 64 x 64, quality fast; the best and the last step in 25 steps, too")


def test_a_resumed_run_says_where():
    lines = list(before_loading(config(), 6, torch.device("cpu"), 150))
    assert lines[4] == "output:    runs/demo, resuming at step 150"


def test_without_the_monitor_there_is_nowhere_to_look():
    lines = list(before_loading(config("monitor.enabled=false"), 6, torch.device("cpu"), 0))
    assert len(lines) == 4
    [line] = before_training(config("monitor.enabled=false"), 1, 1, Compiling(False))
    assert line.endswith("without evaluations")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "LoRA of rank 32 for the UNet: 1,000 of 5,000 parameters; 400 steps of 3 photos, evaluated every 40"),
        (("train.method=full", "train.text_encoder=true"), "all weights of the UNet and the text encoder: 1,000 of"),
        (("train.batch_size=1", "train.gradient_accumulation=1", "train.max_steps=3000"), "; 3,000 steps of 1 photo,"),
    ],
)
def test_it_says_what_it_trains_and_for_how_long(overrides, said):
    [line] = before_training(config(*overrides), 1000, 4000, Compiling(True))
    assert said in line


def test_it_says_whether_it_compiles_where_that_was_left_to_it():
    _, line = before_training(config(), 1000, 4000, Compiling(False, "on a CPU, it rarely pays within a run"))
    assert line == "compiled:  no: on a CPU, it rarely pays within a run"
