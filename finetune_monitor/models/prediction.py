"""What a denoising model was trained to predict: the noise, or the velocity."""

from diffusers import DDPMScheduler
from jaxtyping import Float, Int64
from torch import Tensor


def target(
    scheduler: DDPMScheduler, latents: Float[Tensor, "b 4 h w"], noise: Float[Tensor, "b 4 h w"], t: Int64[Tensor, "b"]
) -> Float[Tensor, "b 4 h w"]:
    """The UNet's training target: the noise or the velocity (Salimans and Ho 2022), depending on the model.

    Raises:
        ValueError: the model's scheduler has a different prediction type.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, t)
        return velocity
    raise ValueError(f"prediction_type: found {kind!r}, expected epsilon or v_prediction")
