"""The files in examples/ do what they say, here on a tiny model or for a few steps."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline

from finetune_monitor.record.history import read_run
from support import needs
from support.places import DEMO, ROOT

EXAMPLES = ROOT / "examples"
PATCH = EXAMPLES / "train_dreambooth_lora.patch"
SCRIPT = "examples/dreambooth/train_dreambooth_lora.py"


@pytest.fixture
def run_example(monkeypatch, tmp_path, tiny_model):
    """Run a script as a user does, with the tiny model; returns what it recorded."""

    def run(name: str, *options: str):
        output = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", [name, "--model", str(tiny_model), "--output", str(output), *options])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return read_run(output)

    return run


@pytest.mark.slow
def test_own_loop(run_example, photos):
    history = run_example("own_loop.py", "--photos", str(photos), "--size", "32", "--steps", "4", "--every", "2")
    assert [evaluation.step for evaluation in history.evaluations] == [0, 2, 4]
    assert (history.output_dir / "page/index.html").is_file()
    assert list((history.output_dir / "tensorboard").rglob("*tfevents*"))


def test_custom_metric(run_example):
    history = run_example("custom_metric.py")
    assert 0 < history.evaluations[0].scores["sharpness"].mean < 255


@needs.jupyter
@pytest.mark.slow
def test_the_notebook_trains_and_shows_the_page(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "own_loop.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count], "strip the outputs"
    assert "STEPS, EVERY = 60, 20" in code[0].source
    code[0].source = code[0].source.replace("60, 20", "4, 2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": folder}}).execute()

    [run_dir] = (folder / "runs").iterdir()
    assert [evaluation.step for evaluation in read_run(run_dir).evaluations] == [0, 2, 4]
    [shown] = next(cell for cell in code if cell.source.startswith("IFrame")).outputs
    assert f'src="runs/{run_dir.name}/page/index.html"' in shown.data["text/html"]
    assert (run_dir / "page/index.html").is_file()


def added(patch: str) -> list[str]:
    """Each run of lines that the patch adds."""
    marked = [line[1:] if line[:1] == "+" and line[:3] != "+++" else None for line in patch.splitlines()]
    runs = [[]]
    for line in marked:
        if line is not None:
            runs[-1].append(line)
        elif runs[-1]:
            runs.append([])
    return ["\n".join(run) for run in runs if run]


LOOP = """
def train(args, unet, vae, text_encoder, unwrap_model, weight_dtype, initial_global_step=0, global_step=0):
{setup}
    for epoch in range(3):
{epoch}
        for step in range(2):
            global_step += 1
{step}
    {end}
    return monitor
"""
"""What is around the added lines in diffusers' script."""


@pytest.mark.slow
@pytest.mark.parametrize(("every", "steps"), [(2, [0, 2, 4, 6]), (4, [0, 4])])
def test_the_lines_of_the_patch_watch_a_loop(tmp_path, tiny_model, photos, every, steps):
    setup, epoch, step, end = added(PATCH.read_text())
    args = SimpleNamespace(
        pretrained_model_name_or_path=str(tiny_model),
        instance_prompt="a photo of sks person",
        instance_data_dir=str(photos),
        output_dir=str(tmp_path),
        resolution=32,
        checkpointing_steps=every,
    )
    names = {
        "torch": torch,
        "DiffusionPipeline": DiffusionPipeline,
        "accelerator": SimpleNamespace(sync_gradients=True),
    }
    exec(LOOP.format(setup=setup, epoch=epoch, step=step, end=end.strip()), names)
    pipe = DiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    monitor = names["train"](args, pipe.unet, pipe.vae, pipe.text_encoder, lambda model: model, torch.float32)
    assert [evaluation.step for evaluation in read_run(tmp_path / "monitor").evaluations] == steps
    assert monitor._pipeline.unet is pipe.unet


@needs.diffusers_examples
@pytest.mark.slow
def test_the_patch_applies_and_the_script_trains(tmp_path):
    script = tmp_path / SCRIPT
    script.parent.mkdir(parents=True)
    shutil.copy(Path(os.environ[needs.DIFFUSERS]) / SCRIPT, script)
    subprocess.run(["git", "apply", str(PATCH)], cwd=tmp_path, check=True)
    options = {
        "pretrained_model_name_or_path": DEMO / "stable-diffusion",
        "instance_data_dir": DEMO / "photos/astronaut",
        "instance_prompt": "a photo of sks person",
        "output_dir": tmp_path / "out",
        "resolution": 64,
        "max_train_steps": 2,
        "checkpointing_steps": 2,
    }
    command = [sys.executable, str(script), *(f"--{key}={value}" for key, value in options.items())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [evaluation.step for evaluation in read_run(tmp_path / "out/monitor").evaluations] == [0, 2]


def test_every_example_has_a_test():
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert names == {"own_loop.py", "custom_metric.py", "own_loop.ipynb", "train_dreambooth_lora.patch"}
