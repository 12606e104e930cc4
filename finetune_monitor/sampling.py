"""Render a grid's cells from live weights: one pipeline for the whole run, sharing the modules being trained."""

import inspect
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from finetune_monitor import ranks
from finetune_monitor.grid import Cell, PromptGrid

logger = logging.getLogger(__name__)

FIRST_BATCH = 8
"""Cells rendered at once until memory runs out; then half as many, remembered for the rest of the run."""


class OutOfMemoryError(RuntimeError):
    """Not even one cell fits into memory."""


class Renderer:
    """Renders cells with the pipeline's live modules and a solver of its own.

    A cell's picture is made from noise that depends on its seed alone, whatever else is in the batch.

    Args:
        pipeline: a Stable Diffusion 1.x or 2.x pipeline of diffusers; its modules are shared, its scheduler is only
            read, its safety checker (which blackens pictures) is left out.
        grid: how the cells are sampled.
        autocast: precision to render in (the training's); None renders in the modules' own.

    Raises:
        ValueError: the grid's sampler is not a diffusers scheduler, or the pipeline does not encode prompts as Stable
            Diffusion 1.x and 2.x do.
    """

    def __init__(self, pipeline: Any, grid: PromptGrid, autocast: torch.dtype | None = None):
        check_encodes_prompts(pipeline)
        self.grid = grid
        self.pipeline = own_pipeline(pipeline, grid.sampler)
        self.autocast = autocast
        self.batch = FIRST_BATCH
        self._embeddings: dict[tuple[str, str], tuple[Tensor, Tensor | None]] = {}

    def render(self, cells: Sequence[Cell]) -> list[Image.Image | None]:
        """One RGB picture a cell, in the order of `cells`; None where the model's output was not finite.

        Raises:
            OutOfMemoryError: where not even one cell fits.
        """
        if not text_encoder_is_frozen(self.pipeline):
            self._embeddings.clear()
        pictures: list[Image.Image | None] = []
        bar = tqdm(total=len(cells), desc="rendering", unit="image", leave=False, disable=not ranks.is_main())
        with self._precision(), bar:
            while len(pictures) < len(cells):
                batch = cells[len(pictures) : len(pictures) + self.batch]
                done = self._try(batch)
                pictures.extend(done)
                bar.update(len(done))
        return pictures

    def _try(self, cells: Sequence[Cell]) -> list[Image.Image | None]:
        """The batch's pictures; nothing, and a smaller batch for the next try, where memory ran out."""
        try:
            return to_pictures(self._sample(cells))
        except torch.cuda.OutOfMemoryError as error:
            if len(cells) == 1:
                raise OutOfMemoryError(
                    "out of memory with a single cell; render smaller pictures or free memory"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.batch = max(1, len(cells) // 2)
        logger.warning("out of memory with %d cells at once; rendering %d from now on", len(cells), self.batch)
        return []

    def _sample(self, cells: Sequence[Cell]) -> Float[Tensor, "n 3 h w"]:
        embeddings = [self._embed(cell) for cell in cells]
        height, width = self.grid.size or (None, None)
        return self.pipeline(
            prompt_embeds=torch.cat([positive for positive, _ in embeddings]),
            negative_prompt_embeds=torch.cat([n for _, n in embeddings if n is not None]) if self.grid.guided else None,
            num_inference_steps=self.grid.steps,
            guidance_scale=self.grid.guidance,
            generator=[torch.Generator("cpu").manual_seed(cell.seed) for cell in cells],
            height=height,
            width=width,
            output_type="pt",
        ).images

    def _embed(self, cell: Cell) -> tuple[Tensor, Tensor | None]:
        key = (cell.prompt, cell.negative_prompt)
        if key not in self._embeddings:
            self._embeddings[key] = self.pipeline.encode_prompt(
                cell.prompt,
                self.pipeline._execution_device,
                1,
                self.grid.guided,
                negative_prompt=cell.negative_prompt,
            )
        return self._embeddings[key]

    def _precision(self) -> AbstractContextManager:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.pipeline._execution_device.type, self.autocast)


def own_pipeline(pipeline: Any, sampler: str) -> Any:
    """A second pipeline object over the same modules, with its own solver and without a safety checker."""
    components = {**pipeline.components, "scheduler": own_scheduler(pipeline.scheduler, sampler)}
    if "safety_checker" in components:
        components.update(safety_checker=None, requires_safety_checker=False)
    own = type(pipeline)(**components)
    own.set_progress_bar_config(disable=True)
    return own


def check_encodes_prompts(pipeline: Any) -> None:
    """Refuse a pipeline whose `encode_prompt` is not Stable Diffusion's."""
    expected = ["prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance", "negative_prompt"]
    found = list(inspect.signature(pipeline.encode_prompt).parameters)[:5] if hasattr(pipeline, "encode_prompt") else []
    if found != expected:
        raise ValueError(f"pipeline: found {type(pipeline).__name__}, expected a Stable Diffusion 1.x or 2.x pipeline")


def own_scheduler(trained_with: Any, sampler: str) -> Any:
    """The named diffusers scheduler with the betas and the prediction type of the model's own."""
    scheduler = scheduler_class(sampler)
    latents = {"clip_sample": False} if "clip_sample" in inspect.signature(scheduler).parameters else {}
    # clipping is for pixels, latents reach further
    return scheduler.from_config(trained_with.config, **latents)


def scheduler_class(sampler: str) -> Any:
    """The diffusers scheduler of that name.

    Raises:
        ValueError: there is none.
    """
    scheduler = getattr(diffusers, sampler, None)
    if not (isinstance(scheduler, type) and issubclass(scheduler, SchedulerMixin)):
        raise ValueError(f"grid.sampler: found {sampler!r}, expected a scheduler of diffusers such as DDIMScheduler")
    return scheduler


def text_encoder_is_frozen(pipeline: Any) -> bool:
    """Whether cached prompt embeddings stay true."""
    encoder = getattr(pipeline, "text_encoder", None)
    return not (isinstance(encoder, nn.Module) and any(p.requires_grad for p in encoder.parameters()))


def to_pictures(images: Float[Tensor, "n 3 h w"]) -> list[Image.Image | None]:
    """RGB in [0, 1] to 8-bit pictures; None for one with a value that is not finite."""
    images = images.float()
    finite = images.isfinite().flatten(1).all(1).tolist()
    levels = (images.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    pictures = (Image.fromarray(np.ascontiguousarray(level)) for level in levels)
    return [picture if ok else None for picture, ok in zip(pictures, finite, strict=True)]


def is_black(picture: Image.Image) -> bool:
    """A picture without light: what a safety checker or an overflow leaves."""
    return max(high for _, high in picture.convert("RGB").getextrema()) <= 2  # type: ignore[misc]
