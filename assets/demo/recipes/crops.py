"""Cuts and disturbs batches of training images, so that a few hundred portraits go a long way."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import portraits as p


class CropSampler:
    """Cuts random 64-pixel squares out of the portraits, most of them around the face."""

    def __init__(self, folder: Path, faces: list[p.Face], seed: int = 0) -> None:
        self.images = p.to_tensor([p.load(folder, face).resize((p.SIDE, p.SIDE)) for face in faces])
        self.centers = torch.tensor([face.center for face in faces])
        self.sizes = torch.tensor([face.size for face in faces])
        self.random = torch.Generator().manual_seed(seed)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=self.random) * (high - low) + low

    def batch(self, count: int, generic: float = 0.25) -> Tensor:
        """Gives crops between -1 and 1, with other light and colors; a share of them lies anywhere in the image."""
        index = torch.randint(len(self.images), (count,), generator=self.random)
        anywhere = torch.rand(count, generator=self.random) < generic
        sizes = self.sizes[index]
        side = torch.where(anywhere, self.uniform((count,), 40, 150), sizes * self.uniform((count,), 0.75, 1.45))
        near = self.centers[index] + self.uniform((count, 2), -0.12, 0.12) * sizes[:, None]
        far = self.uniform((count, 2), 30, p.SIDE - 30)
        center = torch.where(anywhere[:, None], far, near)
        angle = self.uniform((count,), -0.25, 0.25) + anywhere * self.uniform((count,), -1.5, 1.5)
        images = self.images[index].float() / 127.5 - 1
        return change_light(self.cut(images, center, side, angle), self.random)

    def framed(self, index: Tensor, factor: float) -> Tensor:
        """Gives the chosen faces framed as the demo's images are, some in gray and some in another light."""
        count, sizes = len(index), self.sizes[index]
        side = (sizes * factor * self.uniform((count,), 0.95, 1.05)).clamp(max=p.SIDE)
        center = self.centers[index] + self.uniform((count, 2), -0.04, 0.04) * sizes[:, None]
        center = center.clamp(min=side[:, None] / 2, max=p.SIDE - side[:, None] / 2)
        images = self.images[index].float() / 127.5 - 1
        batch = self.cut(images, center, side, self.uniform((count,), -0.08, 0.08))
        gray = torch.rand(count, 1, 1, 1, generator=self.random) < 0.2
        lit = torch.rand(count, 1, 1, 1, generator=self.random) < 0.4
        batch = torch.where(gray, batch.mean(1, keepdim=True), batch)
        gain = torch.where(lit, self.uniform((count, 1, 1, 1), 0.6, 1.25), 1.0)
        return ((batch + 1) * gain - 1).clamp(-1, 1)

    def cut(self, images: Tensor, center: Tensor, side: Tensor, angle: Tensor) -> Tensor:
        """Samples one turned square of 64 pixels from each image, half of them mirrored."""
        mirror = torch.where(torch.rand(len(side), generator=self.random) < 0.5, -1.0, 1.0)
        scale = side / p.SIDE
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        shift = center / p.SIDE * 2 - 1
        rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [len(side), 3, 128, 128], align_corners=False)
        sampled = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        return F.avg_pool2d(sampled, 2)


def change_light(batch: Tensor, random: torch.Generator) -> Tensor:
    """Changes contrast, brightness, tint and, for some images, the strength of the colors."""

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(len(batch), channels, 1, 1, generator=random) * (high - low) + low

    gray = batch.mean(1, keepdim=True)
    plain = torch.rand(len(batch), 1, 1, 1, generator=random) < 0.5
    strength = torch.where(plain, 1.0, uniform(0.0, 1.8))
    colored = gray + (batch - gray) * strength
    tint = 1 + torch.where(plain, 0.0, 1.0) * uniform(-0.15, 0.15, 3)
    return (colored * uniform(0.75, 1.2) * tint + uniform(-0.2, 0.2)).clamp(-1, 1)


def one_cycle(optimizer: torch.optim.Optimizer, top: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Warms the learning rate up to its top and lets it fall to almost nothing."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, top, total_steps=steps, pct_start=0.1)


class Average:
    """Keeps a moving average of a model's weights, which gives better images than the last weights."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.995) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        decay = min(self.decay, 1 - 1 / (step + 2))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


def psnr(first: Tensor, second: Tensor) -> float:
    """Mean peak signal-to-noise ratio in decibels of images between -1 and 1."""
    error = ((first - second) / 2).square().flatten(1).mean(1)
    return (-10 / math.log(10) * error.log()).mean().item()
