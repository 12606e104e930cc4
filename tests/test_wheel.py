"""A wheel has what runs outside a checkout: both trainings start from an empty folder, where nothing else is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finetune_monitor.models.dlib_resnet import WEIGHTS
from finetune_monitor.record.history import read_run
from support.places import ROOT

pytestmark = pytest.mark.slow

STEPS = [
    "train.max_steps=2",
    "data.class_count=2",
    "monitor.every=2",
    "monitor.grid={prompts: [a photo], steps: 2, images_per_prompt: 2, images_per_probe: 1}",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of this tree."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("finetune_monitor", "configs", "assets", "pyproject.toml", "README.md", "LICENSE"):
        place = ROOT / name
        copy = shutil.copytree if place.is_dir() else shutil.copy
        copy(place, folder / name, **({"symlinks": True} if place.is_dir() else {}))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=True)
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("site")
    options = [
        "--target",
        str(folder),
        "--no-compile",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def run(installed: Path, folder: Path, *command: str) -> str:
    """What a command prints that runs in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_demo(installed, tmp_path):
    said = run(installed, tmp_path, str(installed / "bin/finetune-monitor"), "demo", *STEPS)
    history = read_run(tmp_path / "runs/demo")
    assert [evaluation.step for evaluation in history.evaluations] == [0, 2]
    assert str(installed) in history.run["pipeline"]["name_or_path"]
    assert "tensorboard --logdir runs/demo/tensorboard" in said
    assert (tmp_path / "runs/demo/page/index.html").as_uri() in said


def test_a_config_under_accelerate(installed, tmp_path):
    launch = ["accelerate.commands.launch", "--quiet", "--cpu", "--num_processes", "1", "-m", "finetune_monitor.cli"]
    options = ["output_dir=mine", "train.prior_loss_weight=0", "monitor.enabled=false", *STEPS]
    run(installed, tmp_path, "-m", *launch, "train", "--config", "configs/demo.yaml", *options)
    assert (tmp_path / "mine/last/pytorch_lora_weights.safetensors").is_file()


def test_what_is_in_it(wheel):
    content = zipfile.ZipFile(wheel)
    assert content.read("finetune_monitor/models/dlib_resnet.safetensors") == WEIGHTS.read_bytes()
    assert not [name for name in content.namelist() if "recipes" in name]
