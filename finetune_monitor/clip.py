"""CLIP's image embeddings, made once an image however many metrics ask for them."""

from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import open_clip
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from finetune_monitor.faces import undisturbed_rng
from finetune_monitor.hub import ClipSource, resolve_clip

BATCH = 16

TEXT_PARTS = ("transformer", "token_embedding", "text", "text_decoder")
"""What open_clip's models read texts with: 0.5 GB of ViT-L/14 that no picture needs."""


class ClipEncoder:
    """A CLIP model of open_clip in float32; give one to several metrics, and each image is encoded once for all.

    `embed` remembers the embedding of an image for as long as that picture object lives, and takes it for unchanged.
    It is made of two steps, which those who have no use for that memory take by themselves: `preprocess`, open_clip's
    own transform, turns an RGB image into pixels, 3 x h x w in float32, and can be pickled; `encode` takes a batch.

    Args:
        clip: model name of open_clip, a folder in open_clip's layout, or what `resolve_clip` found.
        pretrained: tag of its weights in open_clip; ignored for the other two.
        device: where it runs.

    Raises:
        UserError: weights that cannot be had, or CLIP's activation does not fit them.
    """

    def __init__(
        self,
        clip: str | ClipSource = "ViT-L-14-quickgelu",
        pretrained: str | None = "openai",
        device: str | torch.device = "cpu",
    ) -> None:
        self.source = clip if isinstance(clip, ClipSource) else resolve_clip(clip, pretrained)
        self.sha256 = self.source.sha256
        self.device = torch.device(device)
        self.preprocess: Callable[[Image], Tensor]
        with undisturbed_rng():
            self._model, _, self.preprocess = open_clip.create_model_and_transforms(**self.source.arguments)
        for part in TEXT_PARTS:
            if hasattr(self._model, part):
                delattr(self._model, part)
        self._model.eval().requires_grad_(False).to(self.device)
        self._images: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._rows: dict[int, Tensor] = {}

    @property
    def width(self) -> int:
        """Size of the embeddings."""
        return clip_width(self.source)

    def embed(self, images: Sequence[Image]) -> Float[Tensor, "n d"]:
        """L2-normalised embeddings of RGB images, float32, on the encoder's device."""
        new = {id(image): image for image in images if id(image) not in self._images}
        self._rows = {key: self._rows[key] for key in self._images}
        self._rows.update(zip(new, self._encode(list(new.values())), strict=True))
        self._images.update(new)
        rows = [self._rows[id(image)] for image in images]
        return torch.stack(rows) if rows else torch.zeros(0, self.width, device=self.device)

    @torch.inference_mode()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """L2-normalised embeddings of one batch that `preprocess` made, float32, on the encoder's device."""
        return self._model.encode_image(pixels.to(self.device), normalize=True).float()

    def _encode(self, images: Sequence[Image]) -> list[Tensor]:
        rows: list[Tensor] = []
        for start in range(0, len(images), BATCH):
            # open_clip's own transform: torchvision's faster one on tensors leaves single pixels a grey level apart
            batch = torch.stack([self.preprocess(image) for image in images[start : start + BATCH]])
            rows += self.encode(batch).unbind()
        return rows


def clip_width(source: ClipSource) -> int:
    """Size of a model's embeddings, without loading it."""
    return int((open_clip.get_model_config(source.arguments["model_name"]) or {})["embed_dim"])
