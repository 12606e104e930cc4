"""Photos as latents: encoded once before training, or in each step from files that worker processes prefetch."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int64
from PIL.Image import Image
from torch import Tensor
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.progress import is_live
from finetune_monitor.training.data import Batches, Photos
from finetune_monitor.training.readers import PhotoReader

logger = logging.getLogger(__name__)

CACHE_LIMIT = 2**30
"""Maximum bytes of a cache with `auto`: 8000 views at 512 px. Not a share of free memory, to be the same on resume."""


class Drawn(NamedTuple):
    """A batch: latents, scaled as the UNet expects, and where each view was cut from (`data.Window.sizes`)."""

    latents: Float[Tensor, "b 4 h w"]
    sizes: Float[Tensor, "b 6"]


@runtime_checkable
class Latents(Protocol):
    """Photos in latent space; `turn` counts the batches of all processes from the start of the training."""

    photos: Photos

    def __len__(self) -> int:
        """The number of photos in an epoch."""
        ...

    def draw(self, turn: int, generator: torch.Generator) -> Drawn:
        """Sampled latents of that turn's photos; does not wait for the device."""
        ...

    def close(self) -> None:
        """End the worker processes, if there are any."""
        ...


def open_latents(
    vae: AutoencoderKL,
    photos: Photos,
    batch_size: int,
    caching: str,
    workers: int,
    label: str = "photos",
    decoded: dict[Path, Image] | None = None,
) -> Latents:
    """Latents according to `train.cache_latents`: cached `always`, `never`, or (`auto`) if they fit `CACHE_LIMIT`.

    Args:
        decoded: photos that need not be read; each is removed once it is encoded.
    """
    size = cache_size(vae, photos)
    if caching == "auto" and size > CACHE_LIMIT and distributed.is_main():
        logger.warning(
            "train.cache_latents=auto: %d %s in %d views each would take %.1f GiB as latents, above the limit of "
            "%.1f GiB; every step encodes its own, which is slower (set always to cache them anyway)",
            len(photos.paths),
            label,
            photos.views.copies,
            size / 2**30,
            CACHE_LIMIT / 2**30,
        )
    if caching == "always" or (caching == "auto" and size <= CACHE_LIMIT):
        return cache_latents(vae, photos, batch_size, label, decoded)
    return FreshLatents(vae, photos, batch_size, workers)


def cache_size(vae: AutoencoderKL, photos: Photos) -> int:
    """The size in bytes of mean and deviation in fp32 for every view of every photo."""
    side = photos.views.resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    size: int = 2 * 4 * vae.config.latent_channels * side * side * photos.views.copies * len(photos.paths)
    return size


def on_device(indices: Sequence[int], device: torch.device) -> Int64[Tensor, "n"]:
    """Indices on a device, which is not waited for."""
    found = torch.tensor(indices)
    if device.type == "cuda":
        found = found.pin_memory()  # copies from other memory wait until the device has caught up
    return found.to(device, non_blocking=True)


@dataclass
class CachedLatents:
    """The mean and deviation of the VAE's posterior for every view of every photo, and where it was cut from."""

    mean: Float[Tensor, "n copies 4 h w"]
    std: Float[Tensor, "n copies 4 h w"]
    sizes: Float[Tensor, "n copies 6"]
    scaling: float
    photos: Photos
    batch_size: int

    def __len__(self) -> int:
        return self.photos.epoch_length

    def draw(self, turn: int, generator: torch.Generator) -> Drawn:
        """Sampled latents of the turn's photos, with a random view of each."""
        device = self.mean.device
        indices = self.photos.indices(turn * self.batch_size, self.batch_size)
        rows = on_device(indices, device)
        views = torch.randint(self.mean.shape[1], (len(indices),), generator=generator, device=device)
        latents = _sample(self.mean[rows, views], self.std[rows, views], generator) * self.scaling
        return Drawn(latents, self.sizes[rows, views])

    def close(self) -> None:
        """Nothing to close."""


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKL,
    photos: Photos,
    batch_size: int,
    label: str = "photos",
    decoded: dict[Path, Image] | None = None,
) -> CachedLatents:
    """The cached latents, after encoding every view of every photo once."""
    known = {} if decoded is None else decoded
    means, stds, sizes = [], [], []
    hidden = not (distributed.is_main() and is_live())
    everything = range(len(photos.paths))
    for index in tqdm(everything, f"encoding {label}", unit="image", leave=False, disable=hidden):
        views = photos.all_views(index, known.pop(photos.paths[index], None))
        posteriors = [
            vae.encode(view[None].to(vae.device, vae.dtype)).latent_dist for view in views.pixels
        ]  # one at a time, to save memory
        sizes.append(views.sizes.to(vae.device))
        means.append(torch.cat([posterior.mean.float() for posterior in posteriors]))
        stds.append(torch.cat([posterior.std.float() for posterior in posteriors]))
    mean, std, cut = torch.stack(means), torch.stack(stds), torch.stack(sizes)
    return CachedLatents(mean, std, cut, vae.config.scaling_factor, photos, batch_size)


class FreshLatents:
    """Latents encoded in the step that needs them, while workers read and crop the photos of the next steps."""

    def __init__(self, vae: AutoencoderKL, photos: Photos, batch_size: int, workers: int):
        self.vae = vae
        self.photos = photos
        self._reader = PhotoReader(
            Batches(photos, batch_size), min(workers, os.cpu_count() or 1), pinned=vae.device.type == "cuda"
        )

    def __len__(self) -> int:
        return self.photos.epoch_length

    @torch.no_grad()
    def draw(self, turn: int, generator: torch.Generator) -> Drawn:
        """Sampled latents of the turn's photos, encoded now, each in its own view."""
        seen, device = self._reader.read(turn), self.vae.device
        posterior = self.vae.encode(seen.pixels.to(device, self.vae.dtype, non_blocking=True)).latent_dist
        factor: float = self.vae.config.scaling_factor
        latents = _sample(posterior.mean.float(), posterior.std.float(), generator) * factor
        return Drawn(latents, seen.sizes.to(device, non_blocking=True))

    def close(self) -> None:
        """End the worker processes."""
        self._reader.close()


def _sample(
    mean: Float[Tensor, "b 4 h w"], std: Float[Tensor, "b 4 h w"], generator: torch.Generator
) -> Float[Tensor, "b 4 h w"]:
    return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
