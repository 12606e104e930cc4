"""A complete pipeline samples as it was scored, even if its base model's scheduler file leaves settings out."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline

from finetune_monitor.record.history import read_run
from finetune_monitor.rendering.schedulers import own_scheduler, settings_of_scheduler
from finetune_monitor.stats.estimate import plain
from finetune_monitor.training.config import load_config
from finetune_monitor.training.rerender import rerender
from finetune_monitor.training.run import run

SHORT = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
"""What the scheduler file of Stable Diffusion v1.5 holds: no spacing of the steps, whose default differs by class."""

SAMPLERS = ["DPMSolverMultistepScheduler", "DDIMScheduler"]


@pytest.fixture(params=SAMPLERS)
def sampler(request) -> str:
    return request.param


@pytest.fixture
def trained(write_config, tmp_path: Path, tiny_model: Path, sampler: str) -> Path:
    """A run of method full from such a file."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "scheduler/scheduler_config.json").write_text(json.dumps(SHORT))
    AcceleratorState._reset_state(reset_partial_state=True)
    changes = [f"model={model}", "train.method=full", f"monitor.grid.sampler={sampler}", "monitor.grid.steps=5"]
    assert run(load_config(write_config(), [*changes, "monitor.keep=all", "train.learning_rate=1e-3"])) == 0
    return tmp_path / "run"


@pytest.mark.slow
def test_it_renders_again_and_samples_the_same(trained: Path, sampler: str):
    history = read_run(trained)
    for step in (0, 3, 6):
        again = rerender(trained, step, history.grid.cells[0].id)
        assert again.distance is not None
        assert again.distance.greatest == 0, again.notes
    pipeline = StableDiffusionPipeline.from_pretrained(trained / "last", safety_checker=None)
    assert type(pipeline.scheduler).__name__ == sampler
    assert plain(settings_of_scheduler(pipeline.scheduler)) == history.run["scheduler"]
    grid, [first, *_] = history.grid, history.evaluations[-1].images
    [theirs] = pipeline(
        first.cell.prompt,
        num_inference_steps=grid.steps,
        guidance_scale=grid.guidance,
        generator=torch.Generator().manual_seed(first.cell.seed),
        height=64,
        width=64,
    ).images
    ours = np.asarray(diffusers.utils.load_image(str(trained / first.file))).astype(int)
    assert np.abs(ours - np.asarray(theirs)).max() <= 1


@pytest.mark.parametrize("made_with", [diffusers.PNDMScheduler, diffusers.FlowMatchEulerDiscreteScheduler])
@pytest.mark.parametrize("karras", [False, True])
def test_a_scheduler_made_again_from_its_file_has_the_same_settings(made_with, karras, tmp_path: Path):
    base = made_with.from_config({**SHORT, "shift": 3.0} if "Flow" in made_with.__name__ else SHORT)
    first = own_scheduler(base, SAMPLERS[0], karras)
    first.save_pretrained(tmp_path)
    again = own_scheduler(type(first).from_pretrained(tmp_path), SAMPLERS[0], karras)
    assert settings_of_scheduler(again) == settings_of_scheduler(first)
    for each in (first, again):
        each.set_timesteps(7)
    assert torch.equal(first.timesteps, again.timesteps)
    assert torch.equal(first.sigmas, again.sigmas)
