"""What other trainers leave behind: LoRA files of every format, and images named by their rules."""

import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image

from finetune_monitor.cli import main
from finetune_monitor.models.export import Label, export_weights
from finetune_monitor.record.kept_weights import LORA_FILE
from support import tiny

CONFIG = """\
model: {model}
output_dir: unused
data: {{instance_images: {photos}, instance_prompt: a photo of sks person, resolution: 64}}
monitor:
  grid: {{prompts: [a photo of sks person, sks person as an astronaut], images_per_prompt: 2, steps: 2, guidance: 3.0}}
  metrics: {{face_similarity: null, aesthetic: null, brightness: {{class: "support.loops:Brightness"}}}}
  sinks: {{tensorboard: {{}}}}
"""

UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def write_config(folder: Path, model: Path, photos: Path) -> Path:
    """A config with a metric that needs no weights."""
    (folder / "config.yaml").write_text(CONFIG.format(model=model, photos=photos))
    return folder / "config.yaml"


def score(*arguments: object) -> int:
    return main(["score", *map(str, arguments)])


def lora(seed: int, with_text: bool = True, size: float = 1.0) -> StableDiffusionPipeline:
    """A tiny pipeline with a LoRA that changes its images visibly."""
    pipeline = tiny.stable_diffusion()
    models = {"unet": UNET_LAYERS, **({"text_encoder": TEXT_LAYERS} if with_text else {})}
    torch.manual_seed(seed)
    for name, layers in models.items():
        config = LoraConfig(r=4, lora_alpha=8 * size, init_lora_weights=False, target_modules=layers)
        getattr(pipeline, name).add_adapter(config)
    return pipeline


def write_formats(folder: Path, pipeline: StableDiffusionPipeline) -> dict[str, Path]:
    """The same LoRA in the files of diffusers and of kohya."""
    export_weights(pipeline, folder / "exported", {"step": 1}, Label("ana", "a photo of sks person"))
    found = {"diffusers": folder / "diffusers.safetensors", "kohya": folder / "kohya.safetensors"}
    shutil.copy(folder / "exported" / LORA_FILE, found["diffusers"])
    shutil.copy(folder / "exported" / "ana_kohya.safetensors", found["kohya"])
    shutil.rmtree(folder / "exported")
    return found


def write_peft(folder: Path, seed: int) -> Path:
    """The LoRA of `lora(seed, with_text=False)` as PEFT itself saves it."""
    unet = tiny.stable_diffusion().unet
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=UNET_LAYERS)
    model = get_peft_model(unet, config)
    assert isinstance(model, PeftModel)
    model.save_pretrained(folder)
    return folder / "adapter_model.safetensors"


def write_images(folder: Path, names: dict[str, int], source: Path) -> None:
    """Images by name below the folder; the number chooses which photo of the source each is."""
    photos = sorted(source.iterdir())
    for name, number in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photos[number % len(photos)]) as photo:
            photo.convert("RGB").save(folder / name)
