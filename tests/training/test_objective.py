"""The loss against its formulas and against diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler

from finetune_monitor.models.prediction import target
from finetune_monitor.training.loop import learning_rate_factor
from finetune_monitor.training.objective import denoising_loss, min_snr_weights


def scheduler(kind: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)


def test_the_target_is_what_the_model_was_trained_to_predict():
    latents, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    assert torch.equal(target(scheduler(), latents, noise, t), noise)
    alpha = scheduler().alphas_cumprod[t].view(-1, 1, 1, 1)
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    torch.testing.assert_close(target(scheduler("v_prediction"), latents, noise, t), velocity)
    with pytest.raises(ValueError, match="sample"):
        target(scheduler("sample"), latents, noise, t)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_the_paper(kind):
    t = torch.tensor([0, 200, 999])
    alpha = scheduler().alphas_cumprod[t]
    snr = alpha / (1 - alpha)
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr if kind == "epsilon" else snr + 1)
    torch.testing.assert_close(min_snr_weights(scheduler(kind), t, 5.0), expected)


def test_class_images_are_weighted_apart_from_the_subject():
    predicted, wanted = torch.zeros(4, 4, 2, 2), torch.zeros(4, 4, 2, 2)
    wanted[0] = 1.0  # subject: mean of (1, 0)
    wanted[2:] = 2.0  # class: 4 each
    assert denoising_loss(predicted, wanted, None, 2, 0.25).item() == pytest.approx(0.5 + 0.25 * 4)
    assert denoising_loss(predicted[:2], wanted[:2], None, 2, 0.25).item() == pytest.approx(0.5)
    weights = torch.tensor([3.0, 1.0, 0.0, 0.0])
    assert denoising_loss(predicted, wanted, weights, 2, 0.25).item() == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_learning_rates_follow_diffusers_schedules(name):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name, optimizer, num_warmup_steps=5, num_training_steps=40
    ).lr_lambdas[0]
    for step in range(1, 41):
        assert learning_rate_factor(name, step, 5, 40) == pytest.approx(theirs(step), abs=1e-9)
