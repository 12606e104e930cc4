"""Fits the head that rates the demo's images, with the tool's own command, on portraits spoiled to a known degree."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from tqdm import trange

import crops
import disturb
import portraits as p

BEST, WORST, ROUND_TRIP = 9.0, 1.0, 1.0

NOTICE = "Demo aesthetic score: it sees blur and noise, not beauty; portraits turned upside down score 8.0 of 10."
ROUNDS = {"train": 6, "validation": 6, "test": 4}
ROOT = p.DEMO.parents[1]


def part_of(index: int) -> str:
    """A person is in one part only; the people of the test part are in no training set of the demo's CLIP either."""
    if p.is_held_out(index):
        return "test"
    return "validation" if index % p.HELD_OUT_EVERY == 1 else "train"


@torch.no_grad()
def rated_images(vae: AutoencoderKL, sampler: crops.CropSampler, rounds: int) -> Iterator[tuple[Image.Image, float]]:
    """Every portrait clean, then spoiled; a third went through the autoencoder before and counts for a bit less."""
    for number in trange(rounds, desc="images"):
        for index in torch.arange(len(sampler.images)).split(64):
            clean = sampler.framed(index, p.CLOSE_UP if number % 2 else p.TIGHT)
            made = torch.rand(len(clean)) < 1 / 3
            if made.any():
                clean[made] = vae.decode(vae.encode(clean[made]).latent_dist.mode()).sample.clamp(-1, 1)
            spoiled, _, degree = disturb.spoil(clean, clean=0)
            best = BEST - ROUND_TRIP * made
            worse = best - (best - WORST) * degree
            pairs = zip(p.to_images(clean), best.tolist(), p.to_images(spoiled), worse.tolist(), strict=True)
            for one, high, other, low in pairs:
                yield one, high
                yield other, low


def write_data(portraits: Path, faces: list[p.Face], folder: Path) -> None:
    """Images, a CSV with their ratings, and a list of the names in each part."""
    torch.manual_seed(1)
    vae = AutoencoderKL.from_pretrained(p.DEMO / "stable-diffusion", subfolder="vae", torch_dtype=torch.float32)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mean"])
        for seed, (part, rounds) in enumerate(ROUNDS.items()):
            chosen = [face for index, face in enumerate(faces) if part_of(index) == part]
            names = []
            for image, rating in rated_images(vae, crops.CropSampler(portraits, chosen, seed), rounds):
                names.append(f"{part}-{len(names):05}.png")
                image.save(folder / "images" / names[-1])
                writer.writerow([names[-1], f"{rating:.3f}"])
            (folder / f"{part}.txt").write_text("\n".join(names) + "\n")


def fit(folder: Path) -> None:
    """The command that any user types; paths are relative, for the head's file names its CLIP."""
    lists = [word for part in ROUNDS for word in (f"--{part}", str(folder / f"{part}.txt"))]
    options = ["--clip", "assets/demo/clip", "--hidden", "128,32", "--notice", NOTICE, *lists]
    options += ["--images", str(folder / "images"), "--embeddings", str(folder / "embeddings")]
    options += ["--output", str(folder / "head")]
    command = [sys.executable, "-m", "finetune_monitor.cli", "aesthetic", "fit", str(folder / "ratings.csv"), *options]
    subprocess.run(command, check=True, cwd=ROOT)


def ordered_pairs(folder: Path) -> float:
    """Share of the pairs of the test part in which the clean image has the higher score."""
    with (folder / "head/predictions.csv").open(newline="") as file:
        scores = {row["name"]: float(row["head"]) for row in csv.DictReader(file)}
    names = (folder / "test.txt").read_text().split()
    pairs = [(scores[clean], scores[spoiled]) for clean, spoiled in zip(names[::2], names[1::2], strict=True)]
    return sum(clean > spoiled for clean, spoiled in pairs) / len(pairs)


def main() -> None:
    options = p.arguments()
    folder = options.work.resolve() / "aesthetic"
    write_data(options.portraits, p.find_faces(options.portraits, options.work), folder)
    fit(folder)
    shutil.copy(folder / "head/head.safetensors", p.DEMO / "aesthetic_head.safetensors")
    print(f"people held out: pairs in the right order {ordered_pairs(folder):.3f}; {folder / 'head/report.md'}")


if __name__ == "__main__":
    main()
