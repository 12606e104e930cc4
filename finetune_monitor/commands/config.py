"""The command `finetune-monitor config`: prints what a config may hold."""

import argparse


def add_config(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config`."""
    parser = commands.add_parser(
        "config",
        help="print a config with every key, its default and its meaning",
        description="Prints a config with every key, its default and its meaning.",
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema, with which editors complete keys")
    parser.set_defaults(run=_config)


def _config(chosen: argparse.Namespace) -> None:
    import json

    from finetune_monitor.training.describe import commented_config, json_schema

    print(json.dumps(json_schema(), indent=2) if chosen.schema else commented_config(), end="\n" * chosen.schema)
