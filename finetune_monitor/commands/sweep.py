"""The command `finetune-monitor sweep`: its options."""

import argparse
from pathlib import Path


def add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sweep`."""
    parser = commands.add_parser("sweep", help="run one training with many settings and report what differs")
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="the sweep's file, such as configs/sweep_photos_demo.yaml"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of dotted keys, such as resources.cpus=2"
    )
    parser.set_defaults(run=_sweep, kept="; run the same command to resume")


def _sweep(chosen: argparse.Namespace) -> int:
    from finetune_monitor.sweep.run import run_sweep

    return run_sweep(chosen.sweep, chosen.overrides)
