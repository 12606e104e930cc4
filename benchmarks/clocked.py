"""Run a training script in its own process, and record when each optimizer step ended and the peak memory."""

import atexit
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import ROOT, wait_for_gpu


@dataclass(frozen=True)
class Clocked:
    """Observations of a script's process.

    started: when it was started; ended: when each optimizer step ended, both in seconds of the same clock.
    computed: the seconds of CPU time that the process had used when its first step ended.
    resident, gpu: its peak memory in bytes, in RAM and on the GPU (0 without a GPU).
    """

    started: float
    ended: Sequence[float]
    computed: float
    resident: int
    gpu: int

    @property
    def first_step(self) -> float:
        """Seconds from the start of the process to the end of the first step."""
        return self.ended[0] - self.started

    def rate(self, after: int) -> float:
        """Steps per second, without those up to `after`."""
        return (len(self.ended) - after) / (self.ended[-1] - self.ended[after - 1])


def run_clocked(
    script: Path,
    arguments: Sequence[str],
    steps: int | None = None,
    after: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Clocked:
    """Run the script to its end, or until it has done `steps` steps.

    Args:
        after: the step after which the rate is measured; pending GPU work is completed there first.

    Raises:
        SystemExit: the script failed; shows the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "clock.json"
        command = [sys.executable, __file__, str(out), str(steps or 0), str(after), str(script), *arguments]
        started = time.time()
        done = subprocess.run(command, cwd=ROOT, env=_environment(environment), capture_output=True, text=True)
        if done.returncode != 0 or not out.exists():
            raise SystemExit(f"{script.name} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return Clocked(started, **json.loads(out.read_text()))


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """An environment without network access, which is not part of the measurement."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", **(more or {})}


class _Clock:
    """Called by torch after every step of any optimizer."""

    def __init__(self, out: Path, steps: int, after: int) -> None:
        self.out, self.steps, self.after = out, steps, after
        self.ended: list[float] = []
        self.computed = 0.0

    def __call__(self, *_: object) -> None:
        if len(self.ended) + 1 in (1, self.after, self.steps):
            wait_for_gpu()
        self.ended.append(time.time())
        self.computed = self.computed or time.process_time()
        if len(self.ended) == self.steps:
            self.write()
            os._exit(0)  # everything after the last step, mainly exports, is not measured

    def write(self) -> None:
        import torch

        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        found = {"ended": self.ended, "computed": self.computed, "resident": _peak_resident(), "gpu": gpu}
        self.out.write_text(json.dumps(found))


def _peak_resident() -> int:
    """The peak memory; not getrusage's ru_maxrss, which on Linux starts with the size of the parent process."""
    kilobytes = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert kilobytes is not None
    return int(kilobytes.group(1)) * 1024


def _when_torch_is_there(start: Callable[[], None]) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that calls `start` once, at the first import after the script has imported torch's main parts.

    Importing torch here instead would take longer than the script takes, which may turn off garbage collection first.
    """
    waiting = [start]

    def hook(event: str, _: tuple[object, ...]) -> None:
        if event == "import" and waiting and hasattr(sys.modules.get("torch"), "compile"):
            waiting.pop()()

    return hook


def _start(clock: _Clock) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(clock)
    atexit.register(clock.write)


def main() -> None:
    """Inside the process: install the clock and run the script."""
    out, steps, after, script, *arguments = sys.argv[1:]
    clock = _Clock(Path(out), int(steps), int(after))
    sys.addaudithook(_when_torch_is_there(lambda: _start(clock)))
    sys.argv, sys.path[0] = [script, *arguments], str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
