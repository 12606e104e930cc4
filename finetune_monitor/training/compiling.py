"""Apply torch.compile to the UNet, and check that this machine has what it needs."""

import os
import shutil
import sys
import sysconfig
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from finetune_monitor.base.errors import UserError


def compile_in_place(model: nn.Module) -> None:
    """Compile a module's call; its parameters keep their names, and everything that shares the module shares the code.

    Each shape gets its own graph, so that training does not depend on other uses of the module: with dynamic shapes,
    the images that the monitor renders would change the compiled training code.
    """
    warnings.filterwarnings(
        "ignore", "Dynamo detected a call to a `functools.lru_cache`"
    )  # from diffusers' version checks
    model.compile(dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Check for problems that would make the first compiled step fail.

    Raises:
        UserError: lists what is missing.
    """
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
    if missing:
        raise UserError(f"train.compile=true: needs {' and '.join(missing)}; or set it to false")
