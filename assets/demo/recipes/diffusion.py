"""Trains the denoiser and the text encoder of the small Stable Diffusion, and writes the whole pipeline."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from tqdm import tqdm, trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.tokenization_clip import VOCAB_FILES_NAMES

import captions
import crops
import portraits as p

STEPS = 4450
BATCH = 16
COPIES = 10
TOP_RATE = 8e-4
EMPTY, STRANGE = 0.1, 0.1
FIRST_WORD, LAST_WORD = 1000, 45000


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes CLIP's own vocabulary in the two files that the tokenizer reads."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(source.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = open_clip.tokenizer.SimpleTokenizer(str(source)).encoder
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(word, word): number
        for word, number in vocabulary.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCAB_FILES_NAMES["vocab_file"]).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def make_text_encoder() -> CLIPTextModel:
    """Makes an untrained text encoder that is 64 numbers wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=64,
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """Makes an untrained denoiser of latents that are 16 wide and high."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 176),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Makes the noise schedule of Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


@torch.no_grad()
def encode_portraits(vae: AutoencoderKL, sampler: crops.CropSampler) -> tuple[Tensor, list[captions.Facts]]:
    """Encodes several framed, mirrored and differently lit copies of every portrait."""
    latents, facts = [], []
    for copy in tqdm(range(COPIES), desc="latents"):
        close = copy % 2 == 0
        for index in torch.arange(len(sampler.images)).split(32):
            batch = sampler.framed(index, p.CLOSE_UP if close else p.TIGHT)
            facts += [captions.measure(image, close) for image in batch]
            with torch.autocast("cpu", torch.bfloat16):
                encoded = vae.encode(batch).latent_dist.mode()
            latents.append(encoded.float() * vae.config.scaling_factor)
    return torch.cat(latents), facts


class Prompts:
    """Turns facts into token numbers, with some empty captions and some that name the person by a strange word."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int = 0) -> None:
        self.tokenizer = tokenizer
        self.chance = random.Random(seed)

    def text(self, facts: captions.Facts) -> str:
        if self.chance.random() < EMPTY:
            return ""
        text = captions.caption(facts, self.chance)
        if self.chance.random() < STRANGE:
            word = self.tokenizer.decode([self.chance.randint(FIRST_WORD, LAST_WORD)])
            return text.replace("a person", f"{word} person")
        return text

    def tokens(self, facts: list[captions.Facts]) -> Tensor:
        texts = [self.text(fact) for fact in facts]
        return self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


class Denoiser(torch.nn.Module):
    """The two networks that are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = make_unet()
        # In bfloat16 and for so few pixels plain attention is faster on a processor than the fused one.
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder = make_text_encoder()

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(noisy, times, self.text_encoder(tokens).last_hidden_state).sample


def train(latents: Tensor, facts: list[captions.Facts], prompts: Prompts, work: Path) -> Denoiser:
    """Trains to tell the noise in a noisy latent, and returns the averaged networks."""
    torch.manual_seed(0)
    model, schedule = Denoiser(), make_scheduler()
    optimizer = torch.optim.AdamW(model.parameters(), lr=TOP_RATE, weight_decay=0.01, fused=True)
    rates = crops.one_cycle(optimizer, TOP_RATE, STEPS)
    average = crops.Average(model)
    for step in (progress := trange(STEPS, desc="denoiser")):
        index = torch.randint(len(latents), (BATCH,))
        noise, times = torch.randn(BATCH, *latents.shape[1:]), torch.randint(1000, (BATCH,))
        noisy = schedule.add_noise(latents[index], noise, times)
        tokens = prompts.tokens([facts[i] for i in index])
        with torch.autocast("cpu", torch.bfloat16):
            guess = model(noisy, times, tokens)
        loss = F.mse_loss(guess.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        average.update(model, step)
        if step % 100 == 99:
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if step % 500 == 499:
            torch.save(average.weights, work / "denoiser.pt")
    model.load_state_dict(average.weights)
    return model.eval()


def write_pipeline(vae: AutoencoderKL, model: Denoiser, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the five parts in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    # Without this the text encoder, unlike the other networks, would be loaded in half precision.
    settings = folder / "text_encoder" / "config.json"
    settings.write_text(settings.read_text().replace('"float16"', '"float32"'))
    # The two source files are far smaller than the single file that is written next to the settings.
    (folder / "tokenizer" / "tokenizer.json").unlink()
    make_tokenizer(folder / "tokenizer")


def main() -> None:
    options = p.arguments()
    vae = AutoencoderKL.from_pretrained(options.work / "vae")
    tokenizer = make_tokenizer(options.work / "tokenizer")
    sampler = crops.CropSampler(options.portraits, p.find_faces(options.portraits, options.work))
    latents, facts = encode_portraits(vae, sampler)
    model = train(latents, facts, Prompts(tokenizer), options.work)
    write_pipeline(vae, model, tokenizer, p.DEMO / "stable-diffusion")


if __name__ == "__main__":
    main()
