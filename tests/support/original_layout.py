"""Pipelines under the names of the original Stable Diffusion and SDXL, as in `.safetensors` and `.ckpt` files."""

import re
from collections.abc import Iterable, Mapping

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
XL_TEXT, XL_TEXT_2 = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."

OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.1": "mid.block_2",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
}


def original(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """All weights of Stable Diffusion 1.x, or of SDXL, in the original layout."""
    second = getattr(pipeline, "text_encoder_2", None)
    text = TEXT if second is None else XL_TEXT
    return {
        **unet_weights(pipeline.unet),
        **{VAE + name: value for name, value in vae_weights(pipeline.vae).items()},
        **{text + name.removeprefix("text_model."): value for name, value in stored(pipeline.text_encoder)},
        **({} if second is None else open_clip_weights(second, XL_TEXT_2)),
    }


def stored(model: torch.nn.Module) -> Iterable[tuple[str, Tensor]]:
    return ((name, value.contiguous()) for name, value in model.state_dict().items())


def unet_weights(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    blocks = dict(_blocks(unet.config.block_out_channels, unet.config.layers_per_block, unet.config.up_block_types))
    return {UNET + _unet_name(name, blocks): value for name, value in stored(unet)}


def _unet_name(name: str, blocks: Mapping[str, str]) -> str:
    for start, new in (*blocks.items(), *OUTER.items()):
        if name.startswith(start + "."):
            rest = name.removeprefix(start)
            return new + _replaced(rest, RESNET) if "resnets" in start else new + rest
    raise AssertionError(name)


def _blocks(channels: tuple[int, ...], layers: int, up_types: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    for i in range(len(channels)):
        for j in range(layers):
            place = f"input_blocks.{i * (layers + 1) + j + 1}"
            yield f"down_blocks.{i}.resnets.{j}", f"{place}.0"
            yield f"down_blocks.{i}.attentions.{j}", f"{place}.1"
        yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
        for j in range(layers + 1):
            place = f"output_blocks.{i * (layers + 1) + j}"
            yield f"up_blocks.{i}.resnets.{j}", f"{place}.0"
            yield f"up_blocks.{i}.attentions.{j}", f"{place}.1"
        yield f"up_blocks.{i}.upsamplers.0.conv", f"{place}.{2 if 'CrossAttn' in up_types[i] else 1}.conv"


def vae_weights(vae: AutoencoderKL) -> dict[str, Tensor]:
    """Without the prefix of a complete model, as a VAE's own file has it."""
    last = len(vae.config.block_out_channels) - 1
    found = {}
    for name, value in stored(vae):
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{last - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = _replaced(new, VAE_NAMES)
        is_attention = "attn_1" in new and new.endswith("weight") and ".norm." not in new
        found[new] = value[:, :, None, None].contiguous() if is_attention else value
    return found


def _replaced(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\1{new}", name)
    return name


def open_clip_weights(encoder: torch.nn.Module, prefix: str = "cond_stage_model.model.") -> dict[str, Tensor]:
    """A text encoder of Stable Diffusion 2.x, or the second one of SDXL, which have open_clip's names."""
    state = {name.removeprefix("text_model."): value for name, value in stored(encoder)}
    names = {"embeddings.token_embedding.weight": "token_embedding.weight"}
    names |= {"embeddings.position_embedding.weight": "positional_embedding"}
    names |= {f"final_layer_norm.{end}": f"ln_final.{end}" for end in ("weight", "bias")}
    found = {new: state[old] for old, new in names.items()}
    for layer in range(encoder.config.num_hidden_layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for end in ("weight", "bias"):
            parts = [state[f"{old}self_attn.{name}_proj.{end}"] for name in "qkv"]
            found[f"{new}attn.in_proj_{end}"] = torch.cat(parts)
            for own, theirs in OPEN_CLIP.items():
                found[f"{new}{theirs}.{end}"] = state[f"{old}{own}.{end}"]
    if "text_projection.weight" in state:
        found["text_projection"] = state["text_projection.weight"].T.contiguous()
    return {prefix + name: value for name, value in found.items()}


OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
