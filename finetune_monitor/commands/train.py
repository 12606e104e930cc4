"""The command `finetune-monitor train`, and train.py, its equivalent in a checkout."""

import argparse
from pathlib import Path

from finetune_monitor.base.output import print_any_text
from finetune_monitor.base.warnings_in_words import plain_warnings

LAUNCH = "accelerate launch -m finetune_monitor.cli train --config configs/X.yaml [key=value ...]"

KEPT = "; run the same command to resume"


def add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `train`."""
    parser = commands.add_parser(
        "train",
        help="fine-tune Stable Diffusion or SDXL with the monitor",
        description=f"Fine-tune Stable Diffusion or SDXL with the monitor. On several devices, use: `{LAUNCH}`",
    )
    _add_arguments(parser)
    parser.set_defaults(run=lambda chosen: _train(chosen, "finetune-monitor"), kept=KEPT)


def main() -> int:
    """The program train.py."""
    parser = argparse.ArgumentParser(
        "train.py",
        description="Fine-tune Stable Diffusion or SDXL with the monitor: "
        "accelerate launch train.py --config configs/X.yaml [key=value ...]",
    )
    _add_arguments(parser)
    print_any_text()
    with plain_warnings():
        return _train(parser.parse_args(), "train.py")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML file, such as configs/sd15_lora.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of dotted keys, such as train.max_steps=500"
    )


def _train(chosen: argparse.Namespace, name: str) -> int:
    from finetune_monitor.training import main as training  # imported here: --help needs no pydantic

    return training.main(chosen.config, chosen.overrides, name)
