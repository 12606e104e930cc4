"""From a config's file to a run's exit status: what train.py, `finetune-monitor train` and a sweep's trials call."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.training.config import load_config

USER_ERROR = 2
"""The exit status where the user can put something right: another attempt would end the same way."""


def main(path: Path, overrides: Sequence[str] = (), name: str = "finetune-monitor") -> int:
    """Read the config and train; a problem that the user can put right is shown without a traceback, after `name`."""
    try:
        config = load_config(path, overrides)
        from finetune_monitor.training.run import run  # torch only once the config is valid

        return run(config)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # once, not by every process
            print(f"{name}: {error}", file=sys.stderr)
        return USER_ERROR
