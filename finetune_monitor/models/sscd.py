"""SSCD: embeddings for copy detection, in which an image is close to its own edited copies and to nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ImageOps
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.transforms.functional import normalize, to_tensor

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.text import first_line
from finetune_monitor.models.finite import check_outputs
from finetune_monitor.models.weights import SSCD, find_weights, read_state_dict, undisturbed_rng

DIMENSIONS, SIDE, BATCH = 512, 288, 8

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet, in RGB."""

PREFIX = "backbone."
"""Prefix of every name in the published files."""


class SscdEncoder:
    """The ResNet-50 of Pizzi et al. 2022 (arXiv 2202.10261) in float32, from its torchvision weights.

    Args:
        sscd: a name in `weights.SSCD`, whose file is downloaded once, or the path of such a file.

    Raises:
        UserError: the weights are not available, or belong to a different network.
    """

    def __init__(self, sscd: str, device: str | torch.device = "cpu") -> None:
        path = find_sscd(sscd)
        self.id, self.sha256, self._device = sscd, sha256(path), torch.device(device)
        self._network = _network(path).to(self._device)
        check_outputs(path, self.rows([new_image("RGB", (SIDE, SIDE), "gray")]))

    @property
    def identity(self) -> dict[str, str]:
        """What a description says of the encoder."""
        return {"id": self.id, "sha256": self.sha256}

    @torch.inference_mode()
    def rows(self, images: Sequence[Image]) -> Float[np.ndarray, "n d"]:
        """L2-normalized embeddings of RGB images."""
        rows = [torch.zeros(0, DIMENSIONS, device=self._device)]
        for start in range(0, len(images), BATCH):
            pixels = torch.stack([_prepared(image) for image in images[start : start + BATCH]])
            rows.append(self._network(pixels.to(self._device)))
        return nn.functional.normalize(torch.cat(rows), dim=-1).cpu().numpy()


def find_sscd(sscd: str) -> Path:
    """The file for a name, or the path itself.

    Raises:
        UserError: within seconds, if it is neither or cannot be downloaded.
    """
    if sscd in SSCD:
        return find_weights(SSCD[sscd])
    path = user_path(sscd)
    if not path.is_file():
        raise UserError(
            f"sscd: found {sscd!r}, expected {', '.join(SSCD)}, or the path of a .torchvision.pt file of SSCD"
        )
    return path


class _GeneralizedMean(nn.Module):
    """Pooling by (mean x³)^(1/3) (Radenović et al. 2018, arXiv 1711.02512), which SSCD uses instead of the mean."""

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        pooled: Tensor = maps.clamp(min=1e-6).pow(3).mean(dim=(2, 3), keepdim=True).pow(1 / 3)
        return pooled


def _network(path: Path) -> nn.Module:
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in read_state_dict(path).items()}
    with undisturbed_rng():
        network: nn.Module = resnet50(num_classes=DIMENSIONS)
    network.avgpool = _GeneralizedMean()
    _load(network, weights, path)
    return network.float().eval().requires_grad_(False)


def _load(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path}: not the weights of an SSCD ResNet-50 ({first_line(str(error))}); expected a .torchvision.pt file "
            f"such as {SSCD['disc_mixup'].url}"
        ) from error


def _prepared(image: Image) -> Float[Tensor, "3 288 288"]:
    square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Resampling.BICUBIC)
    pixels: Tensor = normalize(to_tensor(square), MEAN, STD)
    return pixels
