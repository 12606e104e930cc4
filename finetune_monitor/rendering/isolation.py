"""Borrow a model during training, and restore its state afterwards."""

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, list)
"""The containers in which modules keep submodules, hooks, and adapters; frozen and other containers are not touched."""


@runtime_checkable
class Parts(Protocol):
    """Anything with named components, such as a diffusers pipeline."""

    @property
    def components(self) -> Mapping[str, Any]: ...


class _Kept:
    """The saved state of one module: its attributes (modes, flags, adapters, hooks), parameters, and buffers."""

    def __init__(self, part: nn.Module) -> None:
        self.part = part
        self.attributes = dict(vars(part))
        self.contents = [
            (each, each.copy() if each else ()) for each in vars(part).values() if type(each) in CONTAINERS
        ]
        own = [parameter for parameter in part._parameters.values() if parameter is not None]
        self.parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in own]
        tensors = [*own, *(parameter.grad for parameter in own if parameter.grad is not None)]
        self.memory = [(tensor, tensor.data) for tensor in tensors]

    def put_stand_ins(self, known: dict[nn.Parameter, nn.Parameter]) -> None:
        """Substitute parameters that share the memory: conversions then do not reach the trained ones or their hooks.

        A parameter that changes its type, even briefly, loses the hooks through which processes exchange gradients.
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
            if container or content:  # most of a module's containers are empty and stay empty
                _refill(container, content)
        for tensor, data in self.memory:
            if not _is_same_memory(tensor.data, data):
                tensor.data = data
        for parameter, requires_grad, grad in self.parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _refill(container: dict[Any, Any] | list[Any], content: Iterable[Any]) -> None:
    """Restore the content of the same container object, because the handles of hooks refer to it."""
    container.clear()
    if isinstance(container, dict):
        container.update(content)
    else:
        container.extend(content)


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share memory in the same layout, including device, type, and memory format."""
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.stride() == b.stride() and a.device == b.device


@contextmanager
def modules_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore every submodule on exit: modes, flags, adapters, hooks, types, devices, and memory formats.

    Modules that were moved or converted get their original tensors back; values written into those are not undone.
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
    """Restore the state of Python's, NumPy's, and torch's generators on exit, including those of every CUDA device."""
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
def torch_settings_kept() -> Iterator[None]:
    """Restore torch's default type, its number of threads, and its choice of algorithms on exit.

    Code of the user's that changes them, such as a metric that computes in double precision, would change the training.
    """
    dtype, threads, algorithms = torch.get_default_dtype(), torch.get_num_threads(), _algorithms()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if _algorithms() != algorithms:
            torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])


def _algorithms() -> tuple[bool, bool]:
    """Whether torch uses only deterministic algorithms, and whether it only warns of others."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def process_kept() -> Iterator[None]:
    """Restore what all code of the process shares: random generators and torch's settings."""
    with random_state_kept(), torch_settings_kept():
        yield


@contextmanager
def autocast_apart(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leave the training loop's autocast, if there is one.

    Its cache is cleared too: otherwise the next training step would use weights that were cast here without gradients.
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
def isolated(pipeline: Parts) -> Iterator[None]:
    """Run a pipeline's modules in eval mode without gradients, and restore everything on exit, even after an error.

    Gradients are off, but torch's inference mode is not used: the next training step could not use what a module caches
    in its forward pass, such as position tables.
    """
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    with process_kept(), modules_kept(modules), autocast_apart(modules), torch.no_grad():
        for module in modules:
            module.eval()
        yield
