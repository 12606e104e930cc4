"""Keep the weights of the best step, even of a step that turns out to be the best only after the next evaluation.

The best step is that of the smoothed curve, where an evaluation changes its neighbor's value. So two steps may still be
the best after the next evaluation: the best of those whose value is final, and the newest.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune_monitor.base.files import staged_folder
from finetune_monitor.models.export import NOTE, Label, export_weights
from finetune_monitor.models.pipeline import Pipeline

BEST, CANDIDATES = "best", "candidates"
"""Folders in the run directory."""


class BestWeights:
    """Manages `best/` and `candidates/`: the weights of steps that are or may become the best.

    Args:
        warn: called with a subject and a sentence.
    """

    def __init__(self, pipeline: Pipeline, output_dir: Path, warn: Callable[[str, str], None]) -> None:
        self._pipeline, self._warn = pipeline, warn
        self.best, self._candidates = output_dir / BEST, output_dir / CANDIDATES

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
        elif step is not None and not self._candidate(step).exists():
            _link(self.best, self._candidate(step))
        self._drop_all_but(steps)

    def keep(self, step: int, contenders: Sequence[int], note: dict[str, Any], label: Label) -> None:
        """Write the live weights, those of `step`, and delete weights that can no longer become the best."""
        if step > 0 and step in contenders:
            export_weights(self._pipeline, self._candidate(step), note, label)
        self._drop_all_but(contenders)

    def choose(self, step: int | None) -> None:
        """Make `best/` the weights of a step; delete it if no step is better than the untouched model."""
        if not step:
            shutil.rmtree(self.best, ignore_errors=True)
        elif step_of(self.best) != step:
            if not self._candidate(step).is_dir():
                self._warn(f"lost {step}", f"{self.best}: the weights of the best step, {step}, are missing")
                return
            _link(self._candidate(step), self.best)

    def _candidate(self, step: int) -> Path:
        return self._candidates / f"step-{step:06d}"

    def _drop_all_but(self, steps: Sequence[int]) -> None:
        kept = {self._candidate(step).name for step in steps}
        for folder in self._candidates.glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def step_of(folder: Path) -> int | None:
    """The step of weights according to the file next to them; None if there are no weights."""
    note = folder / NOTE
    return int(json.loads(note.read_text())["step"]) if note.is_file() else None


def _link(source: Path, target: Path) -> None:
    """Link files into another folder, or copy them if the file system does not support links."""
    with staged_folder(target) as staged:
        shutil.copytree(source, staged, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
