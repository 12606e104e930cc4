"""Photos as cached latents, and which of them a step sees: a pure function of seed, step and rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int64
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from finetune_monitor import ranks


@dataclass(frozen=True)
class CachedLatents:
    """Mean and deviation of the VAE's posterior for every photo; `copies` holds the mirrored one where asked for."""

    mean: Float[Tensor, "n copies 4 h w"]
    std: Float[Tensor, "n copies 4 h w"]
    scaling: float

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, indices: Sequence[int], generator: torch.Generator) -> Float[Tensor, "b 4 h w"]:
        """Sample latents of the photos, a random copy of each, scaled as the UNet expects."""
        device = self.mean.device
        copies = torch.randint(self.mean.shape[1], (len(indices),), generator=generator, device=device)
        rows = torch.tensor(indices, device=device)
        mean, std = self.mean[rows, copies], self.std[rows, copies]
        noise = torch.randn(mean.shape, generator=generator, device=device)
        return (mean + std * noise) * self.scaling


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKL, photos: Sequence[Image.Image], resolution: int, flip: bool = False, label: str = "photos"
) -> CachedLatents:
    """Encode every photo once: cropped to the centre square, resized to `resolution`, mirrored too with `flip`."""
    means, stds = [], []
    for photo in tqdm(photos, desc=f"encoding {label}", unit="image", leave=False, disable=not ranks.is_main()):
        square = to_tensor(photo, resolution)
        views = torch.stack([square, square.flip(-1)] if flip else [square])
        posterior = vae.encode(views.to(vae.device, vae.dtype)).latent_dist
        means.append(posterior.mean.float())
        stds.append(posterior.std.float())
    return CachedLatents(torch.stack(means), torch.stack(stds), vae.config.scaling_factor)


def to_tensor(photo: Image.Image, resolution: int) -> Float[Tensor, "3 r r"]:
    """The centre square of a photo, RGB in [-1, 1]."""
    square = ImageOps.fit(photo, (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def batch_indices(seed: int, position: int, count: int, batch_size: int) -> list[int]:
    """Entries `position` to `position + batch_size` of an endless sequence of shuffled epochs over `count` photos.

    Being a function of the position alone it needs no state: a resumed run sees the photos it would have seen.
    """
    indices: list[int] = []
    while len(indices) < batch_size:
        epoch, offset = divmod(position + len(indices), count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        indices.extend(order[offset : offset + batch_size - len(indices)].tolist())
    return indices


def step_seed(*parts: int) -> int:
    """One 63-bit seed for a place in the training, such as (seed, step, micro step, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def tokenise(tokenizer, prompts: Sequence[str]) -> Int64[Tensor, "b t"]:
    """Token ids, padded and cut to the tokenizer's length as Stable Diffusion does."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
