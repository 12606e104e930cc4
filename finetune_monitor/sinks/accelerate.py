"""Shares Accelerate's trackers with the monitor: one TensorBoard folder and one W&B run for losses and scores."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.redaction import redacted
from finetune_monitor.record.evaluation import Evaluation, RunSummary, measured_means
from finetune_monitor.sinks import RunInfo, Sink, scalars
from finetune_monitor.sinks.grid_image import grid_image
from finetune_monitor.sinks.tensorboard import TensorBoardSink
from finetune_monitor.sinks.wandb import WandbSink, import_wandb, init_arguments
from finetune_monitor.stats.estimate import plain

logger = logging.getLogger(__name__)


class TrackerSink:
    """Writes scores to any of Accelerate's trackers, and the grid to those that take images.

    Args:
        tracker: started; it is left open at the end.
    """

    def __init__(self, tracker: GeneralTracker):
        self.name = str(tracker.name)
        self._tracker = tracker

    def start(self, run: RunInfo) -> None:
        """Store the hyperparameters."""
        self._run = run
        notices = {f"notice_{index}": notice for index, notice in enumerate(run.notices)}
        self._tracker.store_init_configuration({**plain(redacted(run.hparams)), **notices})

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Log the means and intervals; what was not measured has no key."""
        self._tracker.log(scalars(evaluation, self._run), step=evaluation.step)
        if evaluation.images and hasattr(self._tracker, "log_images"):
            image = np.asarray(grid_image(evaluation, images, self._run.notices))
            self._tracker.log_images({"grid": [image]}, step=evaluation.step)

    def close(self, summary: RunSummary) -> None:
        """Log the best step's scores."""
        best = measured_means(summary.evaluations, summary.best_step)
        if best:
            found = {f"best/{name}": value for name, value in best.items()}
            self._tracker.log(found, step=summary.evaluations[-1].step)


def start_trackers(
    accelerator: Accelerator,
    output_dir: Path,
    sinks: Mapping[str, Mapping[str, Any] | None],
    resume_step: int | None = None,
) -> list[Sink]:
    """Start the config's trackers on `accelerator` and return the sinks that share them.

    `log` then writes beside the scores: to `<output_dir>/tensorboard` itself, without a project's folder
    in between, and to one W&B run. Make the accelerator without `log_with`, and call `end` after
    `monitor.close()`. The hyperparameters come with `RunInfo`.

    Args:
        sinks: "tensorboard" and "wandb", each with the arguments of its sink; None where it is off.
        resume_step: the checkpoint's step; TensorBoard hides what was written after it, W&B goes on with its run.

    A tracker that cannot start (no network, not installed) is off for this run, with a warning.

    Raises:
        UserError: another name.
    """
    chosen = {name: dict(options) for name, options in sinks.items() if options is not None}
    makers = {"tensorboard": _tensorboard_tracker, "wandb": _wandb_tracker}
    unknown = chosen.keys() - makers.keys()
    if unknown:
        raise UserError(f"sinks: found {', '.join(sorted(unknown))}, expected tensorboard or wandb")
    if not accelerator.is_main_process:
        return []
    started: list[GeneralTracker] = []
    for name, options in chosen.items():
        # Ready-made trackers: from names Accelerate would give both one project name, TensorBoard as a subfolder.
        try:
            accelerator.log_with = [makers[name](output_dir, options, resume_step)]
            accelerator.trackers = []
            accelerator.init_trackers("")
            started += accelerator.trackers
        except Exception as error:
            logger.warning("tracker %s cannot start and is off for this run: %r", name, error)
    accelerator.trackers = started
    return accelerate_sinks(accelerator, wandb_images=chosen.get("wandb", {}).get("images", True))


def accelerate_sinks(accelerator: Accelerator, wandb_images: bool = True) -> list[Sink]:
    """Sinks over the trackers that `accelerator.init_trackers` has started; none on other processes than the main.

    Args:
        wandb_images: False keeps every image out of W&B.
    """
    if not accelerator.is_main_process:
        return []
    return [_sink(tracker, wandb_images) for tracker in accelerator.trackers]


def log(accelerator: Accelerator, values: Mapping[str, float], step: int) -> None:
    """Log to every tracker, as `accelerator.log` does; one that fails (a full disk) is off from now on."""
    _each(accelerator, lambda tracker: tracker.log(dict(values), step=step))


def end(accelerator: Accelerator) -> None:
    """Finish the trackers and Accelerate's own state."""
    _each(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers = []
    accelerator.end_training()


def _each(accelerator: Accelerator, action: Callable[[GeneralTracker], None]) -> None:
    for tracker in list(accelerator.trackers):
        try:
            action(tracker)
        except Exception as error:
            accelerator.trackers.remove(tracker)
            logger.warning("tracker %s failed and is off from now on: %r", tracker.name, error)


def _sink(tracker: GeneralTracker, wandb_images: bool) -> Sink:
    if isinstance(tracker, TensorBoardTracker):
        return TensorBoardSink(tracker.writer)
    if isinstance(tracker, WandBTracker):
        return WandbSink(run=tracker.run, images=wandb_images)
    return TrackerSink(tracker)


def _tensorboard_tracker(output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> TensorBoardTracker:
    purge_step = None if resume_step is None else resume_step + 1
    return TensorBoardTracker("", output_dir / "tensorboard", purge_step=purge_step, **options)


def _wandb_tracker(output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> WandBTracker:
    import_wandb()
    arguments = init_arguments(output_dir, {k: v for k, v in options.items() if k != "images"}, resume_step)
    return WandBTracker(arguments.pop("project", "finetune-monitor"), **arguments)
