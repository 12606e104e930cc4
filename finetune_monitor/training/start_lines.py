"""What a training prints before it starts: on what it trains, what it trains, where, and where to look."""

import shlex
from collections.abc import Iterator

import torch

from finetune_monitor.base import distributed
from finetune_monitor.base.redaction import without_secrets
from finetune_monitor.base.text import counted, visible
from finetune_monitor.base.versions import device_name
from finetune_monitor.record.grid import PromptGrid, sampling_in_words
from finetune_monitor.sinks.console import page_of, tensorboard_command
from finetune_monitor.training.compiling import Compiling
from finetune_monitor.training.config import Config

WIDTH = 11
"""Characters of a line before its text."""

ENCODERS = {1: " and the text encoder", 2: " and both text encoders"}

PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}


def before_loading(config: Config, photos: int, device: torch.device, step: int) -> Iterator[str]:
    """The lines on the model, the photos, the device, and the run directory.

    Args:
        photos: their number.
        step: from which the run resumes; 0 for a new one.
    """
    data, processes = config.data, distributed.world_size()
    yield _line("model:", config.model)
    yield _line("photos:", f"{photos} in {data.instance_images}{_class_images(config)}")
    shared = f", {processes} processes" if processes > 1 else ""
    yield _line("device:", f"{device_name(device)}, {PRECISIONS[config.train.mixed_precision]}{shared}")
    if config.monitor.enabled:
        yield _line("images:", _images(config.prompt_grid))
    yield _line("output:", f"{config.output_dir}{f', resuming at step {step}' if step else ''}")
    for label, place in zip(("watch:", "", ""), _places(config), strict=False):
        yield _line(label, place)


def before_training(
    config: Config, trained: int, frozen: int, compiling: Compiling, encoders: int = 1
) -> Iterator[str]:
    """The lines on what is trained, and for how long, and on whether it is compiled, if that was left to us.

    Args:
        trained: the number of parameters with gradients.
        frozen: the number of the others.
        encoders: the number of text encoders that the model has.
    """
    train = config.train
    parts = "the UNet" + (ENCODERS[encoders] if train.text_encoder else "")
    kind = f"LoRA of rank {train.rank} for {parts}" if train.method == "lora" else f"all weights of {parts}"
    images = train.batch_size * train.gradient_accumulation * distributed.world_size()
    steps = f"{train.max_steps:,} steps of {counted(images, 'photo')}"
    evaluations = f", evaluated every {config.monitor.every:,}" if config.monitor.enabled else ", without evaluations"
    yield _line("training:", f"{kind}: {trained:,} of {trained + frozen:,} parameters; {steps}{evaluations}")
    if compiling.why:
        yield _line("compiled:", f"{'yes' if compiling.is_on else 'no'}: {compiling.why}")


def _images(grid: PromptGrid) -> str:
    """What an evaluation renders, and what is also rendered at full quality."""
    full = grid.at_full_quality.steps
    more = f"; the best and the last step in {full} steps, too" if full != grid.steps else ""
    return f"{counted(len(grid.cells), 'image')} per evaluation, {sampling_in_words(grid)}{more}"


def _class_images(config: Config) -> str:
    data = config.data
    if not config.prior_preservation:
        return ""
    return f", and {counted(data.class_count, 'class image')} in {data.class_images}"


def _places(config: Config) -> Iterator[str]:
    """Where to see the run while it trains."""
    if not config.monitor.enabled:
        return
    chosen = config.monitor.sinks.chosen
    yield f"finetune-monitor watch {shlex.quote(str(config.output_dir))}"
    if "tensorboard" in chosen:
        yield tensorboard_command(config.output_dir)
    if "report" in chosen:
        yield f"{page_of(config.output_dir)} (after the first evaluation)"


def _line(label: str, text: str) -> str:
    return visible(without_secrets(f"{label:<{WIDTH}}{text}"))
