"""From a config file to a run's exit status, for train.py, `finetune-monitor train`, and the trials of a sweep."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_monitor.base.errors import UserError, disk_problem
from finetune_monitor.training.config import load_config

USER_ERROR = 2
"""The exit status for a problem that the user must fix: another attempt would fail the same way."""


def main(path: Path, overrides: Sequence[str] = (), name: str = "finetune-monitor") -> int:
    """Read the config and train; a problem that the user can fix is shown without a traceback, after `name`."""
    try:
        config = load_config(path, overrides)
        from finetune_monitor.training.run import run  # import torch only once the config is valid

        return run(config)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # once, not in every process
            print(f"{name}: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        print(f"{name}: {problem}", file=sys.stderr)
        return 1
