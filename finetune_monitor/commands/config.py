"""The command `finetune-monitor config`: prints a default config, or the JSON Schemas."""

import argparse


def add_config(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config`."""
    parser = commands.add_parser(
        "config",
        help="print a config with every key, its default, and its meaning",
        description="Print a config with every key, its default, and its meaning.",
    )
    parser.add_argument(
        "--schema",
        nargs="?",
        const="train",
        choices=("train", "sweep"),
        help="print the JSON Schema of training configs or of sweeps instead, for editors; train if neither is named",
    )
    parser.set_defaults(run=_config)


def _config(chosen: argparse.Namespace) -> None:
    import json

    from finetune_monitor.sweep.spec import SweepConfig
    from finetune_monitor.training.describe import commented_config, json_schema, schema_of

    if chosen.schema is None:
        print(commented_config(), end="")
        return
    schema = json_schema() if chosen.schema == "train" else schema_of(SweepConfig, "sweep")
    print(json.dumps(schema, indent=2))
