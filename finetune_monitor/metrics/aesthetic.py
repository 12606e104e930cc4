"""How pleasing people would find an image, 0 to 10: a head on CLIP's image embedding, trained on human ratings."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from safetensors import safe_open
from torch import Tensor, nn

from finetune_monitor import weights
from finetune_monitor.clip import ClipEncoder, clip_width
from finetune_monitor.errors import UserError
from finetune_monitor.evaluation import FloatArray
from finetune_monitor.faces import undisturbed_rng
from finetune_monitor.files import sha256
from finetune_monitor.grid import Cell
from finetune_monitor.hub import ClipSource, resolve_clip
from finetune_monitor.weights import find_weights, read_state_dict

FORMAT, VERSION = "finetune_monitor.aesthetic_head", "1"
"""What the metadata of a head's `.safetensors` says under `format` and `version`."""

ACTIVATIONS = ("none", "relu")

PUBLIC_HEADS = {
    "sac+logos+ava1-l14-linearMSE": ("none", "ViT-L-14/openai"),
    "ava+logos-l14-linearMSE": ("none", "ViT-L-14/openai"),
    "ava+logos-l14-reluMSE": ("relu", "ViT-L-14/openai"),
    "sa_0_4_vit_l_14_linear": ("none", "ViT-L-14/openai"),
    "sa_0_4_vit_b_32_linear": ("none", "ViT-B-32/openai"),
    "sa_0_4_vit_b_16_linear": ("none", "ViT-B-16/openai"),
}
"""Activation between the layers, and the CLIP model whose embeddings the head was trained on."""


class AestheticHead(nn.Module):
    """Linear layers with an activation between them, on L2-normalised CLIP image embeddings.

    Args:
        widths: from the embedding's size down to 1; `[768, 1]` is one linear layer.
        activation: `none` or `relu`, between the layers and not after the last.
    """

    def __init__(self, widths: Sequence[int], activation: str = "none") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: found {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    @property
    def width(self) -> int:
        """Size of the embeddings it takes."""
        return int(self.layers[0].in_features)  # type: ignore[arg-type]

    def forward(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The rating each embedding would get, on the scale of the head's training data; not bounded."""
        x = embeddings
        for index, layer in enumerate(self.layers):
            x = F.relu(x) if index and self.activation == "relu" else x
            x = layer(x)
        return x[:, 0]


class Aesthetic:
    """Rating of each image by a head on CLIP embeddings, 0 to 10.

    A head is unbounded: ratings that leave 0..10 (very few images reach that) are set to the nearer bound. Ratings
    follow the taste of those who rated: Western and realist photographs are favoured (arXiv 2601.09896).

    Args:
        clip: model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` that other metrics use too.
        pretrained: tag of its weights in open_clip; ignored for a folder and an encoder.
        head: name of a public head, or path of one: `.safetensors` with the metadata `format`, `version` and
            `activation`, or `.pth`, where it is one linear layer or a copy of a public head.
        device: where CLIP and the head run, in float32; an encoder's own where one is given.
        name: of the metric and its column; give another to a second head in the same monitor.

    Raises:
        UserError: weights that cannot be had, CLIP's activation does not fit them, or the head is for another CLIP.
    """

    higher_is_better = True
    bounds = (0.0, 10.0)

    def __init__(
        self,
        clip: str | ClipEncoder = "ViT-L-14-quickgelu",
        pretrained: str | None = "openai",
        head: str | Path = "sac+logos+ava1-l14-linearMSE",
        device: str | torch.device = "cpu",
        name: str = "aesthetic",
    ) -> None:
        self.name = name
        source = clip.source if isinstance(clip, ClipEncoder) else resolve_clip(clip, pretrained)
        file = find_weights(weights.AESTHETIC_HEADS[str(head)]) if head in PUBLIC_HEADS else _existing(head)
        self._head, metadata = read_head(file)
        _check_fit(file, self._head.width, metadata.get("clip"), source)
        self._clip = clip if isinstance(clip, ClipEncoder) else ClipEncoder(source, device=device)
        self._head.eval().requires_grad_(False).to(self._clip.device)
        self._description = {
            "clip": {"id": source.id, "sha256": self._clip.sha256},
            "head": {"id": str(head), "sha256": sha256(file)},
            **{key: metadata[key] for key in ("notice",) if metadata.get(key)},
        }

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """One column of the metric's name, one rating an image (RGB)."""
        with torch.inference_mode():
            ratings = self._head(self._clip.embed(images)).cpu().numpy().astype(np.float64)
        return {self.name: np.clip(ratings, *self.bounds)}

    def describe(self) -> Mapping[str, Any]:
        """CLIP and head with the SHA-256 of their weights; the head's notice where it has one."""
        return self._description


def read_head(file: Path) -> tuple[AestheticHead, Mapping[str, str]]:
    """A head and what is known of it: `activation`, and where given `clip` and `notice`.

    Tensors are called `layers.{i}.weight` and `layers.{i}.bias`, or `weight` and `bias` for a single layer.

    Raises:
        UserError: not a head, of an unknown format, or several layers and nobody says what stands between them.
    """
    state = read_state_dict(file)
    metadata = _safetensors_metadata(file) if file.suffix == ".safetensors" else _known_metadata(file)
    layers = _linear_layers(file, state)
    activation = metadata.get("activation", "none" if len(layers) == 1 else None)
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{file}: the activation between its {len(layers)} layers is {activation or 'not known'}, expected one of "
            f"{', '.join(ACTIVATIONS)}; save it as .safetensors with the metadata format={FORMAT}, version={VERSION} "
            "and activation"
        )
    with undisturbed_rng():
        head = AestheticHead([layers[0][0].shape[1], *(len(bias) for _, bias in layers)], activation)
    for layer, (weight, bias) in zip(head.layers, layers, strict=True):
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return head, metadata


def _linear_layers(file: Path, state: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer, first to last, checked to fit together and to end in one number."""
    if set(state) == {"weight", "bias"}:
        state = {f"layers.0.{key}": value for key, value in state.items()}
    indices = sorted({int(key.split(".")[1]) for key in state if re.fullmatch(r"layers\.\d+\.(weight|bias)", key)})
    names = [(f"layers.{index}.weight", f"layers.{index}.bias") for index in indices]
    complete = names and set(state) == {name for pair in names for name in pair}
    layers = [(state[weight], state[bias]) for weight, bias in names] if complete else []
    if not layers or not _is_chain(layers):
        raise UserError(
            f"{file}: not an aesthetic head; found {', '.join(list(state)[:4]) or 'nothing'}, expected "
            "layers.0.weight, layers.0.bias, … of linear layers that end in one number"
        )
    return layers


def _is_chain(layers: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether each layer takes what the one before gives, down to one number."""
    linear = all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
    fitting = all(before.shape[0] == after.shape[-1] for (before, _), (after, _) in pairwise(layers))
    return linear and fitting and layers[-1][0].shape[0] == 1


def _safetensors_metadata(file: Path) -> Mapping[str, str]:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    found = (metadata.get("format"), metadata.get("version"))
    if found != (FORMAT, VERSION):
        raise UserError(
            f"{file}: its metadata says format={found[0]}, version={found[1]}; expected format={FORMAT}, "
            f"version={VERSION}"
        )
    return metadata


def _known_metadata(file: Path) -> Mapping[str, str]:
    """A `.pth` says nothing of itself; copies of the public heads are known by their content."""
    digest = sha256(file)
    for name, source in weights.AESTHETIC_HEADS.items():
        if source.sha256 == digest:
            activation, clip = PUBLIC_HEADS[name]
            return {"activation": activation, "clip": clip}
    return {}


def _existing(head: str | Path) -> Path:
    file = Path(head).expanduser()
    if not file.is_file():
        raise UserError(f"head: found {str(head)!r}, expected a file or one of {', '.join(PUBLIC_HEADS)}")
    return file


def _check_fit(file: Path, width: int, trained_on: str | None, source: ClipSource) -> None:
    """Heads for different CLIP models can have one width and then fail silently; a folder's model has no name."""
    ours = source.id.replace("-quickgelu", "")
    if trained_on and source.tag and trained_on.replace("-quickgelu", "") != ours:
        raise UserError(f"{file}: the head was trained on CLIP {trained_on}, found clip {source.id}; name the former")
    given = clip_width(source)
    if given != width:
        raise UserError(
            f"{file}: the head takes embeddings of width {width}, CLIP {source.id} gives {given}; name the CLIP model "
            "that the head was trained with"
        )
