"""Spoils batches of images in known ways and to a known degree, between 0 (not at all) and 1 (badly)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 6


def per_image(values: Tensor) -> Tensor:
    """Lets one number for each image work on whole images."""
    return values[:, None, None, None]


def blur(batch: Tensor, degree: Tensor) -> Tensor:
    """Blurs with a Gaussian of up to three pixels."""
    count, channels, height, width = batch.shape
    offsets = torch.arange(-REACH, REACH + 1.0)
    kernel = torch.exp(-offsets.square() / (2 * (0.05 + 3 * degree[:, None]).square()))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(batch.reshape(1, -1, height, width), [REACH] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, :, None], groups=count * channels)
    return F.conv2d(flat, kernel[..., None], groups=count * channels).view_as(batch)


def shrink(batch: Tensor, degree: Tensor) -> Tensor:
    """Makes images small, down to an eighth, and large again."""
    made = []
    for image, amount in zip(batch.split(1), degree.tolist(), strict=True):
        size = max(round(batch.shape[-1] * 0.125**amount), 4)
        small = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
        made.append(F.interpolate(small, size=batch.shape[-2:], mode="bicubic"))
    return torch.cat(made).clamp(-1, 1)


def noise(batch: Tensor, degree: Tensor) -> Tensor:
    """Adds noise to every pixel."""
    return (batch + per_image(0.7 * degree) * torch.randn_like(batch)).clamp(-1, 1)


def cosine_matrix() -> Tensor:
    """The matrix of the cosine transform of eight numbers."""
    rows, columns = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    matrix = torch.cos(math.pi * (2 * columns + 1) * rows / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def blocks(batch: Tensor, degree: Tensor) -> Tensor:
    """Rounds the cosine transform of 8 x 8 blocks, as strong JPEG compression does."""
    count, channels, height, width = batch.shape
    matrix = cosine_matrix()
    tiles = batch.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = matrix @ tiles @ matrix.T
    frequency = torch.arange(8.0)[:, None] + torch.arange(8.0)[None]
    step = (0.02 + 0.6 * degree)[:, None, None, None, None, None] * (1 + frequency / 2)
    tiles = matrix.T @ (torch.round(waves / step) * step) @ matrix
    return tiles.transpose(3, 4).reshape(batch.shape).clamp(-1, 1)


def darken(batch: Tensor, degree: Tensor) -> Tensor:
    """Takes the light away."""
    return (batch + 1) * per_image(1 - 0.9 * degree) - 1


def wash_out(batch: Tensor, degree: Tensor) -> Tensor:
    """Takes the contrast away and makes everything pale."""
    return (batch * per_image(1 - 0.9 * degree) + per_image(0.7 * degree)).clamp(-1, 1)


def warp(batch: Tensor, degree: Tensor) -> Tensor:
    """Bends the image smoothly to and fro."""
    count, _, height, width = batch.shape
    bends = F.interpolate(torch.randn(count, 2, 6, 6), size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    plain = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, plain + per_image(0.25 * degree) * bends, padding_mode="border", align_corners=False)


def miscolor(batch: Tensor, degree: Tensor) -> Tensor:
    """Mixes the three colors at random."""
    mixing = torch.randn(len(batch), 3, 3)
    wrong = torch.einsum("nij,njhw->nihw", mixing, batch)
    return torch.lerp(batch, wrong, per_image(0.8 * degree)).clamp(-1, 1)


def punch_holes(batch: Tensor, degree: Tensor) -> Tensor:
    """Covers up to seven small squares with a flat color."""
    batch, side = batch.clone(), batch.shape[-1]
    for image, amount in zip(batch, degree.tolist(), strict=True):
        for _ in range(math.ceil(7 * amount)):
            size = int(torch.randint(side // 10, side // 4, ()))
            top, left = torch.randint(side - size, (2,)).tolist()
            image[:, top : top + size, left : left + size] = torch.rand(3, 1, 1) * 2 - 1
    return batch


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a blurry": blur,
    "a pixelated": shrink,
    "a noisy": noise,
    "a blocky jpeg": blocks,
    "a much too dark": darken,
    "a washed out": wash_out,
    "a warped and distorted": warp,
    "a wrongly colored": miscolor,
    "a damaged": punch_holes,
}


def spoil(batch: Tensor, clean: float = 0.25) -> tuple[Tensor, list[str], Tensor]:
    """Spoils all but a share of the images, each in one way; gives the ways (empty for clean) and the degrees."""
    made, names = batch.clone(), [""] * len(batch)
    degree = torch.rand(len(batch)) * 0.9 + 0.1
    choice = torch.randint(len(WAYS), (len(batch),))
    choice[torch.rand(len(batch)) < clean] = -1
    for number, (name, way) in enumerate(WAYS.items()):
        chosen = (choice == number).nonzero().flatten()
        if len(chosen):
            made[chosen] = way(batch[chosen], degree[chosen])
        for index in chosen.tolist():
            names[index] = name
    return made, names, torch.where(choice < 0, 0.0, degree)
