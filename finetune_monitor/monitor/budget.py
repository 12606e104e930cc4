"""When to evaluate: every N steps, or at a later multiple if that would take too much of the time."""

import math
import time

from finetune_monitor.monitor.arguments import number_of, step_of

EVERY = 300
"""The default number of steps between evaluations."""


class Budget:
    """Decides which steps are evaluated.

    Args:
        every: steps between evaluations.
        max_overhead: the maximum share of the wall time that evaluations may take, between 0 and 1; the interval is
            extended to a multiple of `every` that respects it. None: every multiple is evaluated.

    Raises:
        TypeError: `every` is no whole number, or `max_overhead` no number.
        ValueError: `every` is below 1, or `max_overhead` is not between 0 and 1.
    """

    def __init__(self, every: int, max_overhead: float | None = None):
        self.every = step_of(every, "every", fewest=1)
        self.max_overhead = None if max_overhead is None else number_of(max_overhead, "max_overhead")
        if self.max_overhead is not None and not 0 < self.max_overhead < 1:
            raise ValueError(f"max_overhead: found {max_overhead}, expected a share between 0 and 1, such as 0.05")
        self.train_from(0, 0, 0.0)

    def train_from(self, step: int, evaluated: int, cost: float, warm: bool = True) -> None:
        """Record that training continues after `step`; the last evaluation was at step `evaluated` and took `cost`
        seconds. Multiples between them were postponed; `step` itself may have been interrupted before its evaluation.

        warm: False for the first evaluation of a process, which loads, compiles, and encodes for all later ones. Their
            cost is known only after the next evaluation, which is therefore not postponed.
        """
        self.cost, self.warm = cost, warm
        self._step, self._evaluated, self._since = step, evaluated, time.monotonic()
        self._seen = max(evaluated, step - 1)

    def leave_out(self, seconds: float) -> None:
        """Do not count these seconds as training: a pause, or an evaluation on request, which changes no schedule."""
        self._since += seconds

    @property
    def waited(self) -> float:
        """Seconds since training continued."""
        return time.monotonic() - self._since

    def crosses(self, step: int) -> bool:
        """Whether a multiple of `every` was reached or passed since the last call or the last evaluation."""
        before, self._seen = self._seen, max(step, self._seen)
        return step // self.every > before // self.every

    def is_affordable(self, step: int) -> bool:
        """Whether an evaluation after `step` respects the budget at the current pace; True if that is unknown."""
        if self.max_overhead is None or not self.warm or step == self._step:
            return True
        return self.share(step - self._evaluated, self._seconds_a_step(step)) <= self.max_overhead

    def share(self, steps: int, seconds_a_step: float) -> float:
        """The share of the time that an evaluation every `steps` steps takes, at the cost of the last one."""
        return self.cost / (self.cost + steps * seconds_a_step) if self.cost else 0.0

    def interval(self, seconds_a_step: float) -> int:
        """Steps between evaluations: the smallest multiple of `every` that respects the budget."""
        if self.max_overhead is None:
            return self.every
        wanted = self.cost * (1 / self.max_overhead - 1)
        return self.every * max(1, math.ceil(wanted / (self.every * seconds_a_step)))

    def next_step(self, step: int) -> int:
        """The step of the next evaluation at the current pace of training."""
        return max(step + self.every, self._evaluated + self.interval(self._seconds_a_step(step)))

    def _seconds_a_step(self, step: int) -> float:
        """Seconds per step since training continued."""
        return max(self.waited, 1e-9) / max(1, step - self._step)
