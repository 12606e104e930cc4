"""Your own LoRA training loop with the monitor: python examples/own_loop.py --output runs/own-loop

The defaults are the demo's model and photos, which need no download and no GPU. Pass a Stable Diffusion 1.x folder or
hub id as --model to train that.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image

from finetune_monitor import FaceSimilarity, FinetuneMonitor, Plateau, PromptGrid, ReportPage, TensorBoardSink

DEMO = Path(__file__).parents[1] / "assets/demo"
PROMPT = "a photo of sks person"


def main() -> None:
    """Train until a rule stops it, or for --steps."""
    options = parsed()
    pipe = StableDiffusionPipeline.from_pretrained(options.model, safety_checker=None).to(torch.float32)
    parameters = add_lora(pipe)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    photos = latents_of(pipe, options.photos, options.size)
    with FinetuneMonitor(
        pipe,
        PromptGrid([PROMPT], images_per_prompt=4, steps=15, guidance=3.0, size=(options.size, options.size)),
        [FaceSimilarity(options.photos, recognizer="dlib")],
        output_dir=options.output,
        sinks=[TensorBoardSink(), ReportPage()],
        stopping=Plateau("face_similarity"),
        every=options.every,
    ) as monitor:
        for step, loss in enumerate(losses(pipe, photos, options.steps), start=1):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if monitor.on_step_end(step, loss=loss.item()):
                break


def parsed() -> argparse.Namespace:
    """The options, with the demo's as defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(DEMO / "stable-diffusion"), help="folder or hub id")
    parser.add_argument("--photos", default=DEMO / "photos/astronaut", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--size", default=64, type=int, help="512 for Stable Diffusion 1.x")
    parser.add_argument("--steps", default=200, type=int)
    parser.add_argument("--every", default=50, type=int)
    return parser.parse_args()


def add_lora(pipe: StableDiffusionPipeline) -> list[torch.nn.Parameter]:
    """Freeze the pipeline, add LoRA layers to the UNet's attention, and return their parameters."""
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    return [each for each in pipe.unet.parameters() if each.requires_grad]


@torch.no_grad()
def latents_of(pipe: StableDiffusionPipeline, folder: Path, size: int) -> torch.Tensor:
    """The photos' latents, encoded once."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    images = [np.asarray(Image.open(file).convert("RGB").resize((size, size))) for file in files]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor


def losses(pipe: StableDiffusionPipeline, photos: torch.Tensor, steps: int) -> Iterator[torch.Tensor]:
    """The denoising loss of a random photo, noise and noise level, step by step."""
    noising = DDPMScheduler.from_config(pipe.scheduler.config)
    tokens = pipe.tokenizer(PROMPT, padding="max_length", truncation=True, return_tensors="pt").input_ids
    prompt = pipe.text_encoder(tokens)[0].detach()
    for _ in range(steps):
        latents = photos[torch.randint(len(photos), (1,))]
        noise, level = torch.randn_like(latents), torch.randint(noising.config.num_train_timesteps, (1,))
        predicted = pipe.unet(noising.add_noise(latents, noise, level), level, prompt).sample
        yield torch.nn.functional.mse_loss(predicted, noise)


if __name__ == "__main__":
    main()
