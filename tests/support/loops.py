"""A tiny training for other libraries' loops: a model whose output is the denoising loss, and what it learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from finetune_monitor import FinetuneMonitor, PromptGrid

GRID = PromptGrid(["a photo of sks person"], [0, 1], steps=2, size=(32, 32))


class Brightness:
    """A metric that needs nothing."""

    name, higher_is_better, bounds = "brightness", True, (0.0, 255.0)

    def score(self, images: Sequence[Image.Image], cells: Any) -> dict[str, np.ndarray]:
        return {self.name: np.array([np.asarray(image).mean() for image in images], dtype=np.float64)}


@dataclass(frozen=True)
class AtStep:
    """A rule that stops at a step."""

    step: int
    metric: str = "brightness"
    name: str = "at_step"

    def decide(self, watched: Any) -> str | None:
        return "it is time" if watched.history[-1].step >= self.step else None


class Denoiser(nn.Module):
    """Trains a pipeline's UNet."""

    def __init__(self, pipe: StableDiffusionPipeline):
        super().__init__()
        self.unet = pipe.unet
        self.register_buffer("prompt", torch.zeros(1, 4, 16))

    def forward(self, latents: Tensor, noise: Tensor) -> dict[str, Tensor]:
        prompt = self.prompt.expand(len(latents), -1, -1)
        predicted = self.unet(latents + noise, torch.tensor(10), prompt).sample
        return {"loss": torch.nn.functional.mse_loss(predicted, noise)}


class Latents(Dataset):
    """Eight latents with their noise."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.items = [torch.randn(2, 4, 16, 16, generator=generator) for _ in range(8)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        latents, noise = self.items[index]
        return {"latents": latents, "noise": noise}


def steps_of(monitor: FinetuneMonitor) -> list[int]:
    return [evaluation.step for evaluation in monitor.evaluations]
