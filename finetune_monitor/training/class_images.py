"""Class images for prior preservation: what the base model itself generates for the class prompt."""

import io
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from filelock import FileLock, Timeout
from PIL import Image
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.images import SUFFIXES, list_images
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer, is_black
from finetune_monitor.training.config import DataConfig
from finetune_monitor.training.data import checked_photos

logger = logging.getLogger(__name__)


def class_images(
    pipeline: StableDiffusionPipeline, data: DataConfig, sampling: PromptGrid, autocast: torch.dtype | None
) -> list[Path]:
    """The first `class_count` class images; what is missing is rendered by the model as it stands and kept.

    Raises:
        UserError: the model generates black images, or an image in the folder cannot be read.
    """
    assert data.class_images is not None
    data.class_images.mkdir(parents=True, exist_ok=True)
    if _missing(data):
        with _alone(data.class_images):
            _generate(pipeline, data, sampling, autocast)
    return checked_photos(_present(data.class_images)[: data.class_count])


def _generate(
    pipeline: StableDiffusionPipeline, data: DataConfig, sampling: PromptGrid, autocast: torch.dtype | None
) -> None:
    """Render what is missing now, and it may be nothing: another run may have generated them while this one waited."""
    seeds = _missing(data)
    if not seeds:
        return
    grid = PromptGrid(
        [data.class_prompt or ""],
        seeds,
        steps=sampling.steps,
        guidance=sampling.guidance,
        sampler=sampling.sampler,
        karras=sampling.karras,
        size=(data.resolution, data.resolution),
    )
    assert data.class_images is not None
    _render(Renderer(pipeline, grid, autocast), data.class_images)


def _missing(data: DataConfig) -> list[int]:
    """As the first process sees it."""
    assert data.class_images is not None
    return distributed.gather(_missing_seeds(data.class_images, data.class_count))[0]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Runs that share the folder generate one after the other: the second finds what the first has made."""
    if not distributed.is_main():
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("%s: waiting for the run that generates class images there", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _present(folder: Path) -> list[Path]:
    return list_images(folder) if any(p.suffix.lower() in SUFFIXES for p in folder.glob("[!.]*")) else []


def _missing_seeds(folder: Path, count: int) -> list[int]:
    """Seeds for what is missing, none of which a file in the folder has used."""
    present = _present(folder)
    used = {path.stem for path in present}
    free = (seed for seed in itertools.count() if _stem(seed) not in used)
    return list(itertools.islice(free, max(0, count - len(present))))


def _stem(seed: int) -> str:
    return f"class-{seed:06d}"


def _render(renderer: Renderer, folder: Path) -> None:
    """Every process generates its share; what goes wrong in one ends all."""
    problem = None
    try:
        _render_share(renderer, folder)
    except Exception as error:
        problem = str(error) if isinstance(error, UserError | OSError) else repr(error)
    all_problems([found for found in distributed.gather(problem) if found], f"{folder}: class images cannot be made:")


def _render_share(renderer: Renderer, folder: Path) -> None:
    todo = list(renderer.grid.cells[distributed.rank() :: distributed.world_size()])
    bar = tqdm(total=len(todo), desc="class images", unit="image", disable=not distributed.is_main())
    with isolated(renderer.pipeline), bar:
        while todo:
            cells, todo = todo[: renderer.batches.size], todo[renderer.batches.size :]
            for cell, image in zip(cells, renderer.render(cells), strict=True):
                _save(folder / f"{_stem(cell.seed)}.png", image)
            bar.update(len(cells))


def _save(path: Path, image: Image.Image | None) -> None:
    if image is None or is_black(image):
        raise UserError(f"{path.name}: the model drew a black image; train in bf16 or without mixed precision")
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomic(path, content.getvalue())
