"""`weights/` holds the steps that are to be kept, and `best/` the best of the smoothed curve, whenever that is shown."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.record.kept_weights import step_of

GRID = PromptGrid(["a photo of sks person"], images_per_prompt=2, steps=1)


class Scripted:
    """Scores as they are given, one an evaluation."""

    name, higher_is_better, bounds = "scripted", True, (0.0, 1.0)

    def __init__(self, scores) -> None:
        self._scores = iter(scores)

    def score(self, images, cells):
        return {self.name: np.full(len(images), next(self._scores))}


def trained(pipeline, folder, scores, resume_step=None, start=0):
    """A run whose weights tell the step: the decoder's last bias."""
    monitor = FinetuneMonitor(pipeline, GRID, [Scripted(scores)], folder, every=1, resume_step=resume_step)
    for step in range(start + 1, start + len(scores) + (resume_step is not None)):
        with torch.no_grad():
            pipeline.vae.decoder.conv_out.bias.fill_(step)
        monitor.on_step_end(step)
    return monitor.close()


def bias_of(pipeline, folder) -> float:
    return type(pipeline).from_pretrained(folder).vae.decoder.conv_out.bias[0].item()


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.0, 0.2, 0.4, 0.6], 3),
        ([0.0, 0.4, 0.6, 0.47, 0.54], 3),  # not the best when it was new: its neighbors show that it is
        ([0.0, 0.5, 0.55, 0.9, 0.1], 2),  # one lucky evaluation, which was the best for a while
        ([0.3, 0.35, 0.1, 0.1], 0),  # the base model after all
        ([0.0, 0.5, float("nan"), 0.6, 0.5], 3),
    ],
)
def test_the_weights_and_the_best_step_belong_together(pipeline, run_folder, scores, best):
    summary = trained(pipeline, run_folder, scores)
    assert summary.best_step == best
    assert step_of(run_folder / "best") == (best or None)
    assert not best or bias_of(pipeline, run_folder / "best") == best
    assert len(list((run_folder / "weights").glob("step-*"))) <= 2


def test_the_files_are_linked_not_copied(pipeline, run_folder):
    trained(pipeline, run_folder, [0.0, 0.2, 0.4])
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (run_folder / "best" / weights).samefile(run_folder / "weights/step-000002" / weights)


def test_a_run_that_goes_on_can_return_to_a_step_from_before(pipeline, run_folder):
    trained(pipeline, run_folder, [0.0, 0.5, 0.7, 0.65])
    summary = trained(pipeline, run_folder, [0.1, 0.1], resume_step=3, start=3)
    assert summary.best_step == 2
    assert bias_of(pipeline, run_folder / "best") == 2


def test_the_file_for_other_tools_has_the_runs_name_its_trigger_and_the_best_image(pipeline, run_folder):
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q"]))
    trained(pipeline, run_folder, [0.0, 0.2, 0.4])
    with safe_open(run_folder / f"best/{run_folder.name}_kohya.safetensors", "pt") as file:
        found = file.metadata()
    assert found["modelspec.trigger_phrase"] == GRID.prompts[0]
    assert found["modelspec.thumbnail"].startswith("data:image/jpeg")
    assert json.loads(found["finetune_monitor"])["scores"] == {"scripted": 0.4}
