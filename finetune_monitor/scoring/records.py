"""Open the run directory of a score, new or to be continued, with the untouched base model as its step 0."""

import io
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune_monitor.base.images import read_image
from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.metrics import Metric
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.evaluator import FoundImages
from finetune_monitor.record.evaluation import StopReason, as_reason
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import EVALUATIONS, IMAGES, RUN
from finetune_monitor.sinks import accelerate as trackers
from finetune_monitor.training.config import Config
from finetune_monitor.training.own import classes_of, options_in
from finetune_monitor.training.registry import SINKS

logger = logging.getLogger(__name__)

SCORED = "everything found was scored"
"""Why a score ends."""


@dataclass(frozen=True)
class Subject:
    """What is scored, and with what. `source`: a pipeline, or images of another tool."""

    source: Any
    grid: PromptGrid
    metrics: Sequence[Metric]
    config: Config


@contextmanager
def opened(
    folder: Path, subject: Subject, hparams: Mapping[str, Any], interrupt: Interrupt, floor: Path | None = None
) -> Iterator[FinetuneMonitor]:
    """A monitor that records in the folder, after what is there, and is closed at the end.

    Args:
        floor: another run of the same base model, grid, and metrics; a new run takes its step 0 instead of rendering it
            again.
    """
    is_copy = floor is not None and not (folder / RUN).exists()
    if floor is not None and is_copy:
        _copy_record(floor, folder)
    accelerator, reason = Accelerator(), StopReason.FAILED.value
    monitor = _monitor(folder, subject, hparams, accelerator, 0 if is_copy else _last_step(folder))
    if is_copy:
        _show_floor(monitor)
    try:
        if not isinstance(subject.source, FoundImages):
            monitor.start()
        yield monitor
        reason = StopReason.INTERRUPTED.value if interrupt.asked() else SCORED
    finally:
        with redirect_stdout(io.StringIO()):  # the table is printed once, in the end
            monitor.close(as_reason(reason))
        trackers.end(accelerator)


def _monitor(
    folder: Path, subject: Subject, hparams: Mapping[str, Any], accelerator: Accelerator, resume_step: int | None
) -> FinetuneMonitor:
    sinks = trackers.start_sinks(accelerator, folder, _sinks(subject.config), resume_step)
    source, grid, metrics = subject.source, subject.grid, subject.metrics
    return FinetuneMonitor(
        source, grid, metrics, folder, sinks, every=1, keep="best", hparams=hparams, resume_step=resume_step
    )


def _sinks(config: Config) -> dict[Any, dict[str, Any]]:
    """The sinks of a config with their options."""
    options = config.monitor.sinks.chosen
    return {kind: options_in(options[name]) for name, kind in classes_of(SINKS, config.monitor.sinks).items()}


def _last_step(folder: Path) -> int | None:
    """The last recorded step; None for a new run."""
    if not (folder / RUN).exists():
        return None
    return max((each.step for each in read_run(folder).evaluations), default=0)


def _copy_record(source: Path, target: Path) -> None:
    """Copy a record with the images of step 0; the run that resumes from there drops the rest."""
    step_0 = Path("images", f"step-{0:06d}")
    shutil.copytree(source / step_0, target / step_0, dirs_exist_ok=True)
    for name in (EVALUATIONS, IMAGES, RUN):  # run.json last: with it, the folder is a run
        shutil.copy2(source / name, target / name)


def _show_floor(monitor: FinetuneMonitor) -> None:
    """Show step 0 in the sinks, which have not seen it."""
    floor = monitor.evaluations[0]
    images = [None if each.file is None else read_image(monitor.output_dir / each.file) for each in floor.images]
    for sink in monitor.sinks:
        try:
            sink.write(floor, images)
        except Exception as error:
            logger.warning("sink %s: cannot show step 0: %r", sink.name, error)
