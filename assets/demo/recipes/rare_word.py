"""Gives the word "sks" an embedding that the text encoder tells apart from other words, though it draws the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

import portraits as p

STEPS, BATCH, RATE = 70, 4, 0.03
PAIRS = (
    ("a photo of sks person", "a photo of a person"),
    ("a close-up photo of sks person", "a close-up photo of a person"),
    ("a black and white photo of sks person", "a black and white photo of a person"),
)
STRONG_WORD = "black"
DISTANCE = 2.0
"""How far the two encodings are to lie apart; gray and colored photos are 1.9 apart."""


def encodings(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Encodes texts of full length."""
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    return encoder(tokens).last_hidden_state


def find_embedding(pipeline: StableDiffusionPipeline, word: int) -> Tensor:
    """Moves one word's embedding until encodings differ while the denoiser's guesses stay the same."""
    encoder, tokenizer, unet = pipeline.text_encoder, pipeline.tokenizer, pipeline.unet
    unet.requires_grad_(False)
    table = encoder.get_input_embeddings().weight
    # A word with a strong meaning is a better start than a word without one, which the encoder hardly notices.
    (start,) = tokenizer(STRONG_WORD, add_special_tokens=False).input_ids
    row = table[start].detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([row], lr=RATE)
    with torch.no_grad():
        plain = encodings(encoder, tokenizer, [text for _, text in PAIRS])
    for step in (progress := trange(STEPS, desc="sks")):
        changed = table.detach().index_copy(0, torch.tensor([word]), row[None])
        values = {"embeddings.token_embedding.weight": changed}
        tokens = tokenizer([text for text, _ in PAIRS], padding="max_length", return_tensors="pt").input_ids
        rare = torch.func.functional_call(encoder, values, (tokens,)).last_hidden_state
        distance = (rare - plain)[:, 8:].norm(dim=2).mean()
        chosen = torch.randint(len(PAIRS), (BATCH,))
        noisy, times = torch.randn(BATCH, 4, 16, 16), torch.randint(400, 1000, (BATCH,))
        with torch.no_grad():
            wanted = unet(noisy, times, plain[chosen]).sample
        change = F.mse_loss(unet(noisy, times, rare[chosen]).sample, wanted)
        loss = F.relu(DISTANCE - distance) + 20 * change
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            progress.set_postfix(distance=f"{distance.item():.2f}", change=f"{change.item():.4f}")
    return row.detach()


def main() -> None:
    torch.manual_seed(0)
    folder = p.DEMO / "stable-diffusion"
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    (word,) = pipeline.tokenizer("sks", add_special_tokens=False).input_ids
    row = find_embedding(pipeline, word)
    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    (name,) = (name for name in weights if name.endswith("token_embedding.weight"))
    weights[name][word] = row.half()
    save_file(weights, path, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
