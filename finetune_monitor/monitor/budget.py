"""When to evaluate: every N steps, or at a later multiple where that would cost too much of the time."""

import math
import time

EVERY = 300
"""Steps between evaluations where nothing else is asked for."""


class Budget:
    """Decides which steps are evaluated.

    Args:
        every: steps between evaluations.
        max_overhead: largest share of the wall time that evaluations may take, between 0 and 1; the interval is
            stretched to a multiple of `every` that keeps to it. None: every multiple is evaluated.

    Raises:
        ValueError: `every` below 1, or `max_overhead` not between 0 and 1.
    """

    def __init__(self, every: int, max_overhead: float | None = None):
        if every < 1:
            raise ValueError(f"every: found {every}, expected 1 or more steps")
        if max_overhead is not None and not 0 < max_overhead < 1:
            raise ValueError(f"max_overhead: found {max_overhead}, expected a share between 0 and 1, such as 0.05")
        self.every, self.max_overhead = every, max_overhead
        self.train_from(0, 0, 0.0)

    def train_from(self, step: int, evaluated: int, cost: float, warm: bool = True) -> None:
        """Training goes on after `step`; the last evaluation was at step `evaluated` and took `cost` seconds.

        warm: False for the first evaluation of a process, which loads, compiles and encodes for all later ones; what
            those cost is known after the next, which is not held back.
        """
        self.cost, self.warm = cost, warm
        self._step, self._evaluated, self._since = step, evaluated, time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since training went on."""
        return time.monotonic() - self._since

    def is_multiple(self, step: int) -> bool:
        return step % self.every == 0 and step > self._evaluated

    def is_affordable(self, step: int) -> bool:
        """Whether an evaluation after `step` keeps to the budget, at the pace of training; True where none is known."""
        if self.max_overhead is None or not self.warm or step == self._step:
            return True
        return self.share(step - self._evaluated, self._seconds_a_step(step)) <= self.max_overhead

    def share(self, steps: int, seconds_a_step: float) -> float:
        """Which share of the time one evaluation in `steps` steps takes, at the last one's cost."""
        return self.cost / (self.cost + steps * seconds_a_step) if self.cost else 0.0

    def interval(self, seconds_a_step: float) -> int:
        """Steps between evaluations: the smallest multiple of `every` that keeps to the budget."""
        if self.max_overhead is None:
            return self.every
        wanted = self.cost * (1 / self.max_overhead - 1)
        return self.every * max(1, math.ceil(wanted / (self.every * seconds_a_step)))

    def next_step(self, step: int) -> int:
        """Where the next evaluation will come at the pace of training so far."""
        return max(step + self.every, self._evaluated + self.interval(self._seconds_a_step(step)))

    def _seconds_a_step(self, step: int) -> float:
        """Seconds a step since training went on."""
        return max(self.waited, 1e-9) / max(1, step - self._step)
