"""Apply torch.compile to the UNet, check that this machine has what it needs, and decide whether it pays."""

import os
import shutil
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError

AUTO, AS_BEGUN = "auto", "as the run was begun"

BREAK_EVEN = 5_000
"""Steps from which on compiling pays, with `auto`. Measured with the demo's models on two CPU cores: compiling takes
75 s, and then saves 14 ms per step at batch 1 (5,300 steps) and 19 ms at batch 4 (4,100). Not measured on a GPU."""


@dataclass(frozen=True)
class Compiling:
    """Whether to compile, and why; "" if the config says so."""

    is_on: bool
    why: str = ""


NOT_ASKED = Compiling(False)


def compile_in_place(model: nn.Module) -> None:
    """Compile a module's call; its parameters keep their names, and everything that shares the module shares the code.

    Each shape gets its own graph, so that training does not depend on other uses of the module: with dynamic shapes,
    the images that the monitor renders would change the compiled training code.
    """
    warnings.filterwarnings(
        "ignore", "Dynamo detected a call to a `functools.lru_cache`"
    )  # from diffusers' version checks
    model.compile(dynamic=False)


def decide(asked: bool | Literal["auto"], device: torch.device, steps: int, begun: bool | None = None) -> Compiling:
    """Whether to compile: as asked; `auto` decides once for a run, and for all processes alike.

    Args:
        steps: those that are left.
        begun: what a resumed run was begun with.

    Raises:
        UserError: compiling was asked for, and something is missing.
    """
    if asked == AUTO:
        return _weighed(device, steps, begun)
    if missing := missing_for(device) if asked else []:
        raise UserError(f"train.compile=true: needs {' and '.join(missing)}; or set it to false")
    return Compiling(bool(asked))


def _weighed(device: torch.device, steps: int, begun: bool | None) -> Compiling:
    """What `auto` decides; a process that cannot compile decides for all."""
    lengths = f"{steps:,} steps are left, and it pays from {BREAK_EVEN:,} on"
    missing = missing_for(device)
    reasons = {
        AS_BEGUN: begun is False,
        "on a CPU, it rarely pays within a run": begun is None and device.type != "cuda",
        lengths: begun is None and steps < BREAK_EVEN,
        f"it needs {' and '.join(missing)}": bool(missing),
    }
    against = next((reason for reason, holds in reasons.items() if holds), "")
    against = next(filter(None, distributed.gather(against)), "")
    return Compiling(not against, against or (AS_BEGUN if begun else lengths))


def missing_for(device: torch.device) -> list[str]:
    """What the first compiled step would need and does not find."""
    missing = []
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cuda":
        compiler = os.environ.get("CC") or "gcc"
        if find_spec("triton") is None:
            missing.append("the package triton (pip install triton)")
    if shutil.which(compiler) is None:
        missing.append(f"the compiler {compiler} (install it, or name another in CXX or, for a GPU, CC)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("Python's headers (the package python3-dev of many systems)")
    return missing
