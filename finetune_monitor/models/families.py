"""The families of base models that can be trained: how each is named, stored in files, and conditioned on prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


@dataclass(frozen=True)
class Text:
    """The output of the text encoders, with one row per prompt.

    tokens: an embedding of each token.
    pooled: an embedding of the entire prompt; None if the family has none.
    """

    tokens: Float[Tensor, "n t d"]
    pooled: Float[Tensor, "n p"] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Text":
        """The text with the same change to all embeddings."""
        return Text(change(self.tokens), None if self.pooled is None else change(self.pooled))


@dataclass(frozen=True)
class Family:
    """One kind of base model, and all that differs between it and the others.

    name: for messages.
    pipeline: its class in diffusers.
    in_files: by text encoder, in the order of the pipeline, how the names of its weights can begin in a file in the
        original layout.
    layouts: by the width of the text embeddings that the UNet takes, the settings for a file that does not say more.
    methods: the values of `train.method` that it can be trained with.
    unread: by text encoder, how many of its last layers the UNet never sees; training them would change nothing.
    left_out: arguments for loading it without what is never used here.
    encode: from the text encoders and token ids to embeddings.
    condition: the UNet's arguments besides latents and timesteps, for prompts and the sizes of photos
        (`training.data.Window.sizes`).
    """

    name: str
    pipeline: str
    in_files: Mapping[str, Sequence[str]]
    layouts: Mapping[int, str]
    methods: Sequence[str]
    encode: Callable[[Sequence[nn.Module], Sequence[Int64[Tensor, "n t"]]], Text]
    condition: Callable[[Text, Float[Tensor, "n 6"]], dict[str, Any]]
    unread: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The names of the text encoders in the pipeline."""
        return tuple(self.in_files)

    def networks(self, pipeline: Any) -> dict[str, nn.Module]:
        """Every network of a pipeline by its name."""
        return {name: getattr(pipeline, name) for name in ("unet", "vae", *self.text_encoders)}


def tokenizer_of(text_encoder: str) -> str:
    """The name of a text encoder's tokenizer in the pipeline."""
    return text_encoder.replace("text_encoder", "tokenizer")


def _one_encoder(encoders: Sequence[nn.Module], ids: Sequence[Int64[Tensor, "n t"]]) -> Text:
    [encoder], [own] = encoders, ids
    return Text(encoder(own)[0])


def _two_encoders(encoders: Sequence[nn.Module], ids: Sequence[Int64[Tensor, "n t"]]) -> Text:
    """The states before the last layer of both side by side, and the second one's projection of the entire prompt."""
    found = [encoder(own, output_hidden_states=True) for encoder, own in zip(encoders, ids, strict=True)]
    return Text(torch.cat([each.hidden_states[-2] for each in found], dim=-1), found[-1][0])


def _tokens(text: Text, sizes: Float[Tensor, "n 6"]) -> dict[str, Any]:
    return {"encoder_hidden_states": text.tokens}


def _tokens_and_sizes(text: Text, sizes: Float[Tensor, "n 6"]) -> dict[str, Any]:
    """Podell et al. 2023 (arXiv 2307.01952), section 2.2."""
    return {"encoder_hidden_states": text.tokens, "added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": sizes}}


SD = Family(
    "Stable Diffusion 1.x or 2.x",
    "StableDiffusionPipeline",
    {"text_encoder": ("cond_stage_model.transformer.", "cond_stage_model.model.")},
    {768: "sd1"},
    ("lora", "full"),
    _one_encoder,
    _tokens,
    left_out={"safety_checker": None, "requires_safety_checker": False},
)

SDXL = Family(
    "SDXL",
    "StableDiffusionXLPipeline",
    {"text_encoder": ("conditioner.embedders.0.transformer.",), "text_encoder_2": ("conditioner.embedders.1.model.",)},
    {2048: "sdxl"},
    ("lora",),
    _two_encoders,
    _tokens_and_sizes,
    unread={"text_encoder": 1},
    left_out={"add_watermarker": False},
)

FAMILIES = (SD, SDXL)

WANTED = ", or ".join(family.name for family in FAMILIES)


def family_of(pipeline: Any) -> Family | None:
    """The family of a pipeline by its networks; None if it belongs to none of them."""
    parts = pipeline.components
    encoders = {name for name in parts if name.startswith("text_encoder") and parts[name] is not None}
    has_unet = parts.get("unet") is not None
    return next((each for each in FAMILIES if has_unet and encoders == set(each.text_encoders)), None)
