"""Measure where the time of a training step goes, on a CPU, where each part ends before the next one begins.

python benchmarks/step.py --size demo
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


def measure(job: Job) -> str:
    """The table of one batch size."""
    times = Times(job.warmup)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as output, times.taken():
        _, config, *overrides = our_arguments(job, output)
        AcceleratorState._reset_state(reset_partial_state=True)
        run(load_config(Path(config), [*overrides, f"train.max_steps={job.until}"]))
    each = {name: 1000 * times.seconds[name] / times.steps for name in PARTS}
    whole = 1000 * times.seconds[STEP] / times.steps
    rows = {**each, "all else": whole - sum(each.values()), "all": whole}
    cells = [(name, f"{found:.1f}", f"{100 * found / whole:.0f}%") for name, found in rows.items()]
    return table((f"batch {job.batch}", "ms per step", "share"), cells)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--warmup", type=int, default=10, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    options = parser.parse_args()
    chosen = scale(options.size)
    rank = load_config(chosen.config).train.rank
    jobs = [Job(chosen, "small", batch, options.warmup, options.steps, rank) for batch in options.batches]
    notes = (
        f"- {chosen.pixels} px, LoRA of rank {rank} on attention, AdamW, {options.steps} steps after {options.warmup}."
    )
    publish("A training step, part by part", options.size, [*map(measure, jobs), notes])


if __name__ == "__main__":
    main()
