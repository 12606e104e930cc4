"""The optimizers: which torch kernel, what a machine lacks, and that each of them learns."""

import pytest
import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.training import optimizers
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.optimizers import PACKAGES, STATE_SIZE, build, check_optimizer
from support import needs

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_every_name_of_the_config_has_a_size():
    assert set(TrainConfig.model_fields["optimizer"].annotation.__args__) == set(STATE_SIZE) >= set(PACKAGES)


@pytest.mark.parametrize("name", ["adamw", "prodigy", pytest.param("adamw8bit", marks=needs.bitsandbytes)])
def test_each_learns_and_keeps_what_the_disk_was_asked_for(name, capsys):
    weight = torch.nn.Parameter(torch.full((64, 256), 3.0))
    optimizer = build(name, [{"params": [weight], "lr": 1.0 if name == "prodigy" else 0.1}], 0.0)
    for _ in range(300):
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert weight.abs().mean() < 2.9
    state = (value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
    assert sum(value.nbytes for value in state) == pytest.approx(STATE_SIZE[name] * weight.nbytes, rel=0.1)
    assert capsys.readouterr().out == ""


def test_adamw_is_fused_where_torch_can(monkeypatch):
    group = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1}]
    assert build("adamw", group, 0.0).defaults["fused"] is True
    real = torch.optim.AdamW

    def unfused(groups, fused=None, **named):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices")
        return real(groups, **named)

    monkeypatch.setattr(optimizers, "AdamW", unfused)
    assert not build("adamw", group, 0.0).defaults["fused"]


@pytest.mark.parametrize(
    ("name", "device", "installed", "said"),
    [
        ("adamw", CPU, False, []),
        ("prodigy", CPU, True, []),
        ("prodigy", CPU, False, ["prodigyopt", "finetune_monitor[optimizers]"]),
        ("adamw8bit", GPU, True, []),
        ("adamw8bit", GPU, False, ["bitsandbytes", "finetune_monitor[optimizers]"]),
        ("adamw8bit", CPU, True, ["needs a GPU"]),
        ("adamw8bit", CPU, False, ["bitsandbytes", "needs a GPU"]),
    ],
)
def test_what_the_machine_lacks_is_said(monkeypatch, name, device, installed, said):
    monkeypatch.setattr(optimizers, "is_installed", lambda package: installed)
    if not said:
        check_optimizer(name, device)
        return
    with pytest.raises(UserError) as caught:
        check_optimizer(name, device)
    assert all(part in str(caught.value) for part in [f"train.optimizer={name}", *said])
