"""Images that another trainer has rendered: which step, prompt, and seed each belongs to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import SUFFIXES, read_image
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.record.progress import read_quietly
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.scoring.folder import source_files
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
    sampling_steps: the number of steps in which it was rendered, if known.
    is_probe: it says that its prompt does not name the subject.
    """

    path: Path
    tool: str | None
    step: int | None
    epoch: int | None
    index: int | None
    seed: int | None
    label: str
    prompt: str | None
    sampling_steps: int | None = None
    is_probe: bool = False

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        return sha256(self.path)


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
    return [folder / name for name in source_files(folder) if Path(name).suffix.lower() in SUFFIXES]


def recorded_probes(folder: Path) -> set[Path]:
    """The probes among the images of a run of our own, whose folder or folder of images is given, by its record;
    their resolved paths."""
    folder = folder.resolve()
    run_dir = folder if (folder / RUN).exists() else folder.parent
    history = read_quietly(run_dir) if (run_dir / RUN).exists() else None
    evaluations = (*history.evaluations, *history.full_quality) if history else ()
    images = (image for each in evaluations for image in each.images)
    return {run_dir / image.file for image in images if image.file and image.cell.is_probe}


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
        said.sampling_steps,
        said.is_probe,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _numbered(named: Named, said: Said) -> str:
    return UNKNOWN if named.index is None else f"prompt {named.index}"


def without_copies(images: Sequence[FoundImage]) -> tuple[list[FoundImage], list[FoundImage]]:
    """The images, and those that are another file of the same one: as draws of their own, they would narrow intervals.

    An image that was rendered again in more steps, as at the end of a fast run of our own, is such a file, too. Of
    images without a seed, which may be equal by chance (all black, for example), none is a copy.
    """
    by_draw: dict[tuple[object, ...], list[FoundImage]] = defaultdict(list)
    for image in images:
        if image.seed is not None:
            by_draw[image.step, image.epoch, image.label, image.seed].append(image)
    copies: set[Path] = set()
    for same in by_draw.values():
        if len(same) > 1:  # only then are the files read
            first = {image.digest: image.path for image in reversed(_in_fewest_steps(same))}
            copies |= {image.path for image in same}.difference(first.values())
    return [image for image in images if image.path not in copies], [image for image in images if image.path in copies]


def _in_fewest_steps(images: Sequence[FoundImage]) -> list[FoundImage]:
    fewest = min((image.sampling_steps for image in images if image.sampling_steps is not None), default=None)
    return [image for image in images if image.sampling_steps in (None, fewest)]


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
        size: height and width of the largest image in pixels.
    """

    def __init__(self, grid: PromptGrid, size: tuple[int, int]) -> None:
        self.grid, self.size, self.pipeline = grid, size, OtherTool()
        self.found_step: int | None = None
        self._images: Mapping[int, FoundImage] = {}

    def show(self, step: int, images: Mapping[int, FoundImage]) -> None:
        """Choose what `render` returns: the images of a step, by the index of their cell."""
        self.found_step, self._images = step, images

    def render(self, cells: Sequence[Cell]) -> list[Image | None]:
        """The image of each cell; None where the step has none."""
        return [read_image(self._images[cell.index].path) if cell.index in self._images else None for cell in cells]

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
