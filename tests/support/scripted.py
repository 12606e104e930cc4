"""Runs with scores as they are given, whose weights tell the step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.record.evaluation import RunSummary

GRID = PromptGrid(["a photo of sks person"], images_per_prompt=2, steps=1)


class Scripted:
    """Scores as they are given, one an evaluation."""

    higher_is_better, bounds = True, (0.0, 1.0)

    def __init__(self, scores: Sequence[float], name: str = "scripted") -> None:
        self._scores = iter(scores)
        self.name = name

    def score(self, images, cells) -> dict[str, np.ndarray]:
        return {self.name: np.full(len(images), next(self._scores))}


def trained(
    pipeline: StableDiffusionPipeline,
    folder: Path,
    scores: Sequence[float],
    resume_step: int | None = None,
    start: int = 0,
    second: Sequence[float] | None = None,
    **options: object,
) -> RunSummary:
    """A run of one step an evaluation; `second` are the scores of a second metric."""
    metrics = [Scripted(scores)] + ([] if second is None else [Scripted(second, "second")])
    monitor = FinetuneMonitor(pipeline, GRID, metrics, folder, every=1, resume_step=resume_step, **options).start()
    for step in range(start + 1, start + len(scores) + (resume_step is not None)):
        mark(pipeline, step)
        monitor.on_step_end(step)
    return monitor.close()


def mark(pipeline: StableDiffusionPipeline, step: int) -> None:
    """Write the step into the weights: into the LoRA, or else into the decoder's last bias."""
    layers = [part for name, part in pipeline.unet.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for part in layers or [pipeline.vae.decoder.conv_out.bias]:
            part.fill_(step)


def add_lora(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The pipeline with a LoRA that is being trained."""
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q"]))
    return pipeline
