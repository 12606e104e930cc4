"""Whether a run compiles: as asked, or where it pays."""

import pytest
import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.training import compiling
from finetune_monitor.training.compiling import BREAK_EVEN, decide

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "steps", "missing", "is_on", "why"),
    [
        (CPU, 100_000, [], False, "on a CPU, it rarely pays within a run"),
        (GPU, BREAK_EVEN - 1, [], False, "4,999 steps are left, and it pays from 5,000 on"),
        (GPU, BREAK_EVEN, ["the compiler gcc"], False, "it needs the compiler gcc"),
        (GPU, BREAK_EVEN, [], True, "5,000 steps are left, and it pays from 5,000 on"),
    ],
)
def test_auto_compiles_where_it_pays(device, steps, missing, is_on, why, monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: missing)
    found = decide("auto", device, steps)
    assert (found.is_on, found.why) == (is_on, why)


@pytest.mark.parametrize("begun", [True, False])
def test_a_resumed_run_keeps_what_was_decided(begun, monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: [])
    assert decide("auto", GPU, BREAK_EVEN, begun).is_on is begun
    assert decide("auto", CPU, 1, begun).is_on is begun


def test_a_resumed_run_is_not_compiled_where_it_cannot_be(monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: ["the compiler gcc"])
    found = decide("auto", GPU, BREAK_EVEN, begun=True)
    assert (found.is_on, found.why) == (False, "it needs the compiler gcc")


def test_what_is_asked_for_is_done_on_any_device(monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: [])
    assert decide(True, CPU, 1, begun=False).is_on
    assert not decide(False, GPU, BREAK_EVEN, begun=True).is_on


def test_what_is_asked_for_and_cannot_be_is_an_error(monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: ["the package triton", "the compiler gcc"])
    with pytest.raises(UserError, match="needs the package triton and the compiler gcc; or set it to false"):
        decide(True, GPU, BREAK_EVEN)
    assert not decide(False, GPU, BREAK_EVEN).is_on


def test_a_process_that_cannot_compile_decides_for_all(monkeypatch):
    monkeypatch.setattr(compiling, "missing_for", lambda device: [])
    monkeypatch.setattr(compiling.distributed, "gather", lambda own: [own, "it needs the compiler gcc"])
    assert not decide("auto", GPU, BREAK_EVEN).is_on
