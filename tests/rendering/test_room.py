"""Larger batches where training has left memory reserved, and only there."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune_monitor import PromptGrid
from finetune_monitor.rendering import renderer as renderer_module
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.rendering.room import Room, filling
from support import tiny

GIB = 2**30


@pytest.mark.parametrize(
    ("cells", "idle", "cost", "size"),
    [
        (16, 0, GIB, 8),
        (16, 9 * GIB, GIB, 8),  # seven fit: the usual batch may raise the peak, and is halved if it does not fit
        (16, 12 * GIB, GIB, 8),  # nine fit, which takes two batches, as eight do
        (16, 20 * GIB, GIB, 16),
        (16, 500 * GIB, GIB, 16),
        (40, 20 * GIB, GIB, 14),  # sixteen fit: three batches
        (5, 500 * GIB, GIB, 8),
        (16, 500 * GIB, math.inf, 8),
        (16, 500 * GIB, 0, 8),
    ],
)
def test_a_batch_fills_the_idle_memory(cells, idle, cost, size):
    assert filling(8, cells, idle, cost) == size


class Device:
    """Stands in for torch.cuda's figures: what is allocated in a batch, the peak so far, and what is reserved."""

    allocated, peak, reserved = 2 * GIB, 3 * GIB, 4 * GIB

    def __init__(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: self.reserved)


def test_what_a_cell_takes_is_never_estimated_below_what_the_peak_shows(monkeypatch):
    device, room = Device(monkeypatch), Room(torch.device("cuda"))
    with room.watched(8):
        device.peak = 6 * GIB  # half a GiB each
    device.reserved = 14 * GIB  # a step of training has needed 12 GiB
    assert room.batch(8, 16) == 16
    with room.watched(8):
        device.peak = 14 * GIB  # of training: the cells took at most that
    assert room.batch(8, 16) == 16
    device.reserved = 8 * GIB
    assert room.batch(8, 16) == 8


def test_a_renderer_grows_after_training_and_shows_the_same_images(monkeypatch):
    grid = PromptGrid(["a photo of sks person"], range(12), steps=2, size=(32, 32))
    device, renderer = Device(monkeypatch), Renderer(tiny.stable_diffusion(), grid)
    renderer.batches.size = renderer._first = 4
    renderer._room = Room(torch.device("cuda"))
    sizes = []
    renderer.on_rendered = lambda cells, images: sizes.append(len(cells))
    with isolated(renderer.pipeline):
        first = renderer.render(grid.cells)
    device.reserved = 100 * GIB
    with isolated(renderer.pipeline):
        second = renderer.render(grid.cells)
    assert sizes == [4, 4, 4, 12]
    apart = [np.asarray(a).astype(int) - np.asarray(b) for a, b in zip(first, second, strict=True)]
    assert np.abs(apart).max() <= 1


def test_a_batch_that_was_halved_does_not_grow_again(monkeypatch):
    grid = PromptGrid(["a photo of sks person"], range(4), steps=2, size=(32, 32))
    device, renderer = Device(monkeypatch), Renderer(tiny.stable_diffusion(), grid)
    renderer._room, renderer._first = Room(torch.device("cuda")), 4
    device.reserved = 100 * GIB
    renderer.batches.size = 2
    with isolated(renderer.pipeline):
        renderer.render(grid.cells)
    assert renderer.batches.size == 2


def test_on_the_cpu_nothing_changes():
    assert Room(torch.device("cpu")).batch(8, 16) == 8


def test_batches_are_small_on_a_cpu_and_follow_a_model_that_is_moved(monkeypatch):
    grid = PromptGrid(["a photo of sks person"], [0], steps=1, size=(32, 32))
    with monkeypatch.context() as patch:
        patch.setattr(renderer_module, "device_of", lambda _: torch.device("cuda"))
        renderer = Renderer(tiny.stable_diffusion(), grid)
    assert renderer.batches.size == 8 * 512**2 // 32**2
    with isolated(renderer.pipeline):
        renderer.render(grid.cells)
    assert renderer.batches.size == 8 * 128**2 // 32**2
    assert Renderer(tiny.stable_diffusion(), replace(grid, size=(512, 512))).batches.size == 1
