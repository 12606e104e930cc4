"""The process of a trial (python -m finetune_monitor.sweep.trials.process CONFIG.yaml), which ends with its parent."""

import os
import signal
import sys
import threading
from pathlib import Path

from finetune_monitor.base.ending import ends_with, prepare_to_end
from finetune_monitor.base.output import print_any_text

NAME = "finetune-monitor"
"""The prefix of messages for the user in the log."""


def main() -> int:
    """Run the config; the exit status is that of `train.py`."""
    prepare_to_end()
    print_any_text()
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from finetune_monitor.training import main as training

    return ends_with(training.main(Path(sys.argv[1]), name=NAME))


def _end_with_parent() -> None:
    """Exit when standard input closes: the parent holds its other end, so this happens however the parent dies."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # including the workers that read photos
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
