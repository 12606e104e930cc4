"""Accelerate's tracker for W&B, with training steps as the x-axis of its curves."""

from collections.abc import Mapping
from typing import Any

from accelerate.tracking import WandBTracker

from finetune_monitor.sinks.wandb_opening import STEP


class StepTracker(WandBTracker):  # type: ignore[misc]
    """A tracker for runs that the monitor logs to as well.

    Accelerate's passes the training step on as wandb's own, which every evaluation increases by one. wandb then drops
    what has a lower step: a loss after each evaluation, and what a resumed run repeats.
    """

    def __init__(self, project: str | None, **arguments: Any) -> None:
        super().__init__(project, **arguments)
        self._defined: set[str] = set()

    def log(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        """Log numbers of a training step."""
        for key in values.keys() - self._defined:
            self.run.define_metric(key, step_metric=STEP)
        self._defined |= values.keys()
        super().log({STEP: step, **values}, **options)
