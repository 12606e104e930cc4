"""The program `finetune-monitor`, also as `python -m finetune_monitor`: Ctrl-C ends it quietly from the start."""

import sys

from finetune_monitor.base.ending import ends_with, prepare_to_end
from finetune_monitor.base.interrupts import end_quietly


def main() -> int:
    """Run one command; returns the exit status."""
    prepare_to_end()
    end_quietly()

    from finetune_monitor import cli

    return ends_with(cli.main())


if __name__ == "__main__":
    sys.exit(main())
