"""Photos as latents: encoded once before training, or by each step from files that worker processes read ahead."""

import itertools
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.images import read_image
from finetune_monitor.training.data import Photos, batch_indices

logger = logging.getLogger(__name__)

CACHE_LIMIT = 2**30
"""Bytes that `auto` gives to a cache: 8000 views at 512 px. Not a share of the free memory, which would let a
resumed run decide otherwise than the run it continues."""


@runtime_checkable
class Latents(Protocol):
    """Photos in latent space; `turn` counts the batches of all processes from the start of the training."""

    def __len__(self) -> int:
        """How many photos there are."""
        ...

    def draw(self, turn: int, generator: torch.Generator) -> Float[Tensor, "b 4 h w"]:
        """Sampled latents of that turn's photos, scaled as the UNet expects; does not wait for the device."""
        ...

    def close(self) -> None:
        """End the worker processes, where there are any."""
        ...


def open_latents(
    vae: AutoencoderKL, photos: Photos, batch_size: int, caching: str, workers: int, label: str = "photos"
) -> Latents:
    """Latents as `train.cache_latents` says: `always` cached, `never`, or (`auto`) where they fit `CACHE_LIMIT`."""
    size = cache_size(vae, photos)
    if caching == "auto" and size > CACHE_LIMIT and distributed.is_main():
        logger.warning(
            "train.cache_latents=auto: %d %s in %d views each would take %.1f GiB as latents, over the bound of "
            "%.1f GiB; every step encodes its own, which is slower (always caches them all the same)",
            len(photos.paths),
            label,
            photos.views.copies,
            size / 2**30,
            CACHE_LIMIT / 2**30,
        )
    if caching == "always" or (caching == "auto" and size <= CACHE_LIMIT):
        return cache_latents(vae, photos, batch_size, label)
    return FreshLatents(vae, photos, batch_size, workers)


def cache_size(vae: AutoencoderKL, photos: Photos) -> int:
    """Bytes of mean and deviation in fp32 of every view of every photo."""
    side = photos.views.resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    size: int = 2 * 4 * vae.config.latent_channels * side * side * photos.views.copies * len(photos.paths)
    return size


@dataclass(frozen=True)
class CachedLatents:
    """Mean and deviation of the VAE's posterior for every view of every photo."""

    mean: Float[Tensor, "n copies 4 h w"]
    std: Float[Tensor, "n copies 4 h w"]
    scaling: float
    seed: int
    batch_size: int

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, turn: int, generator: torch.Generator) -> Float[Tensor, "b 4 h w"]:
        """Sample latents of the turn's photos, a random view of each."""
        device = self.mean.device
        indices = torch.tensor(batch_indices(self.seed, turn * self.batch_size, len(self), self.batch_size))
        if device.type == "cuda":
            indices = indices.pin_memory()  # a copy from other memory waits until the device has caught up
        rows = indices.to(device, non_blocking=True)
        views = torch.randint(self.mean.shape[1], (len(indices),), generator=generator, device=device)
        return _sample(self.mean[rows, views], self.std[rows, views], generator) * self.scaling

    def close(self) -> None:
        """Nothing is open."""


@torch.no_grad()
def cache_latents(vae: AutoencoderKL, photos: Photos, batch_size: int, label: str = "photos") -> CachedLatents:
    """Encode every view of every photo once."""
    means, stds = [], []
    bar = tqdm(photos.paths, desc=f"encoding {label}", unit="image", leave=False, disable=not distributed.is_main())
    for index, path in enumerate(bar):
        views = photos.views.all(read_image(path), [photos.seed, index])
        posteriors = [vae.encode(view[None].to(vae.device, vae.dtype)).latent_dist for view in views]  # memory for one
        means.append(torch.cat([posterior.mean.float() for posterior in posteriors]))
        stds.append(torch.cat([posterior.std.float() for posterior in posteriors]))
    return CachedLatents(torch.stack(means), torch.stack(stds), vae.config.scaling_factor, photos.seed, batch_size)


class FreshLatents:
    """Latents encoded by the step that needs them; workers read and cut the photos of the next steps meanwhile."""

    def __init__(self, vae: AutoencoderKL, photos: Photos, batch_size: int, workers: int):
        self.vae = vae
        self.photos = photos
        self.batch_size = batch_size
        self.workers = min(workers, os.cpu_count() or 1)
        self._batches: Iterator[Tensor] = iter(())
        self._next: int | None = None

    def __len__(self) -> int:
        return len(self.photos.paths)

    @torch.no_grad()
    def draw(self, turn: int, generator: torch.Generator) -> Float[Tensor, "b 4 h w"]:
        """Encode the turn's photos, each in a view of its own, and sample."""
        if turn != self._next:
            self._batches = self._read_from(turn)
        pixels = next(self._batches).to(self.vae.device, self.vae.dtype, non_blocking=True)
        self._next = turn + distributed.world_size()
        posterior = self.vae.encode(pixels).latent_dist
        factor: float = self.vae.config.scaling_factor
        return _sample(posterior.mean.float(), posterior.std.float(), generator) * factor

    def close(self) -> None:
        """Let go of the loader's iterator, which ends its workers."""
        self._batches, self._next = iter(()), None

    def _read_from(self, first: int) -> Iterator[Tensor]:
        """Pixels of every turn of this process from `first` on, read ahead."""
        turns = itertools.count(first, distributed.world_size())
        loader = DataLoader(
            self.photos,
            batch_sampler=([turn * self.batch_size + i for i in range(self.batch_size)] for turn in turns),
            num_workers=self.workers,
            pin_memory=self.vae.device.type == "cuda",
            multiprocessing_context="spawn" if self.workers else None,  # a fork would copy CUDA's and tokenizers' state
            generator=torch.Generator(),  # or it would draw from the one that dropout draws from
        )
        return _started_deaf(loader) if self.workers else iter(loader)


def _started_deaf(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """Start workers that Ctrl-C and SIGTERM do not reach: the step that is running still needs their photos."""
    resource_tracker.ensure_running()  # its start would lift the mask that the workers are to inherit
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sample(
    mean: Float[Tensor, "b 4 h w"], std: Float[Tensor, "b 4 h w"], generator: torch.Generator
) -> Float[Tensor, "b 4 h w"]:
    return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
