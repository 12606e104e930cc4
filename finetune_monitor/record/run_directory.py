"""The run directory: its file names and its lock."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from finetune_monitor.base.errors import UserError

CONFIG, RUN, EVALUATIONS, IMAGES = "config.yaml", "run.json", "evaluations.jsonl", "images.jsonl"


def read_json(path: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        UserError: the file is missing or does not hold a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path.parent}: found no {path.name}, expected a run directory; check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it or choose a new output_dir") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, expected an object; choose a new output_dir")
    return content


def lock(output_dir: Path) -> IO[str]:
    """Acquire the directory's kernel lock, which is released when its holder exits, however that happens."""
    file = (output_dir / ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"{output_dir}: in use by the run with PID {holder}; wait for it, stop it, or choose another output_dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
