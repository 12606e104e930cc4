"""Your own metric in a monitor: python examples/custom_metric.py --output runs/sharp

It measures how sharp images are, and prints the score of the demo's untouched model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL.Image import Image

from finetune_monitor import Cell, FinetuneMonitor, PromptGrid

MODEL = Path(__file__).parents[1] / "assets/demo/stable-diffusion"


class Sharpness:
    """Mean step between neighboring gray levels, 0 to 255."""

    name = "sharpness"
    higher_is_better = True
    bounds = (0.0, 255.0)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, np.ndarray]:
        """One value per image; NaN would mean that an image cannot be measured."""
        return {self.name: np.array([self._of(image) for image in images])}

    def _of(self, image: Image) -> float:
        gray = np.asarray(image.convert("L"), dtype=np.float64)
        return float(np.abs(np.diff(gray, axis=1)).mean())


def main() -> None:
    """Watch a model with the metric alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(MODEL), help="folder or hub id")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(options.model, safety_checker=None).to(torch.float32)
    grid = PromptGrid(["a photo of a person"], images_per_prompt=4, steps=10)
    monitor = FinetuneMonitor(pipe, grid, [Sharpness()], output_dir=options.output).start()
    monitor.close()  # prints the table of scores


if __name__ == "__main__":
    main()
