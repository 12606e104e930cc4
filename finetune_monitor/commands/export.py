"""The command `finetune-monitor export`: write the weights of a step to a file or a folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.commands.options import add_kept_step
from finetune_monitor.record.kept_weights import DIFFUSERS, KOHYA

if TYPE_CHECKING:
    from finetune_monitor.record.kept_weights import KeptWeights

READERS = {DIFFUSERS: "diffusers", KOHYA: "ComfyUI, AUTOMATIC1111, Forge"}


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export`."""
    parser = commands.add_parser(
        "export",
        help="write the weights of a step to a file or a folder",
        description="Write the weights of a step to a new file or folder, for diffusers or for ComfyUI and others.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's output_dir, even while it is running")
    add_kept_step(parser)
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="TARGET",
        help="a new file *.safetensors, or a new folder for pipe.load_lora_weights or, of a complete pipeline, "
        "from_pretrained",
    )
    parser.add_argument(
        "--format",
        choices=list(READERS),
        help="kohya is for ComfyUI, AUTOMATIC1111, Forge, and Civitai; without it, a file is kohya's and a folder is "
        "diffusers'",
    )
    parser.set_defaults(run=_export)


def _export(chosen: argparse.Namespace) -> None:
    from finetune_monitor.base.text import visible
    from finetune_monitor.record.weights_copy import chosen_weights, copy_weights

    found = chosen_weights(chosen.run_dir, chosen.step)
    written = copy_weights(found, chosen.run_dir, chosen.to, chosen.format)
    print(f"weights:  {visible(str(found.folder))}, step {found.step}")
    print(f"written:  {visible(str(chosen.to))} (for {READERS[written]})")
    if written == DIFFUSERS:
        print(f"load:     {_loading(found, visible(str(chosen.to)))}")


def _loading(found: "KeptWeights", place: str) -> str:
    """The line of Python that loads it."""
    call = "pipe.load_lora_weights" if found.is_lora else "DiffusionPipeline.from_pretrained"
    return f"{call}({place!r})"
