"""The command `finetune-monitor push`: send the weights of a step to the Hugging Face Hub."""

import argparse
from pathlib import Path

from finetune_monitor.commands.options import add_kept_step
from finetune_monitor.record.kept_weights import BEST, CARD


def add_push(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `push`."""
    parser = commands.add_parser(
        "push",
        help="send the weights of a step to the Hugging Face Hub",
        description="Send the weights of a step, their model card, and its sample images to the Hugging Face Hub. "
        "Nothing is sent there without this command. It needs a token: set HF_TOKEN or run `hf auth login`.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's output_dir")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository; created if it is missing")
    add_kept_step(parser)
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", default=True, help="only the owner sees it; the default")
    seen.add_argument("--public", action="store_false", dest="private", help="everybody sees it")
    parser.set_defaults(run=_push)


def _push(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.weights_copy import chosen_weights
    from finetune_monitor.sinks.hub import push

    found = chosen_weights(chosen.run_dir, chosen.step)
    pushed = push(chosen.run_dir, found, chosen.repo, chosen.private)
    print(f"pushed:   step {found.step}, {'private' if chosen.private else 'public'}")
    print(f"open:     {pushed.address}")
    if not pushed.has_license:
        print(f"license:  not set; add it to the front matter of {chosen.run_dir / BEST / CARD}, or on the hub")
