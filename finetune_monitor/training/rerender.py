"""Render a recorded image again from the exported weights, and measure how far it is from the recorded one."""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import convert_outputs_to_fp32
from PIL.Image import Image
from safetensors import SafetensorError

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.base.paths import Containment, user_path
from finetune_monitor.base.versions import device_name, versions
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.models.diffusers_hub import is_hub_id, resolve_hub_model, variant_of
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.kept_weights import BEST, LORA_FILE, kept_weights, weights_at
from finetune_monitor.record.reproducible import grid_problem
from finetune_monitor.record.run_directory import CONFIG, RUN
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.training.compiling import compile_in_place
from finetune_monitor.training.config import Config, TrainConfig, recorded_config
from finetune_monitor.training.trainable import PRECISIONS, load_pipeline, lower_precision, trained_family

BASE = "the base model"


@dataclass(frozen=True)
class Distance:
    """The distance between two images.

    greatest: the largest difference in one color of one pixel, 0 to 255.
    share: the share of pixels that differ, 0 to 1.
    """

    greatest: int
    share: float


@dataclass(frozen=True)
class Rendering:
    """An image that was rendered again.

    weights: the folder of the weights, or `BASE`.
    recorded: the run's own image; None if it has none.
    notes: sentences on what differs from the run.
    """

    cell: Cell
    weights: str
    image: Image
    recorded: Image | None
    notes: tuple[str, ...]

    @property
    def distance(self) -> Distance | None:
        """The distance to the recorded image; None if there is none, or if its size differs."""
        if self.recorded is None or self.recorded.size != self.image.size:
            return None
        return distance(self.image, self.recorded)


@dataclass(frozen=True)
class _Opened:
    """A pipeline with a step's weights, its rendering precision, and notes on what is unknown about the run's."""

    pipeline: diffusers.DiffusionPipeline
    autocast: torch.dtype | None
    notes: tuple[str, ...] = ()


def rerender(run_dir: Path, step: int, cell_id: str) -> Rendering:
    """A cell rendered with a step's exported weights, as in the run's evaluation.

    The cells that shared its batch in the first evaluation are rendered with it, because rounding in kernels depends on
    the batch size. On a GPU, later batches may have been larger (`rendering.room`).

    Raises:
        UserError: there is no run directory, or it is damaged; or there is no such cell, no weights of that step, or no
            base model for them.
    """
    history = read_run(run_dir)
    grid = recorded_grid(history)
    cell = find_cell(grid, cell_id)
    folder = find_weights(run_dir, step)
    recorded = _recorded(history, step, cell)
    opened = _open(history, folder)
    image = _render(opened, grid, cell, history.processes)
    device = device_name(opened.pipeline.device)
    notes = (*opened.notes, *_elsewhere(history, device))
    return Rendering(cell, str(folder or BASE), image, recorded, notes)


def distance(a: Image, b: Image) -> Distance:
    """The distance between two RGB images of the same size."""
    apart = np.abs(np.asarray(a, dtype=np.int16) - np.asarray(b, dtype=np.int16)).max(axis=-1)
    return Distance(int(apart.max()), float((apart > 0).mean()))


def recorded_grid(history: RunHistory) -> PromptGrid:
    """The grid of `run.json`.

    Raises:
        UserError: it is missing or damaged, or its images were not rendered here.
    """
    if problem := grid_problem(history):
        raise UserError(problem)
    return history.grid


def find_cell(grid: PromptGrid, cell_id: str) -> Cell:
    """The cell of the grid with this id.

    Raises:
        UserError: there is none; suggests the most similar id.
    """
    cells = {cell.id: cell for cell in grid.cells}
    if cell_id in cells:
        return cells[cell_id]
    close = difflib.get_close_matches(cell_id, cells, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"the first is {grid.cells[0].id}"
    raise UserError(
        f"--cell: found {cell_id!r}, expected one of {len(cells)} cells from {grid.cells[0].id} to "
        f"{grid.cells[-1].id} (p: the prompt from 0, s: the seed); {hint}"
    )


def find_weights(run_dir: Path, step: int) -> Path | None:
    """The folder with a step's weights; None for step 0, the base model.

    Raises:
        UserError: no weights of that step were kept; names the steps that were.
    """
    if step == 0:
        return None
    set_aside = kept_weights(run_dir, [f"{BEST}-step-*"])  # of a step that a resumed run has repeated
    return weights_at(run_dir, step, {**set_aside, **kept_weights(run_dir)}).folder


def _recorded(history: RunHistory, step: int, cell: Cell) -> Image | None:
    evaluation = history.at(step)
    image = evaluation.by_cell.get(cell.id) if evaluation else None
    file = image.file if image else None
    if file is None:
        return None
    path = Containment(history.output_dir).path(file)
    if path is None:
        raise UserError(f"{history.output_dir}: step {step}, cell {cell.id}: its image is outside the run directory")
    return read_image(path) if path.exists() else None


def _render(opened: _Opened, grid: PromptGrid, cell: Cell, processes: int) -> Image:
    renderer = Renderer(opened.pipeline, grid, opened.autocast)
    together = _same_batch(grid.cells, cell, processes, renderer.batches.size)
    with isolated(renderer.pipeline):
        [image] = [p for c, p in zip(together, renderer.render(together), strict=True) if c == cell]
    if image is None:
        raise UserError(f"{cell.id}: the model's output is not finite, so there is no image; choose another step")
    return image


def _same_batch(cells: Sequence[Cell], cell: Cell, processes: int, size: int) -> Sequence[Cell]:
    """The cells that the evaluation rendered together with this one in the same process."""
    share = cells[cell.index % processes :: processes]
    start = cell.index // processes // size * size
    return share[start : start + size]


def _open(history: RunHistory, folder: Path | None) -> _Opened:
    config = history.output_dir / CONFIG
    if not config.exists():
        return _open_others(history, folder, ())
    try:
        loaded, unknown = recorded_config(config)
    except UserError:
        return _open_others(history, folder, (f"{config} is not a config of train.py, so the precision is unknown",))
    opened = _open_trained(loaded, folder)
    notes = (f"{config} has keys that this version does not know: {', '.join(unknown)}",) if unknown else ()
    return replace(opened, notes=(*opened.notes, *notes))


def _open_trained(config: Config, folder: Path | None) -> _Opened:
    """The pipeline as it rendered during training: its precisions, and Accelerate's effect on them."""
    base = config.base_model
    if folder is not None and not _is_lora(folder):
        base = BaseModel(str(folder))  # a complete pipeline, with the parts that it was trained with
    pipeline = load_pipeline(_found(base), base).to(PartialState().device)
    notes: tuple[str, ...] = ()
    family = trained_family(pipeline)
    for part in family.networks(pipeline).values():
        part.requires_grad_(False)
    if folder is not None and _is_lora(folder):
        _load_lora(pipeline, folder)
        notes = _unfold_scale(pipeline, config.train)
    lower_precision(pipeline, config.train)
    if config.train.compile is True:
        compile_in_place(pipeline.unet)
    dtype = PRECISIONS[config.train.mixed_precision]
    if dtype is not None:
        for name in ("unet", *(family.text_encoders if config.train.text_encoder else ())):
            part = getattr(pipeline, name)
            part.forward = convert_outputs_to_fp32(torch.autocast(pipeline.device.type, dtype)(part.forward))
    return _Opened(pipeline, dtype, notes)


def _found(base: BaseModel) -> str | Path:
    """The base model; a folder that is missing may be elsewhere."""
    with _paths_of_a_run(base.name):
        return base.find()


@contextmanager
def _paths_of_a_run(model: str) -> Iterator[None]:
    """Say in an error that the path of a model, if it is relative, is that in the folder where the training ran."""
    try:
        yield
    except UserError as error:
        if is_hub_id(model) or user_path(model).is_absolute() or user_path(model).exists():
            raise
        raise UserError(
            f"{error}; the path is relative to the folder in which the training ran: run the command there"
        ) from error


def _unfold_scale(pipeline: diffusers.DiffusionPipeline, train: TrainConfig) -> tuple[str, ...]:
    """Remove alpha / rank from the exported LoRA layers; a note says if that rounds, visible in half precision."""
    scale = (train.lora_alpha or train.rank) / train.rank
    networks = trained_family(pipeline).networks(pipeline).values()
    layers: Iterator[Any] = chain.from_iterable(part.modules() for part in networks)
    for layer in layers:
        for adapter in getattr(layer, "lora_B", {}):
            layer.lora_B[adapter].weight.data /= scale
            layer.scaling[adapter] *= scale
    if math.frexp(scale)[0] == 0.5:  # a power of two
        return ()
    return (f"the exported weights are multiplied by lora_alpha / rank = {scale:g}, which rounds their last digits",)


def _open_others(history: RunHistory, folder: Path | None, notes: tuple[str, ...]) -> _Opened:
    """The pipeline of a user's own training loop, as described in `run.json`."""
    where, described = history.output_dir / RUN, history.pipeline
    if not described.get("class"):
        raise UserError(f"{where}: pipeline.class: found nothing, expected the class of the pipeline; add it manually")
    named, name = described["class"], described.get("name_or_path")
    kind = getattr(diffusers, named, None)
    whole = None if folder is None or _is_lora(folder) else folder
    if kind is None:
        raise UserError(
            f"{where}: the pipeline is a {named}, which this version of diffusers lacks; install the run's version"
        )
    if not (whole or name):
        raise UserError(
            f"{where}: pipeline.name_or_path: found null, expected a folder or a hub id; the pipeline was created in "
            "memory, so the model's location is unknown: add it manually, or choose a step with a complete pipeline"
        )
    with _paths_of_a_run(str(whole or name)):
        found = resolve_hub_model(whole or str(name))
    variant = variant_of(found) if isinstance(found, Path) else None
    pipeline = kind.from_pretrained(found, variant=variant, use_safetensors=True)
    pipeline.to(PartialState().device)
    if folder is not None and whole is None:
        _load_lora(pipeline, folder)
    return _Opened(pipeline, None, notes or (f"{history.output_dir}: has no {CONFIG}, so the precision is unknown",))


def _load_lora(pipeline: diffusers.DiffusionPipeline, folder: Path) -> None:
    try:
        pipeline.load_lora_weights(folder)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot load its weights into the model ({error}); restore the folder") from error


def _is_lora(folder: Path) -> bool:
    return (folder / LORA_FILE).exists()


def _elsewhere(history: RunHistory, device: str) -> list[str]:
    """The versions and devices that differ from those of the run."""
    recorded, here = history.made_with, versions()
    others = [name for name in recorded if recorded[name] != here.get(name)]
    changed = [f"{name} {recorded[name]}, here {here.get(name)}" for name in others]
    if history.device != device:
        changed.append(f"{history.device}, here {device}")
    return [f"recorded with {change}" for change in changed]
