"""The launcher's environment contradicts the config: the config is used with a warning, or the run is refused."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend

from finetune_monitor.base.errors import UserError
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.launcher import ACCUMULATION, COMPILER, PRECISION, make_accelerator


@pytest.fixture(autouse=True)
def _as_a_new_process():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def made(**train) -> Accelerator:
    accelerator, problems = make_accelerator(TrainConfig(**train))
    assert not problems
    return accelerator


CONTRADICTIONS = {
    "precision": ({PRECISION: "bf16"}, {}, "train.mixed_precision=no"),
    "another precision": ({PRECISION: "FP16"}, {"mixed_precision": "bf16"}, "train.mixed_precision=bf16"),
    "accumulation": ({ACCUMULATION: "4"}, {"gradient_accumulation": 2}, "train.gradient_accumulation=2"),
    "accumulation in the launcher alone": ({ACCUMULATION: "4"}, {}, "train.gradient_accumulation=1"),
    "accumulation that is no number": ({ACCUMULATION: "many"}, {}, "train.gradient_accumulation=1"),
    "compiler": ({COMPILER: "INDUCTOR"}, {}, "train.compile=auto"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_the_config_is_used_and_that_is_said(case, monkeypatch, caplog):
    environment, train, said = CONTRADICTIONS[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    accelerator = made(**train)
    config = TrainConfig(**train)
    assert accelerator.mixed_precision == config.mixed_precision
    assert accelerator.gradient_accumulation_steps == config.gradient_accumulation
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert caplog.text.count(said) == 1
    assert f"found {next(iter(environment))}=" in caplog.text


@pytest.mark.parametrize(
    ("environment", "train"),
    [
        ({}, {}),
        ({PRECISION: "no", ACCUMULATION: "1", COMPILER: "no"}, {"mixed_precision": "bf16", "gradient_accumulation": 3}),
        ({PRECISION: "bf16", ACCUMULATION: "3"}, {"mixed_precision": "bf16", "gradient_accumulation": 3}),
        ({COMPILER: "inductor"}, {"compile": True}),
    ],
    ids=["nothing set", "the launcher's defaults", "the same as the config", "both compile"],
)
def test_nothing_is_said_where_nothing_contradicts(environment, train, monkeypatch, caplog):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made(**train)
    assert not caplog.text


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "a parallelism config"),
    ],
)
def test_sharded_training_is_refused_whether_or_not_its_library_is_installed(variable, name, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(UserError, match=f"accelerate launch: found {name}, expected one GPU or data parallelism"):
        made()
