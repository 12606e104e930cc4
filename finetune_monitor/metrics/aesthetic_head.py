"""Aesthetic heads: layers on a CLIP embedding, and their files, which record how they were made."""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256, write_atomic
from finetune_monitor.base.json_files import DAMAGE, as_number
from finetune_monitor.base.paths import user_path
from finetune_monitor.models.clip import ClipSource, clip_width
from finetune_monitor.models.defaults import CLIP, PRETRAINED, SCALE
from finetune_monitor.models.finite import check_outputs
from finetune_monitor.models.weights import PublishedFile, find_weights, read_state_dict, undisturbed_rng

logger = logging.getLogger(__name__)

HEAD_FORMAT, HEAD_VERSION = "finetune_monitor.aesthetic_head", "1"
"""The metadata values `format` and `version` in a head's `.safetensors` file."""

ACTIVATIONS = ("none", "relu")

NORMALIZATION = "l2"
"""How embeddings are scaled before the first layer; no other value is supported."""


@dataclass(frozen=True)
class PublicHead:
    """A head published by others, whose file has no metadata.

    activation: the activation between the layers.
    clip: the model whose embeddings the head was trained on.
    """

    file: PublishedFile
    activation: str
    clip: str


def _public(
    repository: str, name: str, digest: str, activation: str = "none", clip: str = f"{CLIP}/{PRETRAINED}"
) -> PublicHead:
    address = f"https://raw.githubusercontent.com/{repository}/main/{name.replace('+', '%2B')}.pth"
    return PublicHead(PublishedFile(f"{name}.pth", address, f"the aesthetic head {name}", digest), activation, clip)


_IMPROVED, _LAION = "christophschuhmann/improved-aesthetic-predictor", "LAION-AI/aesthetic-predictor"

PUBLIC_HEADS = {
    name: _public(repository, name, *about)
    for repository, name, *about in (
        (
            _IMPROVED,
            "sac+logos+ava1-l14-linearMSE",
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        ),
        (_IMPROVED, "ava+logos-l14-linearMSE", "390a3aafaf3b37d57148f9b22f30556de38343064b7d915acfa80d3812b4c9ff"),
        (
            _IMPROVED,
            "ava+logos-l14-reluMSE",
            "0af3254c651d55b7ea851429c20f26ec880bb0169805a4df85b814bd7966f3e4",
            "relu",
        ),
        (_LAION, "sa_0_4_vit_l_14_linear", "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba"),
        (
            _LAION,
            "sa_0_4_vit_b_32_linear",
            "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
            "none",
            "ViT-B-32-quickgelu/openai",
        ),
        (
            _LAION,
            "sa_0_4_vit_b_16_linear",
            "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
            "none",
            "ViT-B-16-quickgelu/openai",
        ),
    )
}
"""Public heads on OpenAI's CLIP embeddings (improved-aesthetic-predictor: Apache-2.0; aesthetic-predictor: MIT)."""


class AestheticHead(nn.Module):
    """Linear layers with an activation between them, on L2-normalized CLIP image embeddings.

    Args:
        widths: layer sizes, from the size of the embeddings down to 1 or to the number of grades; `[768, 1]` is a
            single linear layer.
        activation: `none` or `relu`, between layers but not after the last.
        grades: if given, the last layer's outputs are the logits of these ratings (as in NIMA, Talebi and Milanfar
            2018), and the score is the mean of their distribution; if None, the last layer's single output is the
            score.
    """

    def __init__(self, widths: Sequence[int], activation: str = "none", grades: Sequence[float] | None = None) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: found {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        if widths[-1] != (1 if grades is None else len(grades)):
            raise ValueError(f"widths: found {widths[-1]} outputs, expected 1, or one per grade in {grades}")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation
        self.grades = None if grades is None else tuple(map(float, grades))

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, from first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def widths(self) -> list[int]:
        """The layer sizes, from the size of the embeddings to the number of outputs."""
        return [self.width, *(layer.out_features for layer in self.linears)]

    @property
    def width(self) -> int:
        """The size of the input embeddings."""
        return self.linears[0].in_features

    def forward(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The rating of each embedding on the scale of the head's training data, not clipped to that scale."""
        return self.mean(self.outputs(embeddings))

    @torch.inference_mode()
    def rate(self, embeddings: Float[Tensor, "n d"]) -> Float[np.ndarray, "n"]:
        """The ratings as a NumPy array, without gradients."""
        ratings: np.ndarray = self(embeddings).cpu().numpy().astype(np.float64)
        return ratings

    def outputs(self, embeddings: Float[Tensor, "n d"], dropout: float = 0.0) -> Float[Tensor, "n k"]:
        """The outputs of the last layer; during training, `dropout` is the share of hidden values that are zeroed."""
        x = embeddings
        for index, layer in enumerate(self.layers):
            if index:
                x = F.relu(x) if self.activation == "relu" else x
                x = F.dropout(x, dropout, self.training)
            x = layer(x)
        return x

    def mean(self, outputs: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
        """The score of the outputs: the output itself, or the mean of the grades' distribution."""
        if self.grades is None:
            return outputs[:, 0]
        return outputs.softmax(dim=1) @ torch.tensor(self.grades, dtype=outputs.dtype, device=outputs.device)


def find_head(head: str | Path) -> Path:
    """The file of a head given by path, or of a public head by name, downloaded if necessary.

    Raises:
        UserError: it is neither, or the public head is not available.
    """
    if head in PUBLIC_HEADS:
        return find_weights(PUBLIC_HEADS[str(head)].file)
    file = user_path(head)
    if not file.is_file():
        raise UserError(f"head: found {str(head)!r}, expected a file or one of {', '.join(PUBLIC_HEADS)}")
    return file


def save_head(file: Path, head: AestheticHead, metadata: Mapping[str, str]) -> None:
    """Write a head with the metadata that `read_head` needs, and with `metadata` for its users."""
    own = {
        "format": HEAD_FORMAT,
        "version": HEAD_VERSION,
        "activation": head.activation,
        "normalization": NORMALIZATION,
    }
    own["layers"] = json.dumps(head.widths)
    if head.grades is not None:
        own["grades"] = json.dumps(head.grades)
    state = {name: value.detach().float().cpu().contiguous() for name, value in head.state_dict().items()}
    write_atomic(file, _in_order(save(state, {**metadata, **own})))


def read_head(file: Path) -> tuple[AestheticHead, Mapping[str, str]]:
    """A head and its metadata: `activation` and, if given, `clip`, `clip_sha256`, `scale`, `notice`, ….

    Tensors are named `layers.{i}.weight` and `layers.{i}.bias`, or `weight` and `bias` for a single layer.

    Raises:
        UserError: the file is not a head, has an unknown format, has several layers and an unknown activation, or has
            weights or outputs that are not finite.
    """
    state = read_state_dict(file)
    metadata = _safetensors_metadata(file) if file.suffix == ".safetensors" else _known_metadata(file)
    grades = _grades(file, metadata)
    layers = _linear_layers(file, state, 1 if grades is None else len(grades))
    activation = metadata.get("activation", "none" if len(layers) == 1 else None)
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{file}: the activation between its {len(layers)} layers is {activation or 'unknown'}, expected one of "
            f"{', '.join(ACTIVATIONS)}; save it as .safetensors with the metadata format={HEAD_FORMAT}, "
            f"version={HEAD_VERSION} and activation"
        )
    with undisturbed_rng():
        head = AestheticHead([layers[0][0].shape[1], *(len(bias) for _, bias in layers)], activation, grades)
    for layer, (weight, bias) in zip(head.layers, layers, strict=True):
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    check_outputs(file, head.rate(torch.cat([torch.eye(head.width), -torch.eye(head.width)])))
    return head.eval().requires_grad_(False), metadata


def clip_of(metadata: Mapping[str, str]) -> tuple[str, str | None] | None:
    """The CLIP that a head was trained on: model and tag of open_clip, or a folder and None; None if not stated."""
    found = metadata.get("clip")
    if not found:
        return None
    model, _, tag = found.rpartition("/")
    return (model, tag) if model in open_clip.list_models() else (found, None)


def scale_of(metadata: Mapping[str, str]) -> tuple[float, float]:
    """The lowest and highest rating in a head's training data; 0 to 10 if not stated."""
    low, _, high = metadata.get("scale", "").partition("..")
    try:
        found = float(low), float(high)
    except ValueError:
        return SCALE
    return found if -math.inf < found[0] < found[1] < math.inf else SCALE


def check_fit(file: Path, width: int, metadata: Mapping[str, str], source: ClipSource) -> None:
    """Reject a head that was trained on another CLIP, which would silently return wrong scores.

    CLIP models are identified by name and tag; a folder is identified by the SHA-256 of its weights. If the head does
    not state that, as the public ones do not, only activation and width are checked, and a warning says so.

    Raises:
        UserError: the width, the name, the activation, or the content differs.
    """
    trained_on, ours = metadata.get("clip", ""), source.id.replace("-quickgelu", "")
    if source.tag and trained_on and trained_on.replace("-quickgelu", "") != ours:
        raise UserError(f"{file}: the head was trained on CLIP {trained_on}, found clip {source.id}; use the former")
    given = clip_width(source)
    if given != width:
        raise UserError(
            f"{file}: the head takes embeddings of width {width}, but CLIP {source.id} has {given}; use the CLIP model "
            "that the head was trained with"
        )
    if source.tag is None:
        _check_folder(file, metadata, source)


def _in_order(content: bytes) -> bytes:
    """The same `.safetensors` with its header sorted: the library's order varies between runs, and with it the SHA-256
    that identifies a head.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _check_folder(file: Path, metadata: Mapping[str, str], source: ClipSource) -> None:
    trained_on, expected = metadata.get("clip", "another model"), metadata.get("clip_sha256")
    if expected and expected != source.sha256:
        raise UserError(
            f"{file}: the head was trained on CLIP {trained_on} whose weights have sha256 {expected[:12]}…, but those "
            f"of {source.id} have {source.sha256[:12]}…; use the CLIP model that the head was trained with"
        )
    config = open_clip.get_model_config(source.arguments["model_name"]) or {}
    if "-quickgelu/" in trained_on and not config.get("quick_gelu"):
        raise UserError(
            f"{file}: the head was trained on CLIP {trained_on}, but the config of {source.id} lacks quick_gelu; use "
            "the former, or a folder with its complete open_clip_config.json"
        )
    if not expected and "clip" in metadata:
        logger.warning(f"{file}: the head was trained on CLIP {trained_on}; cannot verify that {source.id} is the same")


def _linear_layers(file: Path, state: Mapping[str, Any], outputs: int) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer, first to last, checked to be compatible and to end in that many outputs."""
    if set(state) == {"weight", "bias"}:
        state = {f"layers.0.{key}": value for key, value in state.items()}
    indices = sorted({int(key.split(".")[1]) for key in state if re.fullmatch(r"layers\.\d+\.(weight|bias)", key)})
    names = [(f"layers.{index}.weight", f"layers.{index}.bias") for index in indices]
    complete = names and set(state) == {name for pair in names for name in pair}
    layers = [(state[weight], state[bias]) for weight, bias in names] if complete else []
    if not layers or not _is_chain(layers, outputs):
        raise UserError(
            f"{file}: not an aesthetic head; found {', '.join(list(state)[:4]) or 'nothing'}, expected "
            "layers.0.weight, layers.0.bias, … of linear layers that end in "
            f"{'one number' if outputs == 1 else f'{outputs} numbers, one per grade'}"
        )
    return layers


def _is_chain(layers: Sequence[tuple[Tensor, Tensor]], outputs: int) -> bool:
    """Whether the sizes of consecutive layers match, down to the outputs."""
    linear = all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
    fitting = all(before.shape[0] == after.shape[-1] for (before, _), (after, _) in pairwise(layers))
    return linear and fitting and layers[-1][0].shape[0] == outputs


def _grades(file: Path, metadata: Mapping[str, str]) -> list[float] | None:
    if "grades" not in metadata:
        return None
    try:
        return [as_number(grade) for grade in json.loads(metadata["grades"])]
    except DAMAGE as error:
        raise UserError(
            f"{file}: found grades={metadata['grades'][:80]} in its metadata, expected a list of numbers"
        ) from error


def _safetensors_metadata(file: Path) -> Mapping[str, str]:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    found = (metadata.get("format"), metadata.get("version"))
    if found != (HEAD_FORMAT, HEAD_VERSION):
        raise UserError(
            f"{file}: found format={found[0]}, version={found[1]} in its metadata; expected format={HEAD_FORMAT}, "
            f"version={HEAD_VERSION}"
        )
    if metadata.get("normalization", NORMALIZATION) != NORMALIZATION:
        raise UserError(
            f"{file}: found normalization={metadata['normalization']} in its metadata, expected {NORMALIZATION}: the "
            "embeddings here are L2-normalized"
        )
    return metadata


def _known_metadata(file: Path) -> Mapping[str, str]:
    """The metadata for a `.pth`, which has none itself: copies of the public heads are recognized by content."""
    digest = sha256(file)
    known = [head for head in PUBLIC_HEADS.values() if head.file.sha256 == digest]
    return {"activation": known[0].activation, "clip": known[0].clip} if known else {}
