"""The monitor as a callback of Lightning's `Trainer`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from finetune_monitor.base.extras import require
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason

Callback: Any = require("lightning.pytorch", "finetune_monitor.integrations.lightning").Callback


class MonitorCallback(Callback):
    """Calls the monitor after every optimizer step, and ends the training when a rule decides to stop.

    The monitor is created when training starts, on every process. If the trainer resumes from a checkpoint, so does the
    run. Rules that watch the loss see what `training_step` returns.

    Args:
        arguments: those of `FinetuneMonitor`, except `resume_step` and `interrupted`.
        settings: its keyword arguments.

    Attributes:
        monitor: the monitor, from the start of the training.

    Raises:
        UserError: Lightning is not installed; raised when this module is imported.
    """

    monitor: FinetuneMonitor

    def __init__(self, *arguments: Any, **settings: Any):
        self._make = partial(FinetuneMonitor, *arguments, **settings)
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Create the monitor, and evaluate step 0 of a new run."""
        self._step = trainer.global_step
        told = partial(getattr, trainer, "received_sigterm")
        self.monitor = self._make(resume_step=self._step or None, interrupted=told).start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Evaluate if it is time; batches between two optimizer steps do not count."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        loss = (
            outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        )  # the module may return anything or none
        if self.monitor.on_step_end(self._step, trainer.current_epoch, None if loss is None else float(loss)):
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the monitor."""
        self.monitor.close(None if trainer.should_stop else StopReason.MAX_STEPS)
