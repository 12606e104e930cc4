"""Lightning's callback: it evaluates, counts optimizer steps, stops, and resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from finetune_monitor import Divergence
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from support import needs
from support.loops import GRID, AtStep, Brightness, Denoiser, Latents, steps_of
from support.tiny import stable_diffusion

pytestmark = [
    needs.lightning,
    pytest.mark.filterwarnings("ignore::Warning:lightning"),
    pytest.mark.filterwarnings("ignore:.*num_workers.*"),
]


def module_of(pipe: Any, rate: float, manual: bool) -> Any:
    """The training as a Lightning module, which may step its optimizer itself and return no loss."""
    import lightning

    class Training(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = Denoiser(pipe)
            self.automatic_optimization = not manual

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.denoiser(**batch)["loss"]
            if not manual:
                return loss
            self.manual_backward(loss)
            self.optimizers().step()
            return None

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), rate)

    return Training()


@pytest.fixture
def train(tmp_path):
    """Train a new pipeline for some steps; returns the callback."""
    import lightning

    from finetune_monitor.integrations.lightning import MonitorCallback

    def run(
        max_steps: int, checkpoint: Path | None = None, rate: float = 1e-3, manual: bool = False, **settings: Any
    ) -> MonitorCallback:
        pipe = stable_diffusion()
        callback = MonitorCallback(pipe, GRID, [Brightness()], tmp_path / "run", every=2, **settings)
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            accumulate_grad_batches=1 if manual else 2,
            callbacks=[callback],
            default_root_dir=tmp_path,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module_of(pipe, rate, manual), DataLoader(Latents()), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return callback

    return run


@pytest.mark.slow
def test_optimizer_steps_are_evaluated_and_a_resumed_run_goes_on(train, tmp_path):
    first = train(4)
    assert steps_of(first.monitor) == [0, 2, 4]
    assert read_run(tmp_path / "run").reason == StopReason.MAX_STEPS
    train(6, tmp_path / "last.ckpt")
    found = read_run(tmp_path / "run")
    assert [each.step for each in found.evaluations] == [0, 2, 4, 6]
    assert found.evaluations[:3] == first.monitor.evaluations


def test_a_rule_ends_the_training(train, tmp_path):
    callback = train(8, stopping=AtStep(2))
    assert steps_of(callback.monitor) == [0, 2]
    assert read_run(tmp_path / "run").reason == "it is time"


def test_a_loss_that_is_not_finite_ends_it_too(train):
    callback = train(8, rate=1e30, stopping=Divergence("brightness"))
    assert callback.monitor.decision.reason == StopReason.DIVERGENCE
    assert "the loss is" in callback.monitor.decision.detail


def test_a_module_that_steps_by_itself_and_returns_nothing(train):
    assert steps_of(train(3, manual=True).monitor) == [0, 2]
