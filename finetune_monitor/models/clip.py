"""CLIP embeddings of images and texts, each computed only once even if several metrics need it."""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import open_clip
import torch
from jaxtyping import Float, Int64
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.text import first_line
from finetune_monitor.models.defaults import CLIP, PRETRAINED
from finetune_monitor.models.diffusers_hub import cached_file, hub_by_hand, hub_problem
from finetune_monitor.models.finite import check_network, check_outputs
from finetune_monitor.models.weights import undisturbed_rng

logger = logging.getLogger(__name__)

BATCH = 16

HALVED_FROM = 1024
"""Width of the image tower (that of ViT-L) from which its MLPs run in bf16 on a CPU that has instructions for it.

Measured on one core with AVX-512 BF16: ViT-L/14 with random weights takes 53% of the time; ratings differ by at most
0.008, and the cosine of both embeddings of an image is 0.999995. The MLPs of the demo's trained CLIP in bf16 would
change ratings by at most 0.004 and the cosines between images by 0.0005; with attention in bf16, too, ratings by 0.013.
"""

TEXT_PARTS = ("transformer", "token_embedding", "text", "text_decoder")
"""The text modules of open_clip's models: 0.5 GB of ViT-L/14 that images do not need."""

_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""File names of open_clip's weights on the hub; the first is preferred, as in open_clip."""


@dataclass(frozen=True)
class ClipSource:
    """A CLIP model that is available on this machine.

    id: `MODEL/PRETRAINED`, or the folder.
    tag: the name of its weights in open_clip; None for a folder.
    file: the file with its weights.
    arguments: for `open_clip.create_model_and_transforms`; loading needs no network access.
    """

    id: str
    tag: str | None
    file: Path
    arguments: dict[str, Any]

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the weights: 1.7 GB for ViT-L/14."""
        return sha256(self.file)


class ClipEncoder:
    """A CLIP model of open_clip in float32; metrics that share one encoder encode each image only once.

    On some CPUs, the MLPs of a large model run in bf16 (`HALVED_FROM`).

    `embed` caches the embedding of an image for as long as that image object lives, and assumes that the image does not
    change. Its two steps can also be used on their own, without the cache: `preprocess`, open_clip's own transform,
    turns an RGB image into pixels, 3 x h x w in float32, and can be pickled; `encode` takes a batch. `embed_texts` does
    the same for texts.

    Args:
        clip: a model name of open_clip, a folder in open_clip's layout, or the result of `resolve_clip`.
        pretrained: the tag of its weights in open_clip; ignored in the other two cases.
        device: the device that it runs on.

    Raises:
        UserError: the weights are not available or not finite, or the model's activation does not match them.
    """

    def __init__(
        self,
        clip: str | ClipSource = CLIP,
        pretrained: str | None = PRETRAINED,
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
        check_network(self.source.file, self._model)
        self._model.eval().requires_grad_(False).to(self.device)
        _halve_mlps(self._model.visual, self.device)
        check_outputs(self.source.file, self._forward(self.preprocess(new_image("RGB", (64, 64), "gray"))[None]))
        self._images: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._rows: dict[int, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """What a description says of the encoder."""
        return {"id": self.source.id, "sha256": self.sha256}

    @property
    def width(self) -> int:
        """Size of the embeddings."""
        return clip_width(self.source)

    def embed(self, images: Sequence[Image]) -> Float[Tensor, "n d"]:
        """L2-normalized embeddings of RGB images, float32, on the encoder's device."""
        new = {id(image): image for image in images if id(image) not in self._images}
        self._rows = {key: self._rows[key] for key in self._images}
        self._rows.update(zip(new, self._encode(list(new.values())), strict=True))
        self._images.update(new)
        rows = [self._rows[id(image)] for image in images]
        return torch.stack(rows) if rows else torch.zeros(0, self.width, device=self.device)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """L2-normalized embeddings of texts, float32, on the encoder's device.

        The text modules are loaded for new texts and then released, so embed all texts before training. Text beyond the
        model's token limit is ignored, with a warning.

        Raises:
            UserError: the tokenizer is not available.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._texts.update(zip(new, encode_texts(self.source, new).to(self.device).unbind(), strict=True))
        rows = [self._texts[text] for text in texts]
        return torch.stack(rows) if rows else torch.zeros(0, self.width, device=self.device)

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """L2-normalized embeddings of a batch from `preprocess`, float32, on the encoder's device."""
        return self._forward(pixels)

    @torch.inference_mode()
    def _forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        rows: Tensor = self._model.encode_image(pixels.to(self.device), normalize=True).float()
        return rows

    def _encode(self, images: Sequence[Image]) -> list[Tensor]:
        rows: list[Tensor] = []
        for start in range(0, len(images), BATCH):
            # open_clip's own transform: with torchvision's faster one on tensors, single pixels differ by a gray level
            batch = torch.stack([self.preprocess(image) for image in images[start : start + BATCH]])
            rows += self.encode(batch).unbind()
        return rows


class _Halved(nn.Module):
    """A module that runs in bf16 and returns its input's precision."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.to(torch.bfloat16))
        return found.to(x.dtype)


def _halve_mlps(tower: nn.Module, device: torch.device) -> None:
    """Run the MLPs of a large transformer in bf16 if the CPU supports it; the residual stream stays in float32."""
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", ())
    for block in blocks if device.type == "cpu" and has_bf16() else ():
        if block.mlp.c_fc.in_features >= HALVED_FROM:
            block.mlp = _Halved(block.mlp)


def has_bf16() -> bool:
    """Whether the CPU has instructions for products in bf16: AVX-512 BF16 or AMX."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asked if ask is not None)


@torch.inference_mode()
def encode_texts(source: ClipSource, texts: Sequence[str]) -> Float[Tensor, "n d"]:
    """L2-normalized embeddings of texts, float32, on the CPU, from a model that is loaded only for them."""
    tokens = _tokens(source, texts)
    with undisturbed_rng():
        model, _, _ = open_clip.create_model_and_transforms(**source.arguments)
    model.eval()
    rows = torch.cat([model.encode_text(batch, normalize=True).float() for batch in tokens.split(BATCH)])
    check_outputs(source.file, rows)
    return rows


def _tokens(source: ClipSource, texts: Sequence[str]) -> Int64[Tensor, "n t"]:
    """Token ids, padded and truncated to the model's limit."""
    tokenizer = _tokenizer(source)
    tokens: Tensor = tokenizer(list(texts))
    read = tokens.shape[1]
    longer = tokenizer([*texts, ""], context_length=read + 1)[:, read]
    if cut := [text for text, last in zip(texts, longer, strict=False) if last != longer[-1]]:
        logger.warning(f"CLIP {source.id} reads {read} tokens of a text; ignoring the end of: {'; '.join(cut)}")
    return tokens


def _tokenizer(source: ClipSource) -> Any:
    """The model's tokenizer; OpenAI's comes with open_clip.

    Raises:
        UserError: it is a different one, and is neither in the folder, nor in the cache, nor on a reachable hub.
    """
    name = source.arguments["model_name"]
    repository = (open_clip.get_model_config(name) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    if source.tag and repository and cached_file(repository, "tokenizer_config.json") is None:
        problem = hub_problem(repository)
        if problem:
            raise UserError(f"clip {source.id}: its tokenizer is missing\n{hub_by_hand(repository, problem)}")
    try:
        return open_clip.get_tokenizer(name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"clip {source.id}: cannot read its tokenizer ({first_line(str(error))}); expected its files in the "
            "model's folder; choose a CLIP whose tokenizer comes with open_clip, such as ViT-L-14-quickgelu"
        ) from error


def clip_width(source: ClipSource) -> int:
    """The size of a model's embeddings, without loading the model."""
    return int((open_clip.get_model_config(source.arguments["model_name"]) or {})["embed_dim"])


def resolve_clip(clip: str, pretrained: str | None) -> ClipSource:
    """A CLIP model, found or downloaded: by name and weights tag of open_clip, or from a folder.

    The folder holds open_clip_config.json and open_clip_model.safetensors, as `hf download` saves them; `pretrained` is
    then ignored. The activation must match the weights: OpenAI's were trained with QuickGELU, and a model without it
    returns wrong embeddings without any error, so such a pair is rejected here.

    Raises:
        UserError: unknown name or tag, the wrong activation, an incomplete folder, or weights that are not available.
    """
    if clip not in open_clip.list_models():
        return _clip_folder(clip, open_clip.list_models())
    _check_tag(clip, pretrained)
    config = open_clip.get_pretrained_cfg(clip, pretrained)
    file = _clip_file(clip, config)
    preprocessing = {f"image_{key}": config[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    arguments = {"model_name": clip, "pretrained": str(file), **preprocessing}
    return ClipSource(f"{clip}/{pretrained}", pretrained, file, arguments)


def _clip_folder(clip: str, known: list[str]) -> ClipSource:
    folder = user_path(clip)
    if not folder.is_dir():
        nearest = difflib.get_close_matches(clip, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"clip: found {clip!r}, expected a model name of open_clip or a folder{hint}")
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: not a CLIP model in open_clip's layout; missing: {', '.join(missing)}")
    return ClipSource(str(folder), None, folder / names[1], {"model_name": f"local-dir:{folder}"})


def _check_tag(clip: str, tag: str | None) -> None:
    from open_clip.pretrained import list_pretrained_tags_by_model

    plain = clip.removesuffix("-quickgelu")
    twin = f"{clip}-quickgelu" if plain == clip else plain
    twin_tags = list_pretrained_tags_by_model(twin)
    tags = list_pretrained_tags_by_model(clip)
    if tag not in tags:
        hint = f"; {tag} belongs to clip: {twin}" if tag in twin_tags else ""
        raise UserError(f"pretrained: found {tag!r}, expected for {clip} one of {', '.join(tags) or 'none'}{hint}")
    needs = bool(open_clip.get_pretrained_cfg(clip, tag).get("quick_gelu"))
    if needs and not (open_clip.get_model_config(clip) or {}).get("quick_gelu"):
        raise UserError(f"clip: the weights {tag} need QuickGELU, which {clip} lacks; use {twin}")


def _clip_file(clip: str, config: Mapping[str, Any]) -> Path:
    from open_clip.pretrained import download_pretrained

    repository, _, filename = config["hf_hub"].rpartition("/")
    names = (filename[:-4] + ".safetensors", filename) if filename else _CLIP_WEIGHTS
    for name in names:
        cached = cached_file(repository, name)
        if cached is not None:
            return cached
    problem = hub_problem(repository)
    if problem:
        raise UserError(f"clip {clip}: weights missing\n{hub_by_hand(repository, problem)}")
    try:
        return Path(download_pretrained(config))
    except (OSError, RuntimeError) as error:
        raise UserError(hub_by_hand(repository, f"the download failed: {error}")) from error
