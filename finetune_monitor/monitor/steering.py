"""Requests to a run in progress: to stop, to evaluate now, to pause; and what the run is doing, for those who watch."""

import io
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from PIL.Image import Image
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.files import write_unflushed
from finetune_monitor.monitor.evaluator import WarnOnce
from finetune_monitor.record import live
from finetune_monitor.record.grid import Cell
from finetune_monitor.record.live import ASKED, EVALUATING, PAUSE, PAUSED, RESUME, TRAINING, Status
from finetune_monitor.record.run_directory import CONTROL

CALLS = 10
"""With several processes, steps between two looks at the requests: the processes must agree, which takes a moment."""

TICK = 0.2
"""Seconds between two looks during a pause."""

UNHURRIED = 5.0
"""Seconds after which requests are listed even though the folder seems unchanged: clocks of disks are coarse."""

NOTE = 1.0
"""Seconds between two notes of the step."""

PREVIEW = 384
"""The longer side in pixels of an image of the evaluation in progress."""

Asked = frozenset[str]
NOTHING: Asked = frozenset()


class Inbox:
    """The requests in `control/`; a look costs one call of the system, unless the folder has changed."""

    def __init__(self, output_dir: Path, warn: WarnOnce) -> None:
        self._folder, self._warn = output_dir / CONTROL, warn
        self._changed, self._listed, self._found = -1, -UNHURRIED, NOTHING
        self._kept: set[str] = set()

    def look(self) -> Asked:
        """What is asked now."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
            now = time.monotonic()
            if changed != self._changed or now - self._listed >= UNHURRIED:
                self._found = ASKED.intersection(os.listdir(self._folder)) - self._kept
                self._changed, self._listed = changed, now
        except OSError:
            return NOTHING
        return self._found

    def take(self, name: str) -> None:
        """Remove a request that is being carried out; one that cannot be removed is ignored from then on."""
        self._found = self._found - {name}
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            self._kept.add(name)
            self._warn(f"request {name}", f"{self._folder / name}: cannot remove it ({error.strerror}); remove it")


class Steering:
    """What people ask of a run, and what they see of it; only the first process reads and writes the files.

    If the files cannot be written, nobody can steer the run, and a warning says so.

    Args:
        interrupted: whether the training loop was told to end, which also ends a pause.
    """

    def __init__(self, output_dir: Path, interrupted: Callable[[], bool], warn: WarnOnce) -> None:
        self._output_dir, self._interrupted, self._warn = output_dir, interrupted, warn
        self._inbox = Inbox(output_dir, warn)
        self._status = Status(TRAINING, 0, time.time())
        self._before = TRAINING
        self._calls, self._noted = 0, -NOTE

    @property
    def step(self) -> int:
        """The step of the training, or of the evaluation in progress."""
        return self._status.step

    def open(self) -> None:
        """Make the run known; requests from before it started, or was resumed, are dropped."""
        if stale := live.clear_live(self._output_dir):
            names = ", ".join(stale)
            self._warn("stale", f"{self._output_dir / CONTROL}: ignoring {names}, asked before this process started")
        self._guarded(lambda: live.open_live(self._output_dir))

    def close(self) -> None:
        """Drop what is there only while the run is in progress."""
        live.clear_live(self._output_dir)

    def look(self) -> tuple[Asked, bool]:
        """What is asked, and whether the loop was told to end; every process gets the same answer."""
        self._calls += 1
        if distributed.world_size() > 1:
            return self._agreed() if self._calls % CALLS == 0 else (NOTHING, False)
        return self._inbox.look(), False

    def wait(self) -> tuple[Asked, bool]:
        """Like `look`, after a moment; the processes meet here, so that none waits long enough for a time-out."""
        time.sleep(TICK)
        return self._agreed()

    def _agreed(self) -> tuple[Asked, bool]:
        own = self._inbox.look() if distributed.is_main() else NOTHING
        found = distributed.gather((own, self._interrupted()))
        return found[0][0], any(is_told for _, is_told in found)

    def carry_out(self, name: str, step: int, words: str) -> None:
        """Take a request that is now carried out, record it, and say it on the console."""
        if distributed.is_main():
            self._inbox.take(name)
            self._record(name, step, words)

    @contextmanager
    def paused(self, step: int) -> Iterator[None]:
        """Record the pause that this block is, and say it on the console."""
        start = time.monotonic()
        how = f"finetune-monitor resume {shlex.quote(str(self._output_dir))}"
        self._say(PAUSED, step)
        self._record(PAUSE, step, f"paused on request; to continue: {how}")
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self._say(TRAINING, step)
            self._record(RESUME, step, f"the pause has ended after {seconds:.0f} s", seconds=seconds)

    def _record(self, name: str, step: int, words: str, **details: float) -> None:
        if distributed.is_main():
            self._guarded(lambda: live.note_request(self._output_dir, name, step, **details))
            tqdm.write(f"step {step}: {words}")

    def note(self, step: int) -> None:
        """Note the step of the training, at most once per second."""
        now = time.monotonic()
        if distributed.is_main() and now - self._noted >= NOTE:
            self._noted = now
            self._say(TRAINING, step)

    def note_evaluation(self, step: int, images: int) -> None:
        """Note that an evaluation of so many images begins."""
        self._before = self._status.state
        self._say(EVALUATING, step, images)

    def note_evaluated(self, step: int) -> None:
        """Note that an evaluation has ended, and drop its previews: the images are recorded now."""
        self._say(self._before, step)
        if distributed.is_main():
            for path in live.previews(self._output_dir):
                with suppress(OSError):
                    path.unlink()

    def preview(self, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
        """Show images of the evaluation in progress; every process shows its own, if it sees the folder."""
        if not live.preview_path(self._output_dir, 0, "").parent.is_dir():
            return
        for cell, image in zip(cells, images, strict=True):
            if image is not None:
                path = live.preview_path(self._output_dir, self._status.step, cell.id)
                self._guarded(partial(_write_small, path, image))

    def _say(self, state: str, step: int, images: int = 0) -> None:
        since = self._status.since if self._status.state == state == TRAINING else time.time()
        self._status = status = Status(state, step, since, images)
        if distributed.is_main():
            self._guarded(lambda: live.write_status(self._output_dir, status))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._warn("live", f"{self._output_dir}: cannot be watched or steered for now ({error.strerror})")


def _write_small(path: Path, image: Image) -> None:
    small = image.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    write_unflushed(path, content.getvalue())
