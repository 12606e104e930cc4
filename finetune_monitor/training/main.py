"""From a config file to a run's exit status, for train.py, `finetune-monitor train`, and the trials of a sweep."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finetune_monitor.base.errors import UserError, disk_problem
from finetune_monitor.base.imports import heavy_imports
from finetune_monitor.training.config import Config, load_config
from finetune_monitor.training.own import classes_of
from finetune_monitor.training.registry import SINKS

USER_ERROR = 2
"""The exit status for a problem that the user must fix: another attempt would fail the same way."""


def main(path: Path, overrides: Sequence[str] = (), name: str = "finetune-monitor") -> int:
    """Read the config and train; a problem that the user can fix is shown without a traceback, after `name`."""
    try:
        config = load_config(path, overrides)
        with heavy_imports():  # only once the config is valid
            _import_sinks(config)
            from finetune_monitor.training.run import run
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


def _import_sinks(config: Config) -> None:
    """Import the packages of the sinks before torch; what is missing is reported with all other problems."""
    for sink in classes_of(SINKS, config.monitor.sinks).values():
        with suppress(UserError):
            getattr(sink, "check", lambda: None)()
