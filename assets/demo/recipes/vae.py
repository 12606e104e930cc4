"""Trains the autoencoder between 64-pixel images and 16 x 16 latents."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange

import crops
import portraits as p

STEPS = 2500
BATCH = 16
KL_WEIGHT = 1e-6


def make_vae() -> AutoencoderKL:
    """Makes an untrained autoencoder with four latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
    )


def gradients(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighboring pixels, across and down."""
    return batch[..., 1:] - batch[..., :-1], batch[..., 1:, :] - batch[..., :-1, :]


def image_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Compares images by their values and by their edges."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(gradients(made), gradients(wanted), strict=True))
    return F.l1_loss(made, wanted) + F.mse_loss(made, wanted) + edges


def train(sampler: crops.CropSampler, work: Path) -> AutoencoderKL:
    """Trains on random crops and returns the averaged autoencoder."""
    torch.manual_seed(0)
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.99), fused=True)
    schedule = crops.one_cycle(optimizer, 1.5e-3, STEPS)
    average = crops.Average(vae)
    for step in (progress := trange(STEPS, desc="vae")):
        wanted = sampler.batch(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(wanted).latent_dist
            made = vae.decode(latents.sample()).sample.float()
        loss = image_loss(made, wanted) + KL_WEIGHT * latents.kl().float().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update(vae, step)
        if step % 100 == 99:
            progress.set_postfix(loss=f"{loss.item():.4f}", psnr=f"{crops.psnr(made.detach(), wanted):.1f}")
        if step % 500 == 499:
            torch.save(average.weights, work / "vae.pt")
    vae.load_state_dict(average.weights)
    return vae.eval()


@torch.no_grad()
def set_scale(vae: AutoencoderKL, sampler: crops.CropSampler) -> None:
    """Writes into the config the factor that gives latents a standard deviation of one."""
    latents = vae.encode(sampler.batch(256, generic=0)).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))


def main() -> None:
    options = p.arguments()
    sampler = crops.CropSampler(options.portraits, p.find_faces(options.portraits, options.work))
    vae = train(sampler, options.work)
    set_scale(vae, sampler)
    vae.save_pretrained(options.work / "vae")


if __name__ == "__main__":
    main()
