"""What a run in progress says about itself, and what people ask of it, as files in the run directory."""

import json
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import make_private, private, read_regular, write_atomic, write_unflushed
from finetune_monitor.base.json_files import DAMAGE, as_number, as_object, as_text, as_whole
from finetune_monitor.record.rows import append
from finetune_monitor.record.run_directory import CONTROL, IN_PROGRESS, REQUESTS, STATUS

STOP, EVALUATE, PAUSE = "stop", "evaluate", "pause"
"""Files in `control/` by which people ask; a run is held as long as `pause` is there."""

RESUME = "resume"
"""How the record names the end of a pause."""

ASKED = frozenset({STOP, EVALUATE, PAUSE})

STATES = TRAINING, EVALUATING, PAUSED = "training", "evaluating", "paused"

LARGEST = 10_000
"""Bytes of a status."""


@dataclass(frozen=True)
class Status:
    """What a run is doing.

    since: seconds since the epoch at which this state began.
    images: how many images the evaluation in progress renders; 0 between evaluations.
    """

    state: str
    step: int
    since: float
    images: int = 0


def read_status(run_dir: Path) -> Status | None:
    """What a run last said; None if it said nothing, or if that cannot be read."""
    try:
        found = as_object(json.loads(read_regular(run_dir / STATUS, LARGEST)))
        return Status(
            as_text(found["state"]), as_whole(found["step"]), as_number(found["since"]), as_whole(found["images"])
        )
    except (OSError, *DAMAGE):
        return None


def write_status(run_dir: Path, status: Status) -> None:
    write_unflushed(run_dir / STATUS, json.dumps(asdict(status)).encode())


def request(run_dir: Path, name: str) -> None:
    """Ask something of a run.

    Raises:
        UserError: the run directory cannot be written.
    """
    try:
        write_atomic(run_dir / CONTROL / name, b"")
    except OSError as error:
        raise _unwritable(run_dir, error) from error


def withdraw(run_dir: Path, name: str) -> bool:
    """Ask no longer; returns whether that was asked.

    Raises:
        UserError: the run directory cannot be written.
    """
    try:
        (run_dir / CONTROL / name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(run_dir, error) from error
    return True


def _unwritable(run_dir: Path, error: OSError) -> UserError:
    return UserError(
        f"{run_dir / CONTROL}: cannot write there ({error.strerror}); requests need permission to write in the run "
        "directory, as the user who started the run has"
    )


def is_asked(run_dir: Path, name: str) -> bool:
    """Whether a request waits to be carried out; a pause, whether it has not ended."""
    return (run_dir / CONTROL / name).exists()


def note_request(run_dir: Path, name: str, step: int, **details: Any) -> None:
    """Record that a request was carried out.

    Raises:
        OSError: it cannot be written.
    """
    with private():
        append(run_dir / REQUESTS, [{"time": time.time(), "request": name, "step": step, **details}])


def preview_path(run_dir: Path, step: int, cell: str) -> Path:
    """The small copy of an image of the evaluation in progress."""
    return run_dir / IN_PROGRESS / f"step-{step:06d}-{cell}.jpg"


def previews(run_dir: Path, step: int | None = None) -> list[Path]:
    """The small copies of the images of an evaluation in progress; of any step if None."""
    return sorted((run_dir / IN_PROGRESS).glob("step-*.jpg" if step is None else f"step-{step:06d}-*.jpg"))


def clear_live(run_dir: Path) -> list[str]:
    """Remove what is there only while a run is in progress; returns the requests that were not carried out."""
    left = sorted(name for name in ASKED if is_asked(run_dir, name))
    for folder in (CONTROL, IN_PROGRESS):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
    with suppress(OSError):
        (run_dir / STATUS).unlink(missing_ok=True)
    return left


def open_live(run_dir: Path) -> None:
    """Create the folders that a run in progress uses.

    Raises:
        OSError: they cannot be created.
    """
    for folder in (CONTROL, IN_PROGRESS):
        make_private(run_dir / folder)
