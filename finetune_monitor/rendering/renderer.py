"""Render a grid's cells from live weights: one pipeline for the entire run, sharing the modules being trained."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm  # its stub is generic, the class takes no type arguments

from finetune_monitor.base import distributed
from finetune_monitor.base.batching import Batches, OutOfMemoryError
from finetune_monitor.base.progress import is_live
from finetune_monitor.models.adapters import unwrapped
from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.rendering.merging import is_compiled, merged
from finetune_monitor.rendering.pipelines import (
    Encoded,
    decode,
    device_of,
    encode,
    image_size,
    own_pipeline,
    size_multiple,
    takes_negative_prompts,
    unpacked,
)
from finetune_monitor.rendering.room import Room
from finetune_monitor.rendering.schedulers import default_sampler
from finetune_monitor.rendering.suitability import remedy

DENOISED_PIXELS_ON_CPU, DENOISED_PIXELS = 8 * 128 * 128, 8 * 512 * 512
"""Pixels per denoising batch, which sets the initial batch size; it shrinks if memory runs out, and grows once into the
memory that training on a GPU has left reserved. Larger batches do not fit into a CPU's caches (benchmarks/RESULTS.md).
"""

DECODED_PIXELS = 2 * 512 * 512
"""The same for the VAE, which needs far more memory per pixel and gains little from batching."""

TILED_PIXELS = 1536 * 1536
"""Larger images are decoded in tiles."""


OnRendered = Callable[[Sequence[Cell], Sequence[Image.Image | None]], None]


def _unseen(cells: Sequence[Cell], images: Sequence[Image.Image | None]) -> None:
    """Nobody looks on."""


class Renderer:
    """Renders cells with the pipeline's live modules and its own scheduler.

    The noise behind a cell's image depends only on its seed, not on the rest of the batch.

    Args:
        pipeline: a text-to-image pipeline of diffusers (Stable Diffusion 1.x, 2.x, and 3.x, SDXL, Flux). Its modules
            are shared, its scheduler is only read, and its safety checker, which turns images black, is left out.
        grid: how the cells are sampled.
        autocast: the precision to render in, normally that of the training; None uses the modules' own.
        on_rendered: called with each batch of cells and their images, before the others are rendered.

    Raises:
        ValueError: an unsupported pipeline, or one that lacks a component; a sampler that diffusers does not have or
            that does not suit the model or the quality; a size that does not suit the model; or a negative prompt for a
            model that does not use one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        grid: PromptGrid,
        autocast: torch.dtype | None = None,
        on_rendered: OnRendered = _unseen,
    ):
        compares = takes_negative_prompts(pipeline)
        if grid.negative_prompt and not compares:
            raise ValueError(f"grid.negative_prompt: {type(pipeline).__name__} does not use one; leave it empty")
        self.grid = replace(grid, sampler=grid.sampler or default_sampler(pipeline.scheduler))
        self.pipeline = own_pipeline(pipeline, self.grid.sampler or "", grid.karras)
        self.autocast = autocast
        self.size = grid.size or image_size(self.pipeline)
        check_size(self.size, size_multiple(self.pipeline))
        self._guided = compares and grid.guidance > 1.0
        pixels = self.size[0] * self.size[1]
        self._begin_on(device_of(self.pipeline))
        self._decoded = Batches(DECODED_PIXELS // pixels, "images to decode")
        self._tiled = pixels > TILED_PIXELS
        self._embeddings: dict[tuple[str, str], Encoded] = {}
        self.on_rendered = on_rendered

    def follow(self, pipeline: Pipeline) -> None:
        """Use the modules that the training's pipeline has now: the loop, or its EMA, may have put others there."""
        own = self.pipeline.components
        live = {name: unwrapped(part) for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        for name in [name for name, part in live.items() if own.get(name) not in (None, part)]:
            setattr(self.pipeline, name, live[name])

    def _begin_on(self, device: torch.device) -> None:
        """Choose the first batch size for a device."""
        pixels = DENOISED_PIXELS_ON_CPU if device.type == "cpu" else DENOISED_PIXELS
        self.batches = Batches(pixels // (self.size[0] * self.size[1]), "cells")
        self._device, self._first, self._room = device, self.batches.size, Room(device)

    def render(self, cells: Sequence[Cell]) -> list[Image.Image | None]:
        """One RGB image per cell, in the order of `cells`; None if the model's output was not finite.

        Raises:
            OutOfMemoryError: even a single cell does not fit into memory.
        """
        if (device := device_of(self.pipeline)) != self._device:
            self._begin_on(device)  # the model has been moved
        self._fill_memory(len(cells))
        self._embeddings.clear()  # any text encoder may have changed, even a frozen one
        total, hidden = len(cells) * self.grid.step_count, not (distributed.is_main() and is_live())
        bar = tqdm(total=total, desc=f"rendering {len(cells)}", unit="step", leave=False, disable=hidden)
        with self.precision(), self._merged(), bar:
            return self.batches.map(cells, partial(self._render_batch, bar))

    def _merged(self) -> AbstractContextManager[None]:
        """LoRA layers merged where that costs no memory on a GPU and no precision."""
        is_exact = self._device.type == "cpu" and self.autocast is None
        return merged(self._denoiser) if is_exact else nullcontext()

    @property
    def _denoiser(self) -> nn.Module:
        """The UNet, or the transformer of newer models."""
        found: nn.Module = self.pipeline.components.get("unet") or self.pipeline.components["transformer"]
        return found

    def _fill_memory(self, cells: int) -> None:
        """Use larger batches from now on if they fit, unless the size has changed before or each shape is compiled."""
        if self.batches.size == self._first and not is_compiled(self._denoiser):
            self.batches.size = self._room.batch(self._first, cells)

    def _render_batch(self, bar: tqdm, cells: Sequence[Cell]) -> list[Image.Image | None]:  # type: ignore[type-arg]
        before = bar.n
        try:
            with self._room.watched(len(cells)):
                latents = self._denoise(bar, cells)
            images = self._decode(latents)
        except Exception:
            bar.update(before - bar.n)  # the batch may be retried with a smaller size
            raise
        self.on_rendered(cells, images)
        return images

    def _denoise(self, bar: tqdm, cells: Sequence[Cell]) -> Float[Tensor, "n c h w"]:  # type: ignore[type-arg]
        encoded = [self._encode(cell) for cell in cells]

        def on_step_end(pipeline: object, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            bar.update(
                len(cells) if step < self.grid.step_count else 0
            )  # some schedulers evaluate the model twice per step
            return tensors

        latents = self.pipeline(
            **{name: torch.cat([row[name] for row in encoded]) for name in encoded[0]},
            num_inference_steps=self.grid.step_count,
            guidance_scale=self.grid.guidance,
            generator=[torch.Generator("cpu").manual_seed(cell.seed) for cell in cells],
            height=self.size[0],
            width=self.size[1],
            output_type="latent",
            callback_on_step_end=on_step_end,
        ).images
        return unpacked(self.pipeline, latents, self.size)

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> list[Image.Image | None]:
        """The decoded images; an image that does not fit into memory is decoded in tiles."""
        if not self._tiled:
            try:
                return self._decoded.map(list(latents), self._decode_batch)
            except OutOfMemoryError:
                self._tiled = True
        self.pipeline.vae.enable_tiling()
        return self._decoded.map(list(latents), self._decode_batch)

    def _decode_batch(self, latents: Sequence[Float[Tensor, "c h w"]]) -> list[Image.Image | None]:
        return to_images(decode(self.pipeline, torch.stack(list(latents))))

    def _encode(self, cell: Cell) -> Encoded:
        key = (cell.prompt, cell.negative_prompt)
        if key not in self._embeddings:
            self._embeddings[key] = encode(self.pipeline, *key, self._guided, self._device)
        return self._embeddings[key]

    def remedy(self, error: BaseException) -> str:
        """What to do about an error of `render`; empty if that is unknown."""
        return remedy(self.pipeline.components, error, is_cast=self.autocast is not None)

    def precision(self) -> AbstractContextManager[object]:
        """The training's autocast, or none."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device_of(self.pipeline).type, self.autocast)


def check_size(size: tuple[int, int], multiple: int) -> None:
    """Check that a model can generate images of this height and width.

    Raises:
        ValueError: it would generate other ones, or none.
    """
    if any(side < multiple or side % multiple for side in size):
        height, width = size
        raise ValueError(
            f"grid.size: found {height} x {width} (height x width), expected multiples of {multiple} for this model"
        )


def to_images(pixels: Float[Tensor, "n 3 h w"]) -> list[Image.Image | None]:
    """8-bit images from RGB in [0, 1]; None for an image with a non-finite value."""
    pixels = pixels.float()
    finite = pixels.isfinite().flatten(1).all(1).tolist()
    levels = (pixels.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    images = (Image.fromarray(np.ascontiguousarray(level)) for level in levels)
    return [image if ok else None for image, ok in zip(images, finite, strict=True)]


def is_black(image: Image.Image) -> bool:
    """Whether an image is black, as after a safety checker or an overflow."""
    return max(high for _, high in image.convert("RGB").getextrema()) <= 2  # type: ignore[misc]
