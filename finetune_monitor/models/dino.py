"""DINO and DINOv2: embeddings of whole images by vision transformers that were trained without labels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.text import first_line
from finetune_monitor.models.diffusers_hub import TRANSFORMERS_WEIGHTS, hub_by_hand, resolve_hub_network
from finetune_monitor.models.weights import undisturbed_rng

BATCH = 16

WITHOUT_POOLER = {"vit": {"add_pooling_layer": False}}
"""What to leave out, by kind: DINO's files have no pooler, and transformers would make one up."""

KINDS = (*WITHOUT_POOLER, "dinov2", "dinov2_with_registers")
"""`model_type` of the networks whose class token describes the image; DINO is a plain ViT."""


class DinoEncoder:
    """A vision transformer of transformers in float32; an image's embedding is its class token after the last layer.

    Args:
        dino: hub id, such as facebook/dinov2-small, or a folder with config.json, preprocessor_config.json and
            model.safetensors.

    Raises:
        UserError: the weights cannot be had, or are no such network's.
    """

    def __init__(self, dino: str, device: str | torch.device = "cpu") -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel

        folder = _folder(dino)
        self.id, self.sha256, self._device = dino, sha256(folder / TRANSFORMERS_WEIGHTS), torch.device(device)
        try:
            kind = AutoConfig.from_pretrained(folder).model_type
            _check_kind(dino, kind)
            self._preprocess = AutoImageProcessor.from_pretrained(folder)
            with undisturbed_rng():
                network = AutoModel.from_pretrained(folder, use_safetensors=True, **WITHOUT_POOLER.get(kind, {}))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"dino {dino}: cannot be read ({first_line(str(error))}); download it again") from error
        self._network = network.float().eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def embed(self, images: Sequence[Image]) -> Float[Tensor, "n d"]:
        """L2-normalized embeddings of RGB images, float32, on the encoder's device."""
        rows = [torch.zeros(0, self._network.config.hidden_size, device=self._device)]
        for start in range(0, len(images), BATCH):
            pixels = self._preprocess(list(images[start : start + BATCH]), return_tensors="pt")["pixel_values"]
            rows.append(self._network(pixel_values=pixels.to(self._device)).last_hidden_state[:, 0])
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def find_dino(dino: str) -> str | Path:
    """A folder, or a hub id that the hub has.

    Raises:
        UserError: in seconds, where it is neither.
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


def _check_kind(dino: str, kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"dino {dino}: found a network of the kind {kind}, expected one of {', '.join(KINDS)}")
