"""The command `finetune-monitor demo`: the demo's training, with the models that come with the package."""

import argparse
from pathlib import Path

CONFIG = "configs/demo.yaml"

OPTIONAL_SINK = "wandb"
"""A sink of the demo's config whose package may be missing."""


def add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo`."""
    parser = commands.add_parser(
        "demo",
        help="train the demo's small model in minutes on a CPU, without any download",
        description="Train the demo's small model in minutes on a CPU, without any download. The run is in runs/demo, "
        "below the working directory.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, such as train.max_steps=100")
    parser.set_defaults(run=_demo)


def _demo(chosen: argparse.Namespace) -> int:
    from finetune_monitor.base.extras import is_installed
    from finetune_monitor.training import main as training
    from finetune_monitor.training.shipped import shipped

    absent = [] if is_installed(OPTIONAL_SINK) else [f"monitor.sinks.{OPTIONAL_SINK}=null"]
    return training.main(Path(shipped(CONFIG)), [*absent, *chosen.overrides])
