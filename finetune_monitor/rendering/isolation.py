"""Borrow a model in the middle of its training, and give everything back."""

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, list)
"""Where modules keep their parts, hooks and adapters; frozen and other kinds of containers are not touched."""


class _Kept:
    """What one module was: its attributes (modes, flags, adapters, hooks), parameters and buffers."""

    def __init__(self, part: nn.Module) -> None:
        self.part = part
        self.attributes = dict(vars(part))
        self.contents = [(value, value.copy()) for value in vars(part).values() if type(value) in CONTAINERS]
        own = [parameter for parameter in part._parameters.values() if parameter is not None]
        self.parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in own]
        tensors = [*own, *(parameter.grad for parameter in own if parameter.grad is not None)]
        self.memory = [(tensor, tensor.data) for tensor in tensors]

    def put_stand_ins(self, known: dict[nn.Parameter, nn.Parameter]) -> None:
        """Other parameters over the same memory: conversions do not reach the trained ones, nor what hangs on them.

        A parameter that changes its type, if only for a moment, loses the hooks by which processes exchange gradients.
        """
        for name, parameter in self.part._parameters.items():
            if type(parameter) is nn.Parameter:
                stand_in = known.setdefault(parameter, nn.Parameter(parameter.data, parameter.requires_grad))
                self.part._parameters[name] = stand_in

    def give_back(self) -> None:
        for name in vars(self.part).keys() - self.attributes.keys():
            del vars(self.part)[name]
        vars(self.part).update(self.attributes)
        for container, content in self.contents:
            if container or content:  # most of a module's are empty, and stay so
                _refill(container, content)
        for tensor, data in self.memory:
            if not _is_same_memory(tensor.data, data):
                tensor.data = data
        for parameter, requires_grad, grad in self.parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _refill(container: dict | list, content: dict | list) -> None:
    """Put the content back into the very container, which hooks' handles refer to."""
    container.clear()
    if isinstance(container, dict):
        container.update(content)
    else:
        container.extend(content)


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    """Same numbers in the same place and order: device, type and memory format included."""
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.stride() == b.stride() and a.device == b.device


@contextmanager
def modules_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give back every submodule as it was: modes, flags, adapters, hooks, types, devices and memory formats.

    What was moved or converted gets its old tensors again, exact to the bit; numbers written into them are not undone.
    """
    before = [_Kept(part) for module in modules for part in module.modules()]
    stand_ins: dict[nn.Parameter, nn.Parameter] = {}
    try:
        for kept in before:
            kept.put_stand_ins(stand_ins)
        yield
    finally:
        for kept in before:
            kept.give_back()


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give back the state of Python's, NumPy's and torch's generators, those of every CUDA device included."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def autocast_apart(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leave the training's autocast, where there is one.

    Its cache is emptied too: weights that are cast here, without gradients, would be used by the next training step.
    """
    devices = {parameter.device.type for module in modules for parameter in module.parameters()}
    with ExitStack() as outside:
        for device in filter(torch.amp.is_autocast_available, devices):
            if torch.is_autocast_enabled(device):
                outside.enter_context(torch.autocast(device, enabled=False))
        torch.clear_autocast_cache()
        try:
            yield
        finally:
            torch.clear_autocast_cache()


@contextmanager
def isolated(pipeline: Any) -> Iterator[None]:
    """A pipeline's modules in eval mode and without gradients; afterwards all is as it was, also after an error.

    Without gradients, but not in torch's inference mode: what a live module remembers from its forward pass (tables of
    positions, say) could then not be used by the next training step.
    """
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    with random_state_kept(), modules_kept(modules), autocast_apart(modules), torch.no_grad():
        for module in modules:
            module.eval()
        yield
