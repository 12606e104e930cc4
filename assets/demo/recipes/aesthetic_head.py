"""Trains the head that turns the small CLIP's embedding of a picture into a score between 0 and 10."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from open_clip.model import CLIP
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm import trange

import clip
import crops
import disturb
import portraits as p

BEST, WORST, ROUND_TRIP = 9.0, 1.0, 1.0
STEPS, BATCH = 2500, 128


@dataclass(frozen=True)
class Scored:
    """Embeddings of clean pictures, of their spoiled versions, and the scores that both should get."""

    clean: Tensor
    spoiled: Tensor
    clean_score: Tensor
    spoiled_score: Tensor
    degree: Tensor


def make_head() -> nn.Sequential:
    """Makes the layers of the head."""
    width = clip.MODEL["embed_dim"]
    return nn.Sequential(
        nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1)
    )


def embed(model: CLIP, batch: Tensor) -> Tensor:
    """Gives embeddings of length one."""
    return F.normalize(model.encode_image(batch), dim=1)


@torch.no_grad()
def score_pictures(model: CLIP, vae: AutoencoderKL, sampler: crops.CropSampler, rounds: int) -> Scored:
    """Spoils every portrait in several ways; a third went through the autoencoder before and counts for a bit less."""
    parts = []
    for number in trange(rounds, desc="pictures"):
        for index in torch.arange(len(sampler.pictures)).split(64):
            clean = sampler.framed(index, p.CLOSE_UP if number % 2 else p.TIGHT)
            made = torch.rand(len(clean)) < 1 / 3
            with torch.autocast("cpu", torch.bfloat16):
                again = vae.decode(vae.encode(clean[made]).latent_dist.mode()).sample
            clean[made] = again.float().clamp(-1, 1)
            spoiled, _, degree = disturb.spoil(clean, clean=0)
            start = BEST - ROUND_TRIP * made
            end = start - (start - WORST) * degree
            parts.append((embed(model, clean), embed(model, spoiled), start, end, degree))
    return Scored(*(torch.cat(part) for part in zip(*parts, strict=True)))


def train(data: Scored) -> nn.Sequential:
    """Fits the scores and the order of each clean picture and its spoiled version."""
    torch.manual_seed(0)
    head = make_head()
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    rates = crops.one_cycle(optimiser, 2e-3, STEPS)
    for _ in trange(STEPS, desc="head"):
        index = torch.randint(len(data.clean), (BATCH,))
        clean, spoiled = head(data.clean[index])[:, 0], head(data.spoiled[index])[:, 0]
        errors = F.mse_loss(clean, data.clean_score[index]) + F.mse_loss(spoiled, data.spoiled_score[index])
        loss = errors + F.softplus(spoiled - clean).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
    return head.eval()


@torch.no_grad()
def measure(head: nn.Sequential, data: Scored) -> tuple[float, float]:
    """Rank correlation of scores with known degrees of spoiling, and the share of pairs in the right order."""
    clean, spoiled = head(data.clean)[:, 0].clamp(0, 10), head(data.spoiled)[:, 0].clamp(0, 10)
    scores = torch.cat([clean, spoiled])
    wanted = torch.cat([data.clean_score, data.spoiled_score])
    return float(spearmanr(scores, wanted).statistic), (clean > spoiled).float().mean().item()


def write(head: nn.Sequential, correlation: float, path: Path) -> None:
    """Writes the head with what a reader must know of it."""
    metadata = {
        "notice": p.NOTICE,
        "format": "finetune_monitor.aesthetic_head",
        "version": "1",
        "activation": "relu",
        "clip": "assets/demo/clip",
        "scale": "0..10",
        "normalised": "true",
        "data": "CC0 portraits of US members of Congress, clean and spoiled in nine known ways",
        "srcc": f"{correlation:.3f}",
    }
    save_file({f"layers.{name}": value for name, value in head.state_dict().items()}, path, metadata=metadata)


def main() -> None:
    options = p.arguments()
    faces = p.find_faces(options.portraits, options.work)
    held_out = crops.CropSampler(options.portraits, faces[:: p.HELD_OUT_EVERY], seed=1)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{p.DEMO / 'clip'}")
    model.eval()
    vae = AutoencoderKL.from_pretrained(options.work / "vae")
    torch.manual_seed(1)
    head = train(score_pictures(model, vae, clip.train_part(options.portraits, faces), rounds=6))
    correlation, ordered = measure(head, score_pictures(model, vae, held_out, rounds=4))
    write(head, correlation, p.DEMO / "aesthetic_head.safetensors")
    print(f"people held out: rank correlation {correlation:.3f}, pairs in the right order {ordered:.3f}")


if __name__ == "__main__":
    main()
