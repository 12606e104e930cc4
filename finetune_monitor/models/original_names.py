"""Names of a UNet's layers in the original layout of Stable Diffusion, by their names in diffusers."""

import re
from collections.abc import Callable

MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}

KINDS = {"resnets": "0", "attentions": "1"}
"""Places of layers in an original block."""


def original_name(layer: str, per_block: int) -> str:
    """The original name of a layer: diffusers numbers blocks by resolution, and the original layout numbers them all.

    Args:
        layer: its name in diffusers, such as `down_blocks.1.attentions.0.proj_in`.
        per_block: the UNet's `layers_per_block`.

    Raises:
        ValueError: a UNet of Stable Diffusion has no such layer.
    """
    if layer in OUTER:
        return OUTER[layer]
    for pattern, rename in _PATTERNS:
        if found := re.fullmatch(pattern, layer):
            return rename(found, per_block)
    raise ValueError(f"{layer}: expected a layer of a UNet of Stable Diffusion")


def _down(found: re.Match[str], per_block: int) -> str:
    block, kind, place, rest = found.groups()
    number = int(block) * (per_block + 1) + int(place) + 1
    return f"input_blocks.{number}.{KINDS[kind]}{_inner(kind, rest)}"


def _up(found: re.Match[str], per_block: int) -> str:
    block, kind, place, rest = found.groups()
    return f"output_blocks.{int(block) * (per_block + 1) + int(place)}.{KINDS[kind]}{_inner(kind, rest)}"


def _middle(found: re.Match[str], per_block: int) -> str:
    kind, place, rest = found.groups()
    return MIDDLE[f"{kind}.{place}"] + _inner(kind, rest)


def _smaller(found: re.Match[str], per_block: int) -> str:
    return f"input_blocks.{(int(found[1]) + 1) * (per_block + 1)}.0.op"


def _larger(found: re.Match[str], per_block: int) -> str:
    """SDXL's upsampling blocks have attention, so the upsampler comes third."""
    return f"output_blocks.{(int(found[1]) + 1) * (per_block + 1) - 1}.2.conv"


def _inner(kind: str, rest: str) -> str:
    """The name within a layer, with its dot."""
    return f".{RESNET[rest[1:]]}" if kind == "resnets" and rest[1:] in RESNET else rest


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str], int], str]], ...] = (
    (r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(.*)", _down),
    (r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(.*)", _up),
    (r"mid_block\.(resnets|attentions)\.(\d+)(.*)", _middle),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", _smaller),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.conv", _larger),
)
