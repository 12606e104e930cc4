"""Keep the weights of evaluated steps, and those of the best one, even if only the next evaluation shows it to be.

The best step is that of the smoothed curve, where an evaluation changes its neighbor's value. So two steps may still be
the best after the next evaluation: the best of those whose value is final, and the newest. While a guard could not
count the newest, made on request or without its score, there is another one: the best of those that it cannot reject.
"""

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from finetune_monitor.base.files import staged_folder
from finetune_monitor.models.export import Label, export_weights
from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.record.kept_weights import BEST, CARD, SAMPLES, WEIGHTS, step_folder, step_of


class WeightsKeeper:
    """Manages `weights/`, with a folder for each step that is kept, and `best/`.

    Args:
        scheduler: what complete pipelines are exported with.
        warn: called with a subject and a sentence.
    """

    def __init__(self, pipeline: Pipeline, scheduler: Any, output_dir: Path, warn: Callable[[str, str], None]) -> None:
        self._scheduler = scheduler
        self._pipeline, self._output_dir, self._warn = pipeline, output_dir, warn
        self.best = output_dir / BEST

    def begin(self, steps: Sequence[int]) -> None:
        """Keep the weights that belong to a run resumed with these evaluated steps.

        Weights of steps that the run repeats are no longer valid; if the best weights are among them, they are moved
        aside.
        """
        step = step_of(self.best)
        if step is not None and step not in steps:
            aside = self.best.with_name(f"{BEST}-step-{step:06d}")
            shutil.rmtree(aside, ignore_errors=True)
            self.best.rename(aside)
            self._warn("stale", f"{self.best}: belongs to step {step}, which the resumed run repeats; moved to {aside}")
        elif step is not None and not self._folder(step).exists():
            _link(self.best, self._folder(step))
        self._drop_all_but(steps)

    def keep(self, step: int, steps: Collection[int], note: dict[str, Any], label: Label) -> None:
        """Write the live weights, those of `step`, if it is among the steps to keep, and delete those of all others."""
        if step > 0 and step in steps:
            export_weights(self._pipeline, self._folder(step), note, label, self._scheduler)
        self._drop_all_but(steps)

    def has(self, step: int) -> bool:
        """Whether the weights of a step are kept."""
        return self._folder(step).is_dir()

    def choose(self, step: int | None) -> bool:
        """Make `best/` the weights of a step; delete it if no step is better than the untouched model.

        Returns:
            Whether `best/` has other weights than before.
        """
        if not step:
            shutil.rmtree(self.best, ignore_errors=True)
            return False
        if step_of(self.best) == step:
            return False
        if not self.has(step):
            self._warn(f"lost {step}", f"{self.best}: the weights of the best step, {step}, are missing")
            return False
        _link(self._folder(step), self.best)
        return True

    def _folder(self, step: int) -> Path:
        return step_folder(self._output_dir, step)

    def _drop_all_but(self, steps: Collection[int]) -> None:
        kept = {self._folder(step).name for step in steps}
        for folder in (self._output_dir / WEIGHTS).glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Link weights into another folder, without their card, or copy them if the file system does not support links."""
    with staged_folder(target) as staged:
        card = shutil.ignore_patterns(CARD, SAMPLES)
        shutil.copytree(source, staged, copy_function=_link_or_copy, ignore=card, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
