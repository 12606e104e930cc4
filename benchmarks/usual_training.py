"""Train a LoRA as example scripts do: photos and prompt are decoded and encoded in every step.

`benchmarks/gpu.sh` compares with this where diffusers' own script is not at hand; it takes that script's arguments.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

LAYERS = ["to_k", "to_q", "to_v", "to_out.0"]


class Photos(Dataset[torch.Tensor]):
    """Center squares of the photos, decoded each time, in -1..1."""

    def __init__(self, folder: Path, pixels: int) -> None:
        self.paths, self.pixels = sorted(folder.iterdir()), pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        photo = Image.open(self.paths[index]).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.resize((self.pixels, self.pixels), box=(left, top, left + side, top + side))
        return torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pretrained_model_name_or_path", "instance_prompt", "output_dir", "mixed_precision"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--instance_data_dir", type=Path)
    for name in ("resolution", "train_batch_size", "max_train_steps", "rank", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--center_crop", action="store_true")
    parser.add_argument("--pre_compute_text_embeddings", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    torch.manual_seed(options.seed)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(options.mixed_precision, torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(options.pretrained_model_name_or_path, safety_checker=None)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).to(accelerator.device, dtype)
    pipeline.unet.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=LAYERS))
    trained = [parameter for parameter in pipeline.unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    loader = DataLoader(
        Photos(options.instance_data_dir, options.resolution), batch_size=options.train_batch_size, shuffle=True
    )
    unet, optimizer, loader = accelerator.prepare(pipeline.unet, torch.optim.AdamW(trained, lr=1e-4), loader)
    noise_of = DDPMScheduler.from_config(pipeline.scheduler.config)
    ids = pipeline.tokenizer(options.instance_prompt, padding="max_length", truncation=True, return_tensors="pt")
    ids = ids.input_ids.to(accelerator.device)
    known = pipeline.text_encoder(ids)[0].detach() if options.pre_compute_text_embeddings else None
    unet.train()
    step = 0
    while step < options.max_train_steps:
        for photos in loader:
            latents = pipeline.vae.encode(photos.to(dtype)).latent_dist.sample() * pipeline.vae.config.scaling_factor
            noise = torch.randn_like(latents)
            t = torch.randint(0, noise_of.config.num_train_timesteps, (len(latents),), device=latents.device)
            text = (known if known is not None else pipeline.text_encoder(ids)[0]).expand(len(latents), -1, -1)
            predicted = unet(noise_of.add_noise(latents, noise, t), t, text).sample
            loss = F.mse_loss(predicted.float(), noise.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # shown in the progress bar
            step += 1
            if step == options.max_train_steps:
                break


if __name__ == "__main__":
    main()
