"""DINO and DINOv2: embeddings of entire images from vision transformers that were trained without labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from PIL.Image import new as new_image
from safetensors import SafetensorError
from torch import Tensor

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.text import first_line
from finetune_monitor.models.diffusers_hub import TRANSFORMERS_WEIGHTS, hub_by_hand, resolve_hub_network
from finetune_monitor.models.finite import check_network, check_outputs
from finetune_monitor.models.weights import undisturbed_rng

BATCH = 16

WITHOUT_POOLER = {"vit": {"add_pooling_layer": False}}
"""Modules to leave out, by kind: DINO's files have no pooler, and transformers would initialize one at random."""

KINDS = (*WITHOUT_POOLER, "dinov2", "dinov2_with_registers")
"""The `model_type` of networks whose class token describes the image; DINO is a plain ViT."""


class DinoEncoder:
    """A vision transformer in float32; the embedding of an image is its class token after the last layer.

    Args:
        dino: a hub id, such as facebook/dinov2-small, or a folder with config.json, preprocessor_config.json, and
            model.safetensors.

    Raises:
        UserError: the weights are not available or belong to a different kind of network.
    """

    def __init__(self, dino: str, device: str | torch.device = "cpu") -> None:
        folder = _folder(dino)
        self.id, self.sha256, self._device = dino, sha256(folder / TRANSFORMERS_WEIGHTS), torch.device(device)
        try:
            self._preprocess, network = _read(folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = first_line(str(error))
            raise UserError(f"dino {dino}: {reason}; expected DINO or DINOv2 in the format of the hub") from error
        check_network(folder / TRANSFORMERS_WEIGHTS, network)
        self._network = network.float().eval().requires_grad_(False).to(self._device)
        check_outputs(folder, self.embed([new_image("RGB", (64, 64), "gray")]))

    @property
    def identity(self) -> dict[str, str]:
        """What a description says of the encoder."""
        return {"id": self.id, "sha256": self.sha256}

    @torch.inference_mode()
    def embed(self, images: Sequence[Image]) -> Float[Tensor, "n d"]:
        """L2-normalized embeddings of RGB images, float32, on the encoder's device."""
        rows = [torch.zeros(0, self._network.config.hidden_size, device=self._device)]
        for start in range(0, len(images), BATCH):
            pixels = self._preprocess(list(images[start : start + BATCH]), return_tensors="pt")["pixel_values"]
            rows.append(self._network(pixel_values=pixels.to(self._device)).last_hidden_state[:, 0])
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def find_dino(dino: str) -> str | Path:
    """A folder, or a hub id that exists on the hub.

    Raises:
        UserError: within seconds, if it is neither.
    """
    try:
        return resolve_hub_network(dino)
    except UserError as error:
        raise UserError(f"dino: {error}") from error


def _folder(dino: str) -> Path:
    from huggingface_hub import snapshot_download

    found = find_dino(dino)
    if isinstance(found, Path):
        return found
    try:
        return Path(snapshot_download(dino, allow_patterns=["*.json", TRANSFORMERS_WEIGHTS]))
    except OSError as error:
        raise UserError(hub_by_hand(dino, f"the download failed: {first_line(str(error))}")) from error


def _read(folder: Path) -> tuple[Any, Any]:
    """The image processor and the network.

    Raises:
        ValueError: the network is of a different kind, or the file lacks some of its weights, which transformers would
            initialize at random. Damaged files cause other errors.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in KINDS:
        raise ValueError(f"found a network of type {kind}, expected one of {', '.join(KINDS)}")
    options = {"use_safetensors": True, "output_loading_info": True, **WITHOUT_POOLER.get(kind, {})}
    with undisturbed_rng():
        network, told = AutoModel.from_pretrained(folder, **options)
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"{folder / TRANSFORMERS_WEIGHTS}: lacks {missing[0]} and {len(missing) - 1} others")
    return AutoImageProcessor.from_pretrained(folder), network
