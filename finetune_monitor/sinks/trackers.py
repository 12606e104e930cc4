"""Show evaluations in any tracker of Accelerate, or in one of the user's own."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import require
from finetune_monitor.base.redaction import redacted
from finetune_monitor.record.evaluation import Evaluation, RunSummary, measured_means
from finetune_monitor.sinks import RunInfo, scalars
from finetune_monitor.sinks.grid_image import grid_image
from finetune_monitor.stats.estimate import plain

if TYPE_CHECKING:  # the config imports this file for the names, and importing torch takes seconds
    from accelerate.tracking import GeneralTracker

TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio")
"""Accelerate's trackers without a sink of their own; each has the name of its package."""

PROJECT, DEFAULT_PROJECT = "project", "finetune-monitor"
"""The option that becomes the tracker's first argument, which trackers call by different names."""

FOLDER = "logging_dir"

ONE_IMAGE = ("aim", "clearml")
"""Trackers whose `log_images` takes one image per name; the others take a list."""


class TrackerSink:
    """Writes scores to any Accelerate tracker, and the grid to trackers that accept images.

    Args:
        tracker: a started tracker; it stays open at the end.
    """

    def __init__(self, tracker: "GeneralTracker"):
        self.name = str(tracker.name)
        self._tracker = tracker

    def start(self, run: RunInfo) -> None:
        """Store the hyperparameters."""
        self._run = run
        notices = {f"notice_{index}": notice for index, notice in enumerate(run.notices)}
        self._tracker.store_init_configuration({**plain(redacted(run.hparams)), **notices})

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Log the means and intervals; unmeasured values have no key."""
        self._tracker.log(scalars(evaluation, self._run), step=evaluation.step)
        if evaluation.images and hasattr(self._tracker, "log_images"):
            run = self._run
            image = np.asarray(grid_image(evaluation, images, run.columns, run.notices, run.best_metric))
            found = image if self.name in ONE_IMAGE else [image]
            self._tracker.log_images({"grid": found}, step=evaluation.step)

    def close(self, summary: RunSummary) -> None:
        """Log the best step's scores."""
        best = measured_means(summary.evaluations, summary.best_step)
        if best:
            found = {f"best/{name}": value for name, value in best.items()}
            self._tracker.log(found, step=summary.evaluations[-1].step)


@dataclass(frozen=True)
class AccelerateTracker:
    """The sink of a config that is one of Accelerate's trackers; its options are those of the tracker's constructor."""

    name: str

    def check(self) -> None:
        """Check that the tracker's package can be imported, and that Accelerate knows the tracker.

        Raises:
            UserError: one of them is missing or too old.
        """
        require(self.name, f"sink {self.name}", otherwise="remove the sink from the config")
        self._class()

    def tracker(self, output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> "GeneralTracker":
        """A tracker with the options."""
        kind = self._class()
        first = next(iter(inspect.signature(kind).parameters))
        found = dict(options)
        project = found.pop(PROJECT, DEFAULT_PROJECT)
        folder = {FOLDER: str(output_dir)} if kind.requires_logging_directory else {}
        made: GeneralTracker = kind(**{first: project, **folder, **found})
        return made

    def on_tracker(self, tracker: "GeneralTracker", options: Mapping[str, Any]) -> TrackerSink:
        """A sink that writes to the tracker."""
        return TrackerSink(tracker)

    def _class(self) -> Any:
        import accelerate
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if self.name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(
                f"sink {self.name}: found Accelerate {accelerate.__version__}, expected a version with this tracker; "
                "pip install --upgrade accelerate"
            )
        return LOGGER_TYPE_TO_CLASS[self.name]
