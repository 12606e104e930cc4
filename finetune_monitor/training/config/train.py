"""The config's `train`: how the weights are trained."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from finetune_monitor.base.sections import Section

PRODIGY_RATE = 0.01
"""A smaller factor on Prodigy's own step size must be a rate meant for AdamW: the run would learn almost nothing."""

Precision = Annotated[
    Literal["no", "fp16", "bf16"],
    BeforeValidator(lambda found: "no" if found is False else found),  # YAML reads a bare `no` as false
]


def _caching(found: Any) -> Any:
    """Undo YAML's reading of a bare on, yes, off, or no as a boolean."""
    return found if not isinstance(found, bool) else "always" if found else "never"


Caching = Annotated[Literal["auto", "always", "never"], BeforeValidator(_caching)]


class TrainConfig(Section):
    method: Literal["lora", "full"] = Field(
        "lora", description="lora trains low-rank layers; full trains the entire UNet (not for SDXL)."
    )
    rank: int = Field(16, ge=1, description="Rank of the LoRA layers; only for method: lora.")
    lora_alpha: float | None = Field(
        None, gt=0, description="Numerator of LoRA's scale, alpha / rank; null: equal to the rank."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability in the LoRA layers.")
    lora_layers: list[Literal["attention", "feed_forward", "convolution"]] = Field(
        ["attention"], min_length=1, description="Layers of the UNet that get LoRA layers."
    )
    text_encoder: bool = Field(False, description="Train the text encoder, too; for SDXL, both text encoders.")
    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = Field(
        "adamw",
        description="adamw8bit needs a GPU and bitsandbytes; prodigy finds the learning rate by itself and needs "
        "prodigyopt.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="Step size of the optimizer; with prodigy, set it to 1.0.")
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of the text encoder; null: same as learning_rate."
    )
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="How the learning rate changes after the warmup."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises from 0.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_steps: int = Field(
        3000, ge=1, description="Optimizer steps after which training ends, unless a rule stops it earlier."
    )
    batch_size: int = Field(1, ge=1, description="Photos per device and step.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches per optimizer step.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations to save memory; slows down each step."
    )
    mixed_precision: Precision = Field("no", description="Precision of the forward and backward passes.")
    compile: Literal[True, False, "auto"] = Field(
        "auto",
        description="Compile the UNet for training and rendering; needs a compiler. auto: on a GPU, if at least 5,000 "
        "steps are left.",
    )
    cache_latents: Caching = Field(
        "auto", description="Encode all photos before the first step; auto: unless the latents exceed 1 GiB."
    )
    prior_loss_weight: float = Field(
        1.0, ge=0, description="Weight of the loss on the class images (prior preservation); 0 turns it off."
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        description="Min-SNR weighting of the loss (Hang et al. 2023); null: equal weights for all noise levels.",
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Keep an exponential moving average of the weights, and evaluate and export that."
    )
    checkpoint_every: int = Field(300, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints to keep.")
    resume: str = Field(
        "auto",
        description="auto: from the latest complete checkpoint. never: reject a used output_dir. Or a checkpoint.",
    )

    @model_validator(mode="after")
    def _prodigy_finds_the_rate(self) -> "TrainConfig":
        if self.optimizer != "prodigy":
            return self
        if self.learning_rate < PRODIGY_RATE:
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}, but optimizer is prodigy, which finds the step size "
                f"itself and multiplies it by learning_rate; expected {PRODIGY_RATE:g} or more; set it to 1.0"
            )
        if self.text_encoder_learning_rate not in (None, self.learning_rate):
            raise ValueError(
                f"text_encoder_learning_rate is {self.text_encoder_learning_rate:g}, but prodigy has a single rate for "
                "everything that is trained; leave it out"
            )
        return self
