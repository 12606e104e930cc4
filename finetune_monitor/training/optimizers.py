"""The optimizers that a config can name: AdamW, AdamW with 8-bit moments, Prodigy."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import is_installed, needs

PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}

STATE_SIZE = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0}
"""The state of each optimizer per parameter, in fp32 numbers."""


def build(name: str, groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    """The optimizer for parameter groups with their own learning rates."""
    builders: dict[str, Callable[[list[dict[str, Any]], float], Optimizer]] = {
        "adamw": _adamw,
        "adamw8bit": _adamw8bit,
        "prodigy": _prodigy,
    }
    return builders[name](groups, weight_decay)


def check_optimizer(name: str, device: torch.device) -> None:
    """Check that this machine can run an optimizer.

    Raises:
        UserError: its package is missing, or it needs a GPU and there is none.
    """
    package = PACKAGES.get(name)
    problems = []
    if package and not is_installed(package):
        problems.append(needs(package))
    if name == "adamw8bit" and device.type != "cuda":
        problems.append("needs a GPU, found none; set it to adamw")
    if problems:
        raise UserError(f"train.optimizer={name}: " + "; ".join(problems))


def _adamw(groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    """AdamW with one fused kernel for all parameters, if torch has one for their device."""
    try:
        return AdamW(groups, weight_decay=weight_decay, fused=True)
    except RuntimeError:
        return AdamW(groups, weight_decay=weight_decay)


def _adamw8bit(groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    for parameter in (parameter for group in groups for parameter in group["params"]):
        parameter.data = parameter.data.contiguous()  # its kernels go through memory and ignore channels_last
    optimizer: Optimizer = AdamW8bit(groups, weight_decay=weight_decay)
    return optimizer


def _prodigy(groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    """Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101) with its authors' settings for diffusion models."""
    from prodigyopt import Prodigy

    with redirect_stdout(io.StringIO()):  # it prints a line about weight decay
        optimizer: Optimizer = Prodigy(
            groups, weight_decay=weight_decay, use_bias_correction=True, safeguard_warmup=True
        )
    return optimizer
