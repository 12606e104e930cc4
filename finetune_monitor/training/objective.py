"""The loss: denoising on the subject, prior preservation on its class, min-SNR weights."""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from jaxtyping import Float, Int64
from torch import Tensor


def min_snr_weights(scheduler: DDPMScheduler, t: Int64[Tensor, "b"], gamma: float) -> Float[Tensor, "b"]:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for velocity (Hang et al. 2023, arXiv 2303.09556, eq. 6)."""
    snr: Tensor = compute_snr(scheduler, t)
    velocity = scheduler.config.prediction_type == "v_prediction"
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def denoising_loss(
    predicted: Float[Tensor, "b 4 h w"],
    wanted: Float[Tensor, "b 4 h w"],
    weights: Float[Tensor, "b"] | None,
    subjects: int,
    prior_weight: float,
) -> Float[Tensor, ""]:
    """Mean squared error of the first `subjects` rows, plus `prior_weight` times that of the rest (the class images).

    DreamBooth, Ruiz et al. 2022 (arXiv 2208.12242), eq. 2.
    """
    losses = F.mse_loss(predicted.float(), wanted.float(), reduction="none").mean(dim=(1, 2, 3))
    if weights is not None:
        losses = losses * weights
    loss = losses[:subjects].mean()
    return loss + prior_weight * losses[subjects:].mean() if len(losses) > subjects else loss


def random_timesteps(scheduler: DDPMScheduler, count: int, generator: torch.Generator) -> Int64[Tensor, "b"]:
    """Random timesteps, uniform over the model's noise levels."""
    return torch.randint(
        scheduler.config.num_train_timesteps, (count,), generator=generator, device=generator.device, dtype=torch.int64
    )
