"""Images that another trainer has rendered: which step, prompt, and seed each belongs to, and the grid they form."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import files_below
from finetune_monitor.base.images import SUFFIXES, read_image
from finetune_monitor.base.json_files import GREATEST
from finetune_monitor.record.grid import ELSEWHERE, SEEDS_APART, Cell, PromptGrid
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.scoring.image_metadata import Said, read_metadata
from finetune_monitor.scoring.patterns import IMAGES, Named, read_name

NO_STEP = 1
"""The step of images that name none: step 0 would claim that they are the untouched base model's."""

UNKNOWN = "unknown prompt"


@dataclass(frozen=True)
class FoundImage:
    """An image file, and what its name and its metadata say.

    tool: whose naming rule it follows; None for no known rule.
    label: identifies the prompt among the images of a step.
    prompt: its full text, if known.
    """

    path: Path
    tool: str | None
    step: int | None
    epoch: int | None
    index: int | None
    seed: int | None
    label: str
    prompt: str | None


@dataclass(frozen=True)
class Group:
    """The images of one step. `epoch`: of the training, if known."""

    step: int
    epoch: int | None
    images: tuple[FoundImage, ...]


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and the folders below it, sorted; hidden ones are left out.

    Of a run of our own, these are the images of its steps.
    """
    folder = folder / "images" if (folder / RUN).exists() else folder
    return [folder / name for name in files_below(folder) if Path(name).suffix.lower() in SUFFIXES]


def find_image(path: Path, folder: Path, prompts: Sequence[str] = ()) -> FoundImage:
    """What an image's path below the folder and its metadata say.

    Args:
        prompts: those of the trainer, in its order; they count for names that hold the place of their prompt.
    """
    named = read_name(path.relative_to(folder).with_suffix("").as_posix(), IMAGES) or Named("")
    said = read_metadata(path)
    given = prompts[named.index] if named.index is not None and named.index < len(prompts) else None
    prompt = given or said.prompt
    return FoundImage(
        path,
        named.tool or None,
        _first(said.step, named.step),
        _first(said.epoch, named.epoch),
        named.index,
        _first(said.seed, named.seed),
        prompt or named.label or _numbered(named, said),
        prompt,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _numbered(named: Named, said: Said) -> str:
    return UNKNOWN if named.index is None else f"prompt {named.index}"


def grouped(images: Sequence[FoundImage]) -> tuple[list[Group], list[FoundImage]]:
    """The images by step, or by epoch if no name has a step; and those without either, if others have one."""
    has_steps = any(image.step is not None for image in images)
    has_epochs = any(image.epoch is not None for image in images)
    if not (has_steps or has_epochs):
        return ([Group(NO_STEP, None, tuple(images))] if images else []), []
    by_step: dict[int, list[FoundImage]] = {}
    left_out = []
    for image in images:
        step = image.step if has_steps else image.epoch
        if step is None:
            left_out.append(image)
        else:
            by_step.setdefault(step, []).append(image)
    return [Group(step, found[0].epoch, tuple(found)) for step, found in sorted(by_step.items())], left_out


def grid_of(groups: Sequence[Group]) -> PromptGrid:
    """The grid that the images of all steps form: a row for each prompt, with as many images as a step has of it.

    Where the prompts of a step share their seeds, they share them in the grid, so that images of one noise count as one
    draw. Otherwise, every image counts as its own.

    Raises:
        UserError: a step has too many images of one prompt.
    """
    rows = [_rows(group.images) for group in groups]
    labels = dict.fromkeys(label for row in rows for label in row)
    most = max(len(images) for row in rows for images in row.values())
    seeds = [[tuple(image.seed for image in images) for images in row.values()] for row in rows]
    known = all(None not in each and len(set(each)) == len(each) for step in seeds for each in step)
    if most > SEEDS_APART:
        raise UserError(f"found {most} images of one prompt in a step, expected at most {SEEDS_APART}; score fewer")
    options: dict[str, Any] = {"images_per_prompt": most}
    if known and len(labels) > 1 and all(len(set(step)) == 1 for step in seeds):
        same = {step[0] for step in seeds}
        is_known = len(same) == 1 and all(seed is not None and abs(seed) < GREATEST for seed in next(iter(same)))
        options = {"seeds": next(iter(same)) if is_known else tuple(range(most))}
    return PromptGrid(tuple(labels), steps=1, guidance=0.0, sampler=ELSEWHERE, **options)


def _rows(images: Sequence[FoundImage]) -> dict[str, list[FoundImage]]:
    """The images of a step by prompt, in the trainer's order; in a row, those with the same place belong together."""
    first = sorted(images, key=lambda image: (image.index is None, image.index or 0))
    rows: dict[str, list[FoundImage]] = {image.label: [] for image in first}
    for image in sorted(images, key=lambda image: (image.seed is None, image.seed or 0, image.path.as_posix())):
        rows[image.label].append(image)
    return rows


class UnknownSampler:
    """The sampler of another tool."""

    config: Mapping[str, Any] = MappingProxyType({})


class OtherTool:
    """Takes the place of another tool's pipeline: it has no components, and nothing to save."""

    scheduler = UnknownSampler()
    components: Mapping[str, Any] = MappingProxyType({})
    config: Mapping[str, Any] = MappingProxyType({})
    _execution_device = torch.device("cpu")

    def save_pretrained(self, save_directory: Path) -> None:
        raise UserError(f"{save_directory}: the images come from another tool, so there are no weights to save")


class ImagesOfSteps:
    """A `monitor.evaluator.FoundImages`: returns the images of one step at a time.

    Args:
        grid: from `grid_of`, or as recorded earlier.
        size: height and width of the largest image in pixels.
    """

    def __init__(self, grid: PromptGrid, size: tuple[int, int]) -> None:
        self.grid, self.size, self.pipeline = grid, size, OtherTool()
        self.found_step: int | None = None
        self._files: dict[int, Path] = {}

    def show(self, group: Group) -> list[FoundImage]:
        """Choose the step whose images `render` returns; the result is those images that the grid has no cell for."""
        rows, extra = _rows(group.images), []
        self.found_step, self._files = group.step, {}
        cells: dict[str, list[Cell]] = {}
        for cell in self.grid.cells:
            cells.setdefault(cell.prompt, []).append(cell)
        for label, images in rows.items():
            places = cells.get(label, [])
            self._files |= {cell.index: image.path for cell, image in zip(places, images, strict=False)}
            extra += images[len(places) :]
        return extra

    def render(self, cells: Sequence[Cell]) -> list[Image | None]:
        """The image of each cell; None where the step has none."""
        return [read_image(self._files[cell.index]) if cell.index in self._files else None for cell in cells]

    def remedy(self, error: BaseException) -> str:
        return ""

    def precision(self) -> AbstractContextManager[object]:
        return nullcontext()


def known_prompts(groups: Sequence[Group]) -> tuple[str, ...]:
    """The full texts of all prompts; empty if one of them is unknown."""
    images = [image for group in groups for image in group.images]
    prompts = dict.fromkeys(image.prompt for image in images)
    return () if None in prompts else tuple(str(prompt) for prompt in prompts)


def without_steps(groups: Sequence[Group]) -> bool:
    """Whether no image says which step or epoch it belongs to."""
    return all(image.step is None and image.epoch is None for group in groups for image in group.images)
