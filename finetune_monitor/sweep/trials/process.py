"""A trial's own process (python -m finetune_monitor.sweep.trials.process CONFIG.yaml), which ends with its parent."""

import os
import signal
import sys
import threading
from pathlib import Path

from finetune_monitor.training import main as training

NAME = "finetune-monitor"
"""What a message of the user's errors opens with, in the log."""


def main() -> int:
    """Run the config; the exit status is that of `train.py`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return training.main(Path(sys.argv[1]), name=NAME)


def _end_with_parent() -> None:
    """The parent holds the other end of our standard input: its end is the parent's, however that one died."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with the workers that read photos
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
