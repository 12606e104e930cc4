"""Share Accelerate's trackers with the monitor: one TensorBoard folder and one W&B run for losses and scores."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from finetune_monitor.base.files import private
from finetune_monitor.sinks import Sink, Tracked
from finetune_monitor.sinks.tensorboard import TensorBoardSink
from finetune_monitor.sinks.trackers import TrackerSink
from finetune_monitor.sinks.wandb import WandbSink

logger = logging.getLogger(__name__)


def start_sinks(
    accelerator: Accelerator,
    output_dir: Path,
    chosen: Mapping[Any, Mapping[str, Any]],
    resume_step: int | None = None,
) -> list[Sink]:
    """Create the sinks of a config, on trackers of `accelerator` where possible; none outside the main process.

    `log` then writes to the same places as the scores: to `<output_dir>/tensorboard` itself, without a project folder
    in between, and to one W&B run. Create the accelerator without `log_with`, and call `end` after `monitor.close()`.
    The hyperparameters come with `RunInfo`.

    Args:
        chosen: sink classes, or classes of trackers, with their options.
        resume_step: the checkpoint's step; TensorBoard hides anything written after it, and W&B resumes its run.

    A sink that cannot start (no network access, not installed) is turned off for this run, with a warning.
    """
    if not accelerator.is_main_process:
        return []
    started: list[GeneralTracker] = []
    sinks: list[Sink] = []
    for kind, options in chosen.items():
        try:
            if isinstance(kind, Tracked):
                with private():
                    started += _start(accelerator, kind.tracker(output_dir, options, resume_step))
                sinks.append(kind.on_tracker(started[-1], options))
            elif issubclass(kind, GeneralTracker):
                started += _start(accelerator, kind(**options))
                sinks.append(TrackerSink(started[-1]))
            else:
                sinks.append(kind(**options))
        except (Exception, SystemExit) as error:
            logger.warning("sink %s cannot start and is turned off for this run: %r", kind.name, error)
    accelerator.trackers = started
    return sinks


def _start(accelerator: Accelerator, tracker: GeneralTracker) -> list[GeneralTracker]:
    """Register a ready-made tracker: with names, Accelerate would use one project name and subfolder for both."""
    accelerator.log_with = [tracker]
    accelerator.trackers = []
    accelerator.init_trackers("")
    return list(accelerator.trackers)


def accelerate_sinks(accelerator: Accelerator, wandb_images: bool = True) -> list[Sink]:
    """Sinks on the trackers that `accelerator.init_trackers` has started; none outside the main process.

    Args:
        wandb_images: False keeps every image out of W&B.
    """
    if not accelerator.is_main_process:
        return []
    return [_sink(tracker, {"images": wandb_images}) for tracker in accelerator.trackers]


def log(accelerator: Accelerator, values: Mapping[str, float], step: int) -> None:
    """Log to every tracker, as `accelerator.log` does; a tracker that fails (full disk) is turned off."""
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
        except (Exception, SystemExit) as error:
            accelerator.trackers.remove(tracker)
            logger.warning("tracker %s failed and is turned off for the rest of the run: %r", tracker.name, error)


def _sink(tracker: GeneralTracker, options: Mapping[str, Any]) -> Sink:
    if isinstance(tracker, TensorBoardTracker):
        return TensorBoardSink.on_tracker(tracker, options)
    if isinstance(tracker, WandBTracker):
        return WandbSink.on_tracker(tracker, options)
    return TrackerSink(tracker)
