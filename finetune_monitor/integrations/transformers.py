"""The monitor as a callback of `transformers.Trainer`."""

from functools import partial
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason


class MonitorCallback(TrainerCallback):
    """Calls the monitor after every optimizer step, and ends the training when a rule decides to stop.

    The monitor is created when training starts, on every process. If the trainer resumes from a checkpoint, so does the
    run. Rules that watch the loss see what the trainer logs, which hides a loss that is not finite unless its argument
    `logging_nan_inf_filter` is False.

    Args:
        arguments: those of `FinetuneMonitor`, except `resume_step`.
        settings: its keyword arguments.

    Attributes:
        monitor: the monitor, from the start of the training.
    """

    monitor: FinetuneMonitor

    def __init__(self, *arguments: Any, **settings: Any):
        self._make = partial(FinetuneMonitor, *arguments, **settings)
        self._loss: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Create the monitor, and evaluate step 0 of a new run."""
        self.monitor = self._make(resume_step=state.global_step or None).start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Note the loss for the next step."""
        self._loss = (logs or {}).get("loss")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Evaluate if it is time."""
        loss, self._loss = self._loss, None
        if self.monitor.on_step_end(state.global_step, state.epoch, loss):
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Close the monitor."""
        self.monitor.close(StopReason.MAX_STEPS if state.global_step >= state.max_steps else None)
