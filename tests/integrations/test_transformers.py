"""The callback of transformers' Trainer: it evaluates, counts optimizer steps, stops, and resumes."""

import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments

from finetune_monitor import Divergence
from finetune_monitor.integrations.transformers import MonitorCallback
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from support.loops import GRID, AtStep, Brightness, Denoiser, Latents, steps_of
from support.tiny import stable_diffusion


@pytest.fixture
def train(tmp_path):
    """Train a new pipeline for some steps; returns the callback."""

    def run(max_steps: int, resume: bool = False, rate: float = 1e-3, others=(), **settings) -> MonitorCallback:
        pipe = stable_diffusion()
        callback = MonitorCallback(pipe, GRID, [Brightness()], tmp_path / "run", every=2, **settings)
        arguments = TrainingArguments(
            str(tmp_path / "trainer"),
            max_steps=max_steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            learning_rate=rate,
            save_steps=2,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(Denoiser(pipe), arguments, train_dataset=Latents(), callbacks=[callback, *others])
        trainer.train(resume_from_checkpoint=resume)
        return callback

    return run


@pytest.mark.slow
def test_optimizer_steps_are_evaluated_and_a_resumed_run_goes_on(train, tmp_path):
    first = train(4)
    assert steps_of(first.monitor) == [0, 2, 4]
    assert first.monitor.evaluations[1].epoch == 0.5  # two of four steps, of two batches each
    assert read_run(tmp_path / "run").reason == StopReason.MAX_STEPS
    train(6, resume=True)
    found = read_run(tmp_path / "run")
    assert [each.step for each in found.evaluations] == [0, 2, 4, 6]
    assert found.evaluations[:3] == first.monitor.evaluations


@pytest.mark.slow
def test_a_rule_ends_the_training(train, tmp_path):
    callback = train(8, stopping=AtStep(2))
    assert steps_of(callback.monitor) == [0, 2]
    assert read_run(tmp_path / "run").reason == "it is time"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_it_too(train):
    callback = train(8, rate=1e30, stopping=Divergence("brightness"))
    assert callback.monitor.decision.reason == StopReason.DIVERGENCE
    assert "the loss is" in callback.monitor.decision.detail


class Ends(TrainerCallback):
    """Ends the training after the first step."""

    def on_step_end(self, args, state, control, **others):
        control.should_training_stop = True


@pytest.mark.slow
def test_a_training_that_another_callback_ends_did_not_reach_its_last_step(train, tmp_path):
    train(8, others=[Ends()])
    assert read_run(tmp_path / "run").reason is None
