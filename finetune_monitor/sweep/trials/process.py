"""A trial's own process (python -m finetune_monitor.sweep.trials.process CONFIG.yaml), which ends with its parent."""

import os
import signal
import sys
import threading
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.training.config import load_config

USER_ERROR = 2
"""The exit status where the user can put something right: another attempt would end the same way."""

PREFIX = "finetune-monitor: "
"""What the message of such an error opens with, in the log."""


def main() -> int:
    """Run the config; the exit status is that of `train.py`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        config = load_config(Path(sys.argv[1]))
        from finetune_monitor.training.run import run

        return run(config)
    except UserError as error:
        print(f"{PREFIX}{error}", file=sys.stderr)
        return USER_ERROR


def _end_with_parent() -> None:
    """The parent holds the other end of our standard input: its end is the parent's, however that one died."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with the workers that read photos
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
