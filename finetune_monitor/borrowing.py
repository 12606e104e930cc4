"""Borrow a model in the middle of its training, and give everything back."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Every submodule in eval mode inside the block; afterwards each is as it was, one by one."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for part, _ in before:
            part.training = False
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give back the state of Python's, NumPy's and torch's generators, those of every CUDA device included."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def borrowed(pipeline: Any) -> Iterator[None]:
    """A pipeline's modules in eval mode and without gradients, random generators kept."""
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    with random_state_kept(), evaluation_mode(modules), torch.no_grad():
        yield
