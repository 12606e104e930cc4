"""Measure where the time of a training step goes, on a CPU, where each part ends before the next one begins.

python benchmarks/step.py --size demo
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel
from measure import arguments, publish, table

from finetune_monitor.training.config import load_config
from finetune_monitor.training.loop import Trainer
from finetune_monitor.training.run import run
from models import scale
from training import Job, our_arguments

STEP = "a step"
PARTS = {
    "UNet, forward": (UNet2DConditionModel, "forward"),
    "UNet, backward": (Accelerator, "backward"),
    "gradients clipped": (Accelerator, "clip_grad_norm_"),
    "optimizer": (AcceleratedOptimizer, "step"),
}


class Times:
    """Seconds of the calls so far, by name; those of the first steps are forgotten."""

    def __init__(self, warmup: int) -> None:
        self._warmup = warmup
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps = -warmup

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Time the parts of all training steps."""
        with ExitStack() as stack:
            for name, (owner, method) in {**PARTS, STEP: (Trainer, "train_step")}.items():
                stack.enter_context(patch.object(owner, method, self._timed(name, getattr(owner, method))))
            yield

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = method(*given, **named)
            if self.steps >= 0:
                self.seconds[name] += time.perf_counter() - start
            self.steps += name == STEP
            return found

        return timed


@dataclass(frozen=True)
class Measured:
    """Milliseconds per step: of its parts, and in all."""

    batch: int
    parts: Mapping[str, float]
    whole: float

    @property
    def table(self) -> str:
        rows = {**self.parts, "all else": self.whole - sum(self.parts.values()), "all": self.whole}
        cells = [(name, f"{found:.1f}", f"{100 * found / self.whole:.0f}%") for name, found in rows.items()]
        return table((f"batch {self.batch}", "ms per step", "share"), cells)

    @property
    def bound(self) -> str:
        """How much faster a step can become while the UNet's passes stay as they are."""
        passes = sum(found for name, found in self.parts.items() if name.startswith("UNet"))
        return f"{self.whole / passes:.2f} times as fast with batch {self.batch}"


def measure(job: Job) -> Measured:
    """Train, and time the steps after the first ones."""
    times = Times(job.warmup)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as output, times.taken():
        _, config, *overrides = our_arguments(job, output)
        AcceleratorState._reset_state(reset_partial_state=True)
        run(load_config(Path(config), [*overrides, f"train.max_steps={job.until}"]))
    each = {name: 1000 * found / times.steps for name, found in times.seconds.items()}
    return Measured(job.batch, {name: each[name] for name in PARTS}, each[STEP])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--warmup", type=int, default=10, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    options = parser.parse_args()
    chosen = scale(options.size)
    rank = load_config(chosen.config).train.rank
    jobs = [Job(chosen, "small", batch, options.warmup, options.steps, rank) for batch in options.batches]
    found = [measure(job) for job in jobs]
    notes = [
        f"- {chosen.pixels} px, LoRA of rank {rank} on attention, AdamW, {options.steps} steps after {options.warmup}.",
        "- The UNet's passes are the same computations in diffusers' script. If all else took no time, a step would be "
        f"{' and '.join(each.bound for each in found)}.",
    ]
    publish("A training step, part by part", options.size, [*(each.table for each in found), "\n".join(notes)])


if __name__ == "__main__":
    main()
