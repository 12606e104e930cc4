"""Score the images of another trainer: every step or epoch is one evaluation of a run."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from PIL import Image

from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError
from finetune_monitor.base.images import each_image, read_image
from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.base.json_files import damage_named
from finetune_monitor.base.text import counted, some_of, visible
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import SCORE, RunHistory
from finetune_monitor.scoring.folder import STATE, ScoreFolder
from finetune_monitor.scoring.images import (
    FoundImage,
    Group,
    ImagesOfSteps,
    find_image,
    grouped,
    image_files,
    known_prompts,
    recorded_probes,
    without_copies,
    without_steps,
)
from finetune_monitor.scoring.layout import Layout, keyed, layout_of, recorded_layout, seeds_in
from finetune_monitor.scoring.notes import Notes, say_metrics
from finetune_monitor.scoring.records import Subject, opened
from finetune_monitor.scoring.settings import NEED_PROMPTS, Measured, Options, make_config, make_metrics

QUIET = 30.0
"""Seconds without a new image after which the newest step counts as complete."""


class ImageScores:
    """The scores of the images in one folder.

    Args:
        folder: of the scores.
    """

    has_base = False

    def __init__(self, options: Options, source: Path, folder: ScoreFolder) -> None:
        self._options, self._source, self._folder = options, source, folder
        self._config = make_config(options, None)
        self._measured: Measured | None = None
        self._known: dict[Path, FoundImage] = {}
        self._probes = recorded_probes(source)
        self._newest = (0, time.monotonic())
        self._notes = Notes()
        self.run_names = [str(source.resolve())]

    def prepare(self) -> None:
        """Give the run its place, and check that all images can be read.

        Raises:
            UserError: lists the images that cannot be read.
        """
        self._folder.plan({self.run_names[0]: self._source.resolve().name})
        if not self._options.watch:
            for _ in each_image(image_files(self._source)):
                pass

    def names(self, run: str) -> Mapping[int, str]:
        """A description of each step."""
        return {step: f"step {step}" for step in self._folder.files(run)}

    def score(self, interrupt: Interrupt) -> None:
        """Score the steps that are complete and not recorded."""
        [name] = self.run_names
        history = self._folder.history(name)
        recorded = [each.step for each in history.evaluations] if history else []
        found = self._images()
        self._say_probes([image for image in found if image.is_probe])
        images, copies = without_copies([image for image in found if not image.is_probe])
        if copies:
            self._notes.say(
                f"left out copies of images of the same step, prompt, and seed: {counted(len(copies), 'file')}, "
                f"such as {copies[0].path.relative_to(self._source)}"
            )
        groups, left_out = grouped(images)
        if left_out:
            self._notes.say(
                f"left out {counted(len(left_out), 'image')} without a step, such as {left_out[0].path.name}"
            )
        self._note_additions(name, groups)
        todo = [group for group in groups if group.step not in recorded]
        if late := [group for group in todo if recorded and group.step < recorded[-1]]:
            steps = ", ".join(str(group.step) for group in late)
            self._notes.say(
                f"left out step {steps}: it appeared after step {recorded[-1]} was scored; choose a new folder"
            )
        todo = [group for group in todo if group not in late]
        layout = self._layout(name, history, groups)
        if layout is None:
            return
        complete = [group for group in self._complete(todo, layout.grid) if self._has_cells(group, layout, groups)]
        if complete:
            if history is None:
                self._say_what_is_known(groups)
                self._folder.keep_layout(name, layout.to_json())
            self._score(name, complete, self._metrics(groups, layout.grid), layout, interrupt)

    def _layout(self, name: str, history: RunHistory | None, groups: Sequence[Group]) -> Layout | None:
        """The layout of a record, or else of the images; None if there are none.

        Raises:
            UserError: the folder of the scores does not say which images the cells of its record are for.
        """
        if history is None:
            return layout_of(groups) if groups else None
        with damage_named(self._folder.folder / STATE, "choose another folder with -o"):
            return recorded_layout(history.grid, self._folder.layout(name))

    def _has_cells(self, group: Group, layout: Layout, groups: Sequence[Group]) -> bool:
        """Whether a step can be scored beside the steps before; otherwise, a note says why not."""
        why = ""
        if not layout.place(group):
            why = f"the grid has cells for other seeds or prompts than those of {group.images[0].path.name}"
        elif layout.changing and (other := _step_of_same_seed(group, groups)) is not None:
            why = f"it has a seed of step {other}, but the steps before have different ones"
        if why:
            self._notes.say(f"left out step {group.step}: {why}; score all images in a new folder")
        return not why

    def _images(self) -> list[FoundImage]:
        """The images that can be read; in a watched folder, others may still be incomplete."""
        files = image_files(self._source)
        for path in files:
            if path not in self._known and (not self._options.watch or _is_readable(path)):
                self._known[path] = self._found(path)
                self._newest = (len(self._known), time.monotonic())
        return [self._known[path] for path in files if path in self._known]

    def _found(self, path: Path) -> FoundImage:
        found = find_image(path, self._source, self._options.prompts)
        return replace(found, is_probe=found.is_probe or path.resolve() in self._probes)

    def _complete(self, groups: Sequence[Group], grid: PromptGrid | None) -> Sequence[Group]:
        """Those to which no image will be added: all but the newest, which is once it is full or nothing happens."""
        if not self._options.watch or not groups or grid is None:
            return groups
        is_quiet = time.monotonic() - self._newest[1] > QUIET
        is_full = self._folder.history(self.run_names[0]) is not None and len(groups[-1].images) >= len(grid.cells)
        return groups if is_quiet or is_full else groups[:-1]

    def _note_additions(self, name: str, groups: Sequence[Group]) -> None:
        scored = self._folder.files(name)
        for group in groups:
            known = map(os.path.realpath, scored.get(group.step, ()))
            more = {os.path.realpath(image.path) for image in group.images}.difference(known)
            if group.step in scored and more:
                self._notes.say(
                    f"step {group.step}: left out {counted(len(more), 'image')} that appeared after it was scored"
                )

    def _say_probes(self, probes: Sequence[FoundImage]) -> None:
        if probes:
            self._notes.say(
                "left out all images whose prompts do not name the subject, such as "
                f"{probes[0].path.relative_to(self._source)}"
            )

    def _score(
        self, name: str, todo: Sequence[Group], measured: Measured, layout: Layout, interrupt: Interrupt
    ) -> None:
        self._folder.start()
        grid = layout.grid
        images = ImagesOfSteps(grid, _largest(todo))
        hparams = {f"{SCORE}images": str(self._source), "data.instance_prompt": grid.prompts[0]}
        subject = Subject(images, grid, measured.metrics, self._config)
        with opened(self._folder.place(name), subject, hparams, interrupt) as monitor:
            for group in todo:
                if interrupt.asked():
                    return
                placed = layout.place(group)
                images.show(group.step, placed)
                self._say_extra(group, placed)
                self._folder.note(name, group.step, [image.path for image in group.images], with_hash=False)
                monitor.evaluate(group.step, group.epoch)

    def _say_extra(self, group: Group, placed: Mapping[int, FoundImage]) -> None:
        found = set(placed.values())
        if extra := [image.path.name for image in group.images if image not in found]:
            self._notes.say(
                f"step {group.step}: left out {some_of(extra, EXAMPLES_NAMED)}: the grid, which the steps scored first "
                "determine, has no cell of this prompt and seed; score all images in a new folder"
            )

    def _metrics(self, groups: Sequence[Group], grid: PromptGrid) -> Measured:
        if self._measured is None:
            known = self._known_prompts(groups, grid)
            self._measured = make_metrics(self._config, PartialState().device, known, of_images=True)
            say_metrics(self._measured)
        return self._measured

    def _known_prompts(self, groups: Sequence[Group], grid: PromptGrid) -> Sequence[str]:
        """The prompts of the grid if they are known; for a record, as they were when it began."""
        history = self._folder.history(self.run_names[0])
        if history is not None:
            return grid.prompts if set(NEED_PROMPTS) & history.columns.keys() else ()
        return grid.prompts if set(known_prompts(groups)) == set(grid.prompts) else ()

    def _say_what_is_known(self, groups: Sequence[Group]) -> None:
        images = [image for group in groups for image in group.images]
        tools = dict.fromkeys(image.tool for image in images if image.tool)
        print(f"found:    {counted(len(images), 'image')} of {counted(len(groups), 'step')}", end="")
        print(f" (named in the style of {' and '.join(tools)})" if tools else "")
        if without_steps(groups):
            print(
                f"note:     found no step in names or metadata: all images are one evaluation, at step {groups[0].step}"
            )
        if self._options.prompts and (why := _without_prompt(images, len(self._options.prompts))):
            print(f"note:     --prompts: {visible(why)}")
        if any(image.seed is None for image in images):
            print("note:     not all seeds are known: the intervals assume that every image has its own noise")


def _step_of_same_seed(group: Group, groups: Sequence[Group]) -> int | None:
    """Another step that has an image of the same prompt and seed."""
    own = seeds_in(keyed(group.images))
    others = (each for each in groups if each.step != group.step)
    return next((each.step for each in others if own & seeds_in(keyed(each.images))), None)


def _without_prompt(images: Sequence[FoundImage], given: int) -> str:
    """Which image none of the given prompts is for, and why; empty if all have theirs."""
    image = next((image for image in images if image.prompt is None), None)
    if image is None:
        return ""
    if image.index is None:
        return f"cannot be assigned, because names such as {image.path.name} do not hold the place of their prompt"
    return f"found {counted(given, 'prompt')}, but {image.path.name} has number {image.index}, counted from 0; name all"


def _largest(groups: Sequence[Group]) -> tuple[int, int]:
    """Height and width of the largest image of the first step."""
    sizes = []
    for found in groups[0].images:
        with Image.open(found.path) as image:
            sizes.append(image.size)
    return max(height for _, height in sizes), max(width for width, _ in sizes)


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except UserError:
        return False
    return True
